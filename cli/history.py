"""What ``fedcart audit show`` prints of several runs and ledgers: one account, and the terms that it holds under."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import cli.show as show

if TYPE_CHECKING:
    from cli.report.history_view import LongAudit
    from common.audit.statement import Statement

PERIODS = (
    "The unit is the consumer of a scope. Runs of one scope add up, whatever data they read: new events of the same people "
    "are no new budget.",
    "Scopes stand apart only where no event is read in two of them; a consumer who returns has lost what stands under them.",
    "Only what is named here is in the sum. A scope is taken by its name: the same name, the same consumers.",
)


def show_account(paths: Sequence[Path], csv: Path | None, *, as_json: bool) -> int:
    """Verify everything at these paths and show the account over all of it; return the exit code."""
    from cli.report.history_view import long_csv, long_json, read_long_audit
    from common.atomic import write_atomic

    with show.working("reading the ledgers"):
        found = read_long_audit(paths)
    if csv is not None:
        write_atomic(csv, long_csv(found).encode())
    if as_json:
        show.print_json(long_json(found))
    else:
        _print(found)
        if csv is not None:
            show.note(f"written: {csv}")
    return 0 if found.ok else 1


def print_terms(statement: Statement) -> None:
    """The sections of a statement, what it assumes, and what it does not cover."""
    for title, sentences in (
        *((section.title, section.sentences) for section in statement.sections),
        ("Assumed", statement.assumptions),
        ("Not covered", statement.not_covered),
    ):
        print_section(title, sentences)


def print_section(title: str, sentences: Sequence[str]) -> None:
    """A heading and its sentences."""
    typer.echo(f"\n{title}")
    for sentence in sentences:
        typer.echo(f"  - {sentence}")


def _print(found: LongAudit) -> None:
    for sentence in found.warnings:
        show.warning(sentence)
    for problem in found.problems:
        show.warning(f"NOT INTACT: {problem}")
    _print_runs(found)
    _print_totals(found)
    print_section("Over time", PERIODS)
    print_terms(found.audits[-1].statement)


def _print_runs(found: LongAudit) -> None:
    show.table(
        "Runs, at the worst site of each",
        ("run", "sites", "charged", "ε of the run alone", "ε so far"),
        [
            (one.run, str(one.sites), str(one.charged), show.epsilon(one.alone), show.epsilon(one.so_far))
            for one in found.runs
        ],
    )


def _print_totals(found: LongAudit) -> None:
    """What one consumer can have lost: in each scope, and in several of them together."""
    typer.echo()
    show.table(
        "Totals per scope: ε of one consumer, over everything named here",
        ("scope", "sites", "ledgers", "ε so far", "limit", "left", "δ"),
        [
            (
                total.scope,
                ", ".join(total.sites),
                str(len(total.accounts)),
                show.epsilon(total.epsilon),
                show.exact(total.limit),
                show.budget_left(total.left),
                show.exact(total.delta),
            )
            for total in found.history.scopes
        ],
        words=("sites",),
    )
    if found.history.returning:
        typer.echo()
        show.table(
            "A consumer of several scopes",
            ("who is", "scopes", "ε", "δ"),
            [
                (one.who, str(len(one.scopes)), show.epsilon(one.epsilon), show.exact(one.delta))
                for one in found.history.returning
            ],
        )
