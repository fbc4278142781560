"""The card of a model: what it is, how good, on whose data, and what it may tell of a person. It lies beside the model's files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.atomic import read_small
from common.audit.papers.facts import NOT_PRIVATE, SIMULATED, eps
from common.audit.papers.paper import RECORD, Item, Paper, Reference, Section, Table
from common.errors import FedcartError
from common.model_files import read_document
from common.run import (
    BEST,
    CARD_FILE,
    METADATA_FILE,
    METRICS_FILE,
    RoundRecord,
    RunFolder,
    Summary,
)
from common.tasks import in_order, metric_named

if TYPE_CHECKING:
    from common.audit.statement import Statement

KINDS = ("released", "public", "oracle")
_LEDE = "Made from the records of the run when it ended. Oracle figures are a simulation's own, and no server sees them."
_FOOTER = "Nobody signs this page: fedcart audit verify checks the records that it is made from, and makes it again to compare."


def write_cards(folder: RunFolder) -> list[Path]:
    """Write a card beside each model of a run that has ended, however; return where. Raises: WorkFailedError (disk)."""
    from common.atomic import write_atomic

    written = []
    for place in (folder.path, folder.best_model):
        if (place / METADATA_FILE).is_file():
            written.append(place / CARD_FILE)
            write_atomic(written[-1], model_card(folder, place).encode())
    return written


def strange_cards(folder: RunFolder) -> list[str]:
    """The cards of a run that are not what this version makes of its records, relative to the folder."""
    cards = [place / CARD_FILE for place in (folder.path, folder.best_model)]
    return [
        str(card.relative_to(folder.path)) for card in cards if card.is_file() and not _is_made_here(folder, card)
    ]


def _is_made_here(folder: RunFolder, card: Path) -> bool:
    try:
        return read_small(card) == model_card(folder, card.parent).encode()
    except (FedcartError, OSError, KeyError, TypeError, ValueError):
        return False


def model_card(folder: RunFolder, place: Path) -> str:
    """The card of the model that lies in ``place``, as Markdown. Raises: BadInputError for a damaged run."""
    from common.audit.papers.planned import planned
    from common.audit.papers.writing import as_markdown

    document = read_document((place / METADATA_FILE).read_bytes(), METADATA_FILE)
    summary, records = folder.summary() or Summary(""), folder.metrics()
    statement = _statement(folder, records)
    last = tuple(Reference(RECORD, folder.plan().run, METRICS_FILE, r.round, r.digest) for r in records[-1:])
    paper = Paper(
        "model-card",
        "Model card",
        folder.plan().run,
        _LEDE,
        tuple(_marks(summary, statement)),
        (
            Section("Model", items=_model(document, last)),
            Section("How it was made", items=planned(folder.plan(), folder.plan().run)),
            Section("Quality", _of_which(document["metadata"]), tables=(_quality(summary, last),)),
            *_privacy(summary, statement, last),
            Section("Remarks of the run", items=tuple(Item("Remark", note) for note in summary.notes)),
        ),
        asks=False,
    )
    return as_markdown(paper, _FOOTER)


def _statement(folder: RunFolder, records: list[RoundRecord]) -> Statement:
    """Of the site that has spent most: sentences, assumptions and limits are the same for all."""
    from common.audit.budgets import budget_of_attestation
    from common.audit.records import attestations_in
    from common.audit.statement import make_statement

    plan, attested = folder.plan(), attestations_in(records)
    spent = records[-1].epsilon if records else {}
    worst = max(attested, key=lambda site: (spent.get(site, 0.0), site), default=None)
    budgets = [] if worst is None else [budget_of_attestation(attested[worst][-1])]
    privacy = plan.config.privacy
    hardened = privacy.noise == "hardened"
    return make_statement(budgets, secure=None, private=privacy.enabled, hardened=hardened, quorum=plan.quorum)


def _marks(summary: Summary, statement: Statement) -> Iterator[tuple[str, str]]:
    if not summary.private:
        yield NOT_PRIVATE
    if statement.simulated:
        yield SIMULATED
    if not summary.completed:
        yield (
            "NOT COMPLETED",
            f"the run that made it is {summary.status or 'not over'}, after {summary.rounds} rounds",
        )


def _model(document: Mapping[str, Any], last: tuple[Reference, ...]) -> tuple[Item, ...]:
    facts = document["metadata"]
    made = time.strftime("%Y-%m-%d", time.gmtime(int(facts.get("finished", 0))))
    return (
        Item(
            "Which", f"{facts.get('which', '')} of its run, after round {facts.get('rounds', '')}", last, "public"
        ),
        Item("Made", made),
        Item("Sites in its last sum", ", ".join(map(str, facts.get("sites", ()))) or "none", last, "public"),
        Item("Weights", f"SHA-256 {document.get('sha256', '')}"),
        Item("Signed by the coordinator", f"Ed25519 {document.get('coordinator', '')}"),
        Item(
            "For",
            "scoring at a site, on the site's own events: fedcart predict, detect, forecast, explain, export",
        ),
        Item(
            "Not for",
            "decisions about a person without a person who looks at them; consumers of kinds that no site has",
        ),
    )


def _of_which(facts: Mapping[str, Any]) -> str:
    if facts.get("which") != BEST:
        return "Of this model, as the run ended."
    return (
        f"Of the last model of the run. This one had {facts.get('chosen_by')} {float(facts['value']):.3f} ± {float(facts['bar']):.3f} "
        "(released), where the run chooses."
    )


def _quality(summary: Summary, last: tuple[Reference, ...]) -> Table:
    rows = []
    for kind in KINDS:
        figures = summary.metrics.get(kind, {})
        signed = last if kind != "oracle" else ()
        rows += [
            ((metric_named(name).words, kind, f"{figures[name]:.4g}"), signed) for name in in_order(set(figures))
        ]
    for name, figures in sorted(summary.baselines.items()):
        rows += [
            ((f"{name}: {metric_named(one).words}", "oracle", f"{figures[one]:.4g}"), ())
            for one in in_order(set(figures))
        ]
    return Table("Figures, and what methods without a model reach", ("metric", "kind", "value"), tuple(rows))


def _privacy(summary: Summary, statement: Statement, last: tuple[Reference, ...]) -> tuple[Section, ...]:
    if not summary.private or not statement.sites:
        words = NOT_PRIVATE[1] if not summary.private else "no site has attested what it spent"
        return (Section("Privacy", items=(Item("Guarantee", words),)),)
    items = [Item(section.title, sentence) for section in statement.sections for sentence in section.sentences]
    items += [Item("Assumed", sentence) for sentence in statement.assumptions]
    items += [Item("Not covered", sentence) for sentence in statement.not_covered]
    (budget,) = statement.sites
    spent = max(summary.epsilon.values(), default=budget.epsilon)
    rows = [(("spent, at the site that spent most", eps(spent), f"{budget.delta}"), last)]
    if summary.alone:
        who = "the same, if no other site is honest"
        rows.append(((who, eps(max(summary.alone.values())), f"{budget.delta}"), last))
    return (Section("Privacy", items=tuple(items), tables=(Table("What one consumer has lost at most", ("case", "ε", "δ"), tuple(rows), "public"),)),)  # fmt: skip
