"""A record of processing activities in the order of Article 30(1) of the General Data Protection Regulation."""

from __future__ import annotations

from common.audit.papers.details import Details
from common.audit.papers.dpia import RECIPIENTS, what_leaves
from common.audit.papers.facts import Facts, checked_section, run_sections, stated, totals_table
from common.audit.papers.paper import Item, Paper, Section


def record_of_processing(facts: Facts, details: Details) -> Paper:
    """The record, point by point; what only the controller can say is asked."""
    figures = (totals_table(facts),) if facts.private else ()
    security = stated(facts, "Mechanism", "Random source") if facts.private else ()
    return Paper(
        "article-30",
        "Record of processing activities",
        facts.name,
        "General Data Protection Regulation, Article 30(1).",
        facts.marks,
        (
            Section(
                "(a) Controller, representative, data protection officer",
                items=details.items(
                    "controller.name", "controller.address", "controller.representative", "controller.officer", "controller.joint"
                ),
            ),
            Section(
                "(b) Purposes of the processing",
                items=(*details.items("purpose.purpose"), Item("Means", "training of one shared model by federated learning")),
            ),
            *run_sections(facts),
            Section(
                "(c) Categories of data subjects and of personal data",
                items=(Item("Sites", ", ".join(facts.sites)), *details.items("people.subjects", "people.data", "people.special")),
            ),
            Section("(d) Categories of recipients", items=(*RECIPIENTS, *details.items("recipients.recipients"))),
            Section("(e) Transfers to third countries", items=details.items("recipients.transfers")),
            _erasure(details),
            Section(
                "(g) Technical and organisational security measures, Article 32(1)",
                items=(what_leaves(facts), *security, *details.items("assessment.measures")),
                tables=figures,
            ),
            checked_section(facts),
        ),
    )  # fmt: skip


def _erasure(details: Details) -> Section:
    return Section(
        "(f) Time limits for erasure",
        items=(
            Item(
                "Contribution",
                "what a site is about to release is erased there when its round is closed",
            ),
            *details.items("retention.data", "retention.model", "retention.record"),
        ),
    )
