"""A data protection impact assessment in the order of Article 35(7) of the General Data Protection Regulation."""

from __future__ import annotations

from common.audit.papers.details import Details
from common.audit.papers.facts import (
    FALSE_ALARM,
    Facts,
    adversaries_table,
    checked_section,
    eps,
    listed,
    most_found,
    run_sections,
    stated,
    together_table,
    totals_table,
)
from common.audit.papers.paper import Item, Paper, Section, Table

_LEAVES = "Raw events stay at the site. In each round a site computes one vector on its own consumers' rows, and nothing else that is made of its data leaves it; {how}."
_NOISED = (
    "it is clipped at the site, noised there or in the sum as the mechanism says, and charged to the site's ledger"
)
_BARE = "it is NOT PRIVATE: without noise, what it and the model made of it tell of a person is not bounded"
RECIPIENTS = (
    Item(
        "Coordinator",
        "gets what the sites release, as the aggregation of the run says, and makes the shared model of it",
    ),
    Item("Sites of the federation", "get the model, which is made of what the sites released and of nothing else"),
)
MINIMAL = (
    "A consumer is one row of at most the planned number of last events; identifiers are pseudonyms of the site and never leave it.",
    "The site refuses a question outside its own policy, and every release that would pass its limit.",
)


def what_leaves(facts: Facts) -> Item:
    """What goes from a site to anybody else."""
    return Item("What leaves a site", _LEAVES.format(how=_NOISED if facts.private else _BARE))


def impact_assessment(facts: Facts, details: Details) -> Paper:
    """The assessment of what this record holds; what only the controller can say is asked."""
    return Paper(
        "dpia",
        "Data protection impact assessment",
        facts.name,
        "General Data Protection Regulation, Article 35(7). Figures and sentences on the guarantee come from the verified record; "
        "whether they suffice is for the controller to judge.",
        facts.marks,
        (
            _description(facts, details),
            *run_sections(facts),
            _necessity(facts, details),
            _risks(facts, details),
            _measures(facts, details),
            Section(
                "Advice, views, consultation and review, Articles 35(2), 35(9), 35(11) and 36",
                items=details.items(
                    "assessment.advice", "assessment.views", "assessment.prior_consultation", "assessment.review"
                ),
            ),
            checked_section(facts),
        ),
    )


def _description(facts: Facts, details: Details) -> Section:
    return Section(
        "Description of the processing and its purposes, Article 35(7)(a)",
        items=(
            *details.items("controller.name", "controller.address", "controller.joint", "purpose.purpose"),
            *details.items("people.subjects", "people.data", "people.special"),
            Item("Processing", "Sites train one shared model on the behaviour of their own consumers."),
            what_leaves(facts),
            Item("Sites", ", ".join(facts.sites)),
            *RECIPIENTS,
            *details.items("recipients.recipients", "retention.data", "retention.model", "retention.record"),
        ),
    )


def _necessity(facts: Facts, details: Details) -> Section:
    return Section(
        "Necessity and proportionality, Article 35(7)(b)",
        items=(
            *details.items("purpose.legal_basis", "purpose.legitimate_interests", "purpose.necessity"),
            what_leaves(facts),
            *listed("Minimisation", MINIMAL),
            *details.items("people.rights", "recipients.transfers"),
        ),
    )


def _risks(facts: Facts, details: Details) -> Section:
    about = "The risk that is measured: somebody learns from what was released that a person took part, or what that person did."
    nothing = () if facts.private else (Item("NOT PRIVATE", "nothing bounds what the model tells of a person"),)
    tables: tuple[Table, ...] = ()
    if facts.private:
        tables = (totals_table(facts), _meaning(facts), adversaries_table(facts), together_table(facts))
    return Section(
        "Risks to the rights and freedoms of data subjects, Article 35(7)(c)",
        about,
        (
            *nothing,
            *listed("Not covered by the figures", facts.statement.not_covered if facts.private else ()),
            *details.items("assessment.likelihood", "assessment.severity"),
        ),
        tables,
    )


def _meaning(facts: Facts) -> Table:
    """The figures as what the best test can do: also where they promise next to nothing."""
    columns = ("site or scope", "ε", f"of those who took part, found at most (accusing {FALSE_ALARM:.0%} wrongly)")
    rows = []
    for total in facts.totals:
        cases = [(total.who, total.epsilon)]
        if total.colluders is not None:
            cases.append((f"{total.who}, if no other site is honest", total.alone))
        for who, epsilon in cases:
            found = _percent_up(most_found(epsilon, total.delta))
            rows.append(((who, eps(epsilon), found), total.references))
    return Table("What the figures mean", columns, tuple(rows), "public")


def _percent_up(share: float) -> str:
    return f"{min(100.0, -(-share * 10_000 // 1) / 100):.2f} %"


def _measures(facts: Facts, details: Details) -> Section:
    own = (
        stated(facts, "Trust model", "Mechanism", "Sampling", "Composition", "Random source")
        if facts.private
        else ()
    )
    return Section(
        "Measures envisaged to address the risks, Article 35(7)(d)",
        items=(
            *own,
            Item("Accountability", "Every reservation is an entry of a signed, hash-chained ledger of the site; spent budget survives restarts."),
            *listed("Assumed", facts.statement.assumptions if facts.private else ()),
            *details.items("assessment.measures", "assessment.residual"),
        ),
    )  # fmt: skip
