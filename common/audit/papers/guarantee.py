"""The guarantee in the order of NIST SP 800-226, taken sentence by sentence from the statement."""

from __future__ import annotations

from common.audit.papers.facts import (
    NOT_PRIVATE,
    Facts,
    adversaries_table,
    checked_section,
    listed,
    releases_table,
    run_sections,
    stated,
    together_table,
    totals_table,
)
from common.audit.papers.paper import Item, Paper, Section


def guarantee(facts: Facts) -> Paper:
    """What is claimed, under which assumptions, against whom; nothing but that nothing is, where a run was not private."""
    return Paper(
        "nist-800-226",
        "Statement of the differential privacy guarantee",
        facts.name,
        "In the order of NIST SP 800-226, Guidelines for Evaluating Differential Privacy Guarantees.",
        facts.marks,
        (*(_claimed(facts) if facts.private else _nothing()), *run_sections(facts), checked_section(facts)),
    )


def _nothing() -> tuple[Section, ...]:
    return (Section("Guarantee", items=(Item("None", NOT_PRIVATE[1]),)),)


def _claimed(facts: Facts) -> tuple[Section, ...]:
    return (
        Section("Unit of privacy", items=stated(facts, "Unit")),
        Section("Neighbouring relation", items=stated(facts, "Neighbouring relation")),
        Section("Epsilon and delta", "Upper bounds, always rounded up.", tables=(totals_table(facts), together_table(facts))),
        Section("Trust model", items=stated(facts, "Trust model")),
        Section("Mechanism", items=stated(facts, "Mechanism")),
        Section("Sampling", items=stated(facts, "Sampling")),
        Section("Composition", items=stated(facts, "Composition"), tables=(releases_table(facts),)),
        Section("Random source", items=stated(facts, "Random source")),
        Section("Adversaries", tables=(adversaries_table(facts),)),
        Section("Assumptions", items=listed("Assumed", facts.statement.assumptions)),
        Section("What is not covered", items=listed("Not covered", facts.statement.not_covered)),
    )  # fmt: skip
