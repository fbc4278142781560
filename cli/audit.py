"""``fedcart audit``: what was spent, is the record intact, does the mechanism do what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.show as show
from cli.history import print_terms, show_account
from cli.papers import papers
from common.errors import BadInputError

if TYPE_CHECKING:
    from cli.report.audit_view import Audit, SiteAudit
    from client.selftest import SelfTestResult
    from common.audit.statement import CrossSite
    from common.audit.verdict import VerifyReport

FAILED = 1
ROWS_SHOWN = 200  # beyond, the table shows the worst site of each round; --csv always has every row

app = typer.Typer(
    add_completion=False,
    help="What was spent, is the record intact, does the mechanism do what it says? All of it offline.",
    no_args_is_help=False,
)

PathArgument = Annotated[
    Path, typer.Argument(help="run folder, ledger, folder of ledgers, or kit", show_default=False, metavar="PATH")
]
Json = Annotated[bool, typer.Option("--json", help="print everything as JSON")]


@app.command("show")
def show_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="run folder, ledger, folder of ledgers, or kit; several: one account", metavar="PATH..."
        ),
    ],
    html: Annotated[Path | None, typer.Option(help="write a page with plots, of one path", metavar="FILE")] = None,
    csv: Annotated[Path | None, typer.Option(help="write every site and round", metavar="FILE")] = None,
    json: Json = False,
) -> None:
    """Show what was spent on whom, what is left, and exactly what is promised.

    Several paths are one account: what adds up per scope, and what a consumer has lost who is in several scopes.
    Verifies the record first; exit code 1 if it is not intact.
    """
    if len(paths) > 1:
        if html is not None:
            raise BadInputError("a page is of one path", hint="--csv and --json take several")
        raise typer.Exit(show_account(paths, csv, as_json=json))
    _show_one(paths[0], html, csv, json)


def _show_one(path: Path, html: Path | None, csv: Path | None, json: bool) -> None:
    from cli.report.audit_view import as_csv, as_json, read_audit
    from common.atomic import write_atomic

    with show.working("reading the ledgers"):
        audit = read_audit(path)
    if csv is not None:
        write_atomic(csv, as_csv(audit).encode())
    if html is not None:
        from cli.report.audit_page import render_audit

        write_atomic(html, render_audit(audit).encode())
    if json:
        show.print_json(as_json(audit))
    else:
        _print_audit(audit)
        for file in (html, csv):
            if file is not None:
                show.note(f"written: {file}")
    if not audit.verdict.ok:
        raise typer.Exit(FAILED)


@app.command("verify")
def verify_command(
    path: PathArgument,
    every_round: Annotated[
        bool, typer.Option("--every-round", help="recompute epsilon of every round, not only of the last")
    ] = False,
    roster: Annotated[
        Path | None, typer.Option(help="the sites' keys from a source you trust [the run's own]", metavar="FILE")
    ] = None,
    ledger: Annotated[
        list[Path] | None,
        typer.Option(help="a site's own ledger, to compare with what the run says of it", metavar="SITE.jsonl"),
    ] = None,
    json: Json = False,
) -> None:
    """Check offline that the record is complete and unchanged; name the first entry that is not.

    Chains, signatures, signed ends, attestations, epsilon by both accountants, aggregation evidence, and that rounds,
    plan, model, result and what the sites signed at the end belong together.
    """
    from common.audit.verify import verify_path
    from common.trust import Roster

    with show.working("verifying"):
        pinned = None if roster is None else Roster.load(roster)
        verdict = verify_path(path, every_round=every_round, roster=pinned, ledgers=ledger or [])
    if json:
        show.print_json(_plain_verdict(verdict))
    else:
        _print_verdict(verdict)
    if not verdict.ok:
        if json:
            raise typer.Exit(FAILED)
        verdict.raise_if_broken()


@app.command("export")
def export_command(
    run: Annotated[Path, typer.Argument(help="run folder", metavar="RUN")],
    out: Annotated[Path, typer.Argument(help="new folder for the records", metavar="FOLDER")],
    json: Json = False,
) -> None:
    """Copy what an auditor may have: rounds, ledgers, keys, evidence and plan; no consumer's data, no private key.

    Hand over this folder, never the run folder: a simulation's holds the sites' encoded consumers.
    """
    from common.audit.export import export_records
    from common.audit.verify import verify_path

    made = export_records(run, out)
    verdict = verify_path(out)
    if json:
        show.print_json({"folder": str(out), "files": made.files, "intact": verdict.ok})
    else:
        typer.echo(f"{show.count(len(made.files), 'file')}: {out}")
        if made.oracle_left_out:
            show.note(
                f"{show.count(made.oracle_left_out, 'oracle figure')} left out: a simulation knows them, no server does"
            )
    if not verdict.ok:
        verdict.raise_if_broken()


app.command("papers")(papers)


def self_test_command(json: Json = False) -> None:
    """Test the mechanism of this installation, and attack it: lower bound beside upper bound.

    Runs on made-up consumers, reads no data and charges nothing. Exit code 1 if a promise does not hold.
    """
    with show.working("self-test") as progress:
        from client.selftest import run_selftest

        result = run_selftest(progress)
    if json:
        show.print_json(_plain_result(result))
    else:
        _print_result(result)
    if not result.passed:
        raise typer.Exit(FAILED)


if importlib.util.find_spec("client.selftest") is not None:
    app.command("self-test")(self_test_command)


def _print_audit(audit: Audit) -> None:
    statement = audit.statement
    for sentence in statement.warnings:
        show.warning(sentence)
    for finding in audit.verdict.findings:
        show.warning(f"NOT INTACT: {finding}")
    _print_rounds(audit)
    _print_not_attested(audit)
    show.table(
        f"Totals per site: ε of one consumer, against {_whom(audit)}",
        (
            "site",
            "charged",
            "ε so far",
            *(["alone"] if _shared(audit) else []),
            "limit",
            "left",
            "rounds left",
            "δ",
            "source",
        ),
        [_total_row(site, shared=_shared(audit)) for site in audit.sites],
        words=("source",),
    )
    typer.echo()
    show.table(
        "Against whom",
        ("adversary", "ε"),
        [(f"{a.who}: {a.sees}", show.epsilon(a.epsilon)) for a in statement.adversaries],
    )
    _print_cross_site(statement.cross_site)
    print_terms(statement)


def _print_cross_site(cross: CrossSite | None) -> None:

    if cross is not None and cross.sites > 1:
        typer.echo()
        show.table(
            f"A consumer known at several sites, δ = {show.exact(cross.delta)}",
            ("case", "ε"),
            [
                ("known at one site only", show.epsilon(cross.disjoint)),
                (f"known at all {cross.sites} sites", show.epsilon(cross.everywhere)),
            ],
        )


def _print_not_attested(audit: Audit) -> None:
    if audit.not_attested:
        show.table(
            "Not attested: invited, and nothing here says what these rounds cost the site; charged, where it has attested before",
            ("site", "round", "what it did"),
            [(one.site, str(one.round), one.what) for one in audit.not_attested],
            words=("what it did",),
        )
        typer.echo()


def _print_rounds(audit: Audit) -> None:
    from cli.report.audit_view import event_words, left_after

    rows = [(site, row) for site in audit.sites for row in site.rows]
    title = "Releases per site and round"
    if len(rows) > ROWS_SHOWN:
        worst: dict[tuple[str, int], Any] = {}
        for site, row in rows:
            key = (row.run, row.round)
            if key not in worst or row.epsilon_so_far > worst[key][1].epsilon_so_far:
                worst[key] = (site, row)
        rows = list(worst.values())[-ROWS_SHOWN:]
        title = "Releases per round, at the worst site (all of them: --csv FILE)"
    show.table(
        title,
        ("site", "round", "state", "event", "ε this round", "ε so far", "left"),
        [
            (
                site.budget.site,
                str(row.round),
                row.state,
                event_words(row.events),
                show.epsilon(row.epsilon_this_round) if row.state != "void" else "–",
                show.epsilon(row.epsilon_so_far),
                show.budget_left(left_after(site, row)),
            )
            for site, row in rows
        ],
        words=("state", "event"),
    )
    typer.echo()


def _shared(audit: Audit) -> bool:
    """Whether some sum holds noise of several sites."""
    return any(site.budget.colluders is not None for site in audit.sites)


def _whom(audit: Audit) -> str:
    fewest = min((s.budget.colluders for s in audit.sites if s.budget.colluders is not None), default=None)
    if fewest is None:
        return "everybody outside the site"
    others = f"and up to {fewest} other sites together" if fewest else "alone"
    return f"the server {others}; alone: if no other site is honest"


def _total_row(site: SiteAudit, *, shared: bool) -> tuple[str, ...]:
    budget = site.budget
    left = site.rounds_left
    return (
        budget.site,
        str(len(site.charged)),
        show.epsilon(budget.epsilon),
        *([show.epsilon(budget.alone)] if shared else []),
        show.exact(budget.limit),
        show.budget_left(budget.left),
        "–" if left is None else str(left),
        show.exact(budget.delta),
        site.source + (", simulated" if budget.simulated else ""),
    )


def _print_verdict(verdict: VerifyReport) -> None:
    if verdict.ledgers:
        show.table(
            "",
            ("intact ledger", "entries", "ε so far", "Rényi", "PLD", "δ", "key"),
            [
                (
                    ledger.site,
                    str(ledger.entries),
                    show.epsilon(ledger.reading.epsilon),
                    show.epsilon(ledger.reading.rdp),
                    show.epsilon(ledger.reading.pld),
                    show.exact(ledger.delta),
                    "pinned" if ledger.pinned else "its own",
                )
                for ledger in verdict.ledgers
            ],
            words=("key",),
        )
    for finding in verdict.notes:
        show.note(f"note: {finding}")
    for fault in verdict.faults if verdict.ok else ():
        typer.echo(f"proven fault, {fault}")
    if verdict.ok:
        checked = (
            show.count(len(verdict.ledgers), "ledger"),
            show.count(verdict.attestations, "attestation"),
            f"{show.count(verdict.evidence, 'round')} with aggregation evidence",
        )
        typer.echo(f"intact: {', '.join(checked)}")
        if verdict.quorum:
            show.line(verdict.quorum)
        if verdict.countersigned:
            show.line(f"last record countersigned by {', '.join(verdict.countersigned)}")
    else:
        for finding in verdict.findings:
            show.line(f"NOT INTACT: {finding}")


def _plain_verdict(verdict: VerifyReport) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(verdict) | {
        "ok": verdict.ok,
        "problems": [str(finding) for finding in verdict.findings],
        "notes": [str(finding) for finding in verdict.notes],
    }


def _print_result(result: SelfTestResult) -> None:
    show.table(
        "Promises of the mechanism",
        ("check", "", "seen", "limit"),
        [
            (f"{c.name}: {c.meaning}", "ok" if c.passed else "FAILED", f"{c.seen:.4g}", f"{c.limit:.4g}")
            for c in result.checks
        ],
        words=("",),
    )
    typer.echo()
    audit = result.audit
    show.table(
        f"An attack with {audit.canaries} canaries, δ = {show.exact(audit.delta)}, confidence {audit.confidence:g}",
        ("ε", ""),
        [
            ("proven by the attack (lower bound)", f"{audit.lower:.3f}"),
            ("promised by the accountant (upper bound)", show.epsilon(audit.upper)),
            ("right guesses", f"{audit.correct} of {audit.guesses}"),
        ],
    )
    typer.echo()
    typer.echo("passed" if result.passed else "FAILED: do not train with this installation")


def _plain_result(result: SelfTestResult) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(result) | {"passed": result.passed}
