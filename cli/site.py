"""``fedcart site``: what the operator of a site does. Heavy parts are imported by the command that needs them."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.show as show
from cli.site_models import models, rollback, use
from common.errors import BadInputError
from common.plain_text import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.runtime.check import Row
    from client.runtime.status import SiteStatus

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Operate a site: your data, keys and budget.")

KitArgument = Annotated[Path, typer.Argument(help="folder of the site's kit", metavar="KIT")]
JsonOption = Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")]


@app.command()
def keygen(
    name: Annotated[str, typer.Option(help="name of the site in the federation", metavar="NAME")],
    out: Annotated[Path, typer.Option(help="folder for the keys; later the kit goes there", metavar="DIR")],
    json: JsonOption = False,
) -> None:
    """Make the site's keys. Send only NAME.keys.json to the coordinator; the two .key files never travel."""
    from common.trust.keyfiles import PUBLIC_SUFFIX, make_site_keys

    keys = make_site_keys(out, name)
    public = out / f"{name}{PUBLIC_SUFFIX}"
    if json:
        show.print_json({"name": name, "identity": keys.identity.hex(), "public_file": str(public)})
        return
    typer.echo(f"identity      {keys.identity.hex()}")
    typer.echo(f"send this     {public}")
    show.note("keep identity.key and node.key secret; without them the site cannot take part")


@app.command()
def check(kit: KitArgument, json: JsonOption = False) -> None:
    """Look for everything that could stop this site, and say what to do. Exit 0: ready, 1: something failed."""
    from client.runtime.check import FAILED, check_site, verdict
    from common.deployment import open_site_kit

    rows = check_site(open_site_kit(kit))
    status = verdict(rows)
    if json:
        show.print_json({"status": status, "checks": [asdict(row) for row in rows]})
    else:
        for row in rows:
            typer.echo(f"{_mark(row.status)}  {row.name:<19} {shown(row.found)}")
            if row.todo:
                typer.echo(f"{'':9}{'':<19} -> {shown(row.todo)}")
        typer.echo(f"\n{_verdict(rows)}")
    raise typer.Exit(1 if status == FAILED else 0)


@app.command()
def start(kit: KitArgument) -> None:
    """Connect to the server and answer until SIGTERM or Ctrl-C; starts again by itself after a lost session."""
    from client.runtime.kit_check import require_sound_kit
    from client.runtime.start import start_site
    from client.site import load_site
    from common.deployment import open_site_kit

    opened = open_site_kit(kit)
    require_sound_kit(opened)
    site = load_site(opened.path)

    def close_leftovers() -> None:
        """Whatever an earlier process left half done is closed before anything new begins."""
        site.guard().restart()
        show.note(f"site {site.name}, server {site.file.server.address}, log {opened.log}")

    start_site(opened, show.note, close_leftovers)


@app.command()
def unit(
    kit: KitArgument,
    user: Annotated[str, typer.Option(help="who runs the site; you, if left out", metavar="NAME")] = "",
) -> None:
    """Write the systemd unit of this site on stdout, with this machine's paths. Kits bring no unit and no script."""
    from client.runtime.kit_check import require_sound_kit
    from client.runtime.unit import systemd_unit
    from common.deployment import open_site_kit

    opened = open_site_kit(kit)
    require_sound_kit(opened)
    typer.echo(systemd_unit(opened, user), nl=False)


@app.command("move-ledger")
def move_ledger(
    kit: KitArgument,
    folder: Annotated[
        str, typer.Argument(help="folder outside the kit, or user for your state directory", metavar="FOLDER")
    ],
    scope: Annotated[
        str,
        typer.Option(
            help="name of the consumers, the same in every kit about them; kept if left out", metavar="NAME"
        ),
    ] = "",
    json: JsonOption = False,
) -> None:
    """Keep the account of this kit's consumers in a ledger that other kits about the same consumers use too.

    What the kit's own ledger holds is charged there; the file stays in the kit as evidence, under another name.
    """
    from client.runtime.ledgers import move
    from common.deployment import open_site_kit

    moved = move(open_site_kit(kit), folder, scope)
    if json:
        show.print_json(asdict(moved))
        return
    show.line(f"ledger        {moved.ledger}")
    show.line(
        f"scope         {moved.scope}: epsilon {show.epsilon(moved.epsilon, 4)} is charged, {moved.left_in_kit or 'nothing was in the kit'}"
    )


@app.command()
def status(
    kit: KitArgument,
    check: Annotated[
        bool, typer.Option("--check", help="also name all that is wrong; exit code 1 if anything is")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show whether the site runs, what is spent and left, and which runs wait for your word."""
    from client.runtime.status import site_status
    from common.deployment import open_site_kit

    opened = open_site_kit(kit)
    if check:
        from cli.troubles import check_status
        from client.runtime.health import site_troubles

        look = partial(site_troubles, opened)
        raise typer.Exit(
            check_status(partial(site_status, opened), look, _show_status, plain=asdict if json else None)
        )
    current = site_status(opened)
    if json:
        show.print_json(asdict(current))
    else:
        _show_status(current)


@app.command()
def approve(
    kit: KitArgument,
    plan: Annotated[
        str,
        typer.Argument(
            help="digest of the plan as shown; a run's name if only one plan has it; without: show what is asked"
        ),
    ] = "",
    reject: Annotated[bool, typer.Option("--reject", help="say no instead of yes")] = False,
    json: JsonOption = False,
) -> None:
    """Show the settings of runs that wait, and say yes (or no) to one of them, by the digest of its plan."""
    from cli.request import plain_request, show_request
    from client.runtime.approval import LEAST_PREFIX, WAITING, decide, requests
    from common.deployment import open_site_kit

    opened = open_site_kit(kit)
    if plan:
        answers = [decide(opened, plan, approve=not reject)]
    elif reject:
        raise BadInputError("--reject needs the digest of a plan", hint="fedcart site approve KIT PLAN --reject")
    else:
        answers = [request for request in requests(opened) if request.status == WAITING]
    if json:
        show.print_json([plain_request(opened, answer) for answer in answers])
        return
    for answer in answers:
        show_request(opened, answer)
    if not answers:
        show.line("no run waits for an answer")
    elif not plan:
        show.note(
            f"yes: fedcart site approve {kit} {answers[-1].digest[:LEAST_PREFIX]}    no: the same with --reject"
        )


@app.command()
def recover(
    kit: KitArgument,
    attestation: Annotated[
        Path,
        typer.Option(
            help="SITE.attestation.json, written by `fedcart server status --attestations`", metavar="FILE"
        ),
    ],
    old_keys: Annotated[
        Path | None,
        typer.Option(help="the site's former NAME.keys.json, after a rotation of keys", metavar="FILE"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Begin a new ledger after a loss: it charges all that this site has attested to the server."""
    from client.runtime.ledgers import recover_site
    from common.deployment import open_site_kit

    budget = recover_site(open_site_kit(kit), attestation, old_keys)
    if json:
        show.print_json(asdict(budget))
        return
    show.line(
        f"scope {budget.scope}: epsilon {show.epsilon(budget.epsilon, 4)} of {show.exact(budget.limit)} is charged, "
        f"{show.budget_left(budget.left, 4)} left"
    )
    show.note("who was held out then is not known any more, so every old release counts for all consumers")


app.command()(models)
app.command()(use)
app.command()(rollback)


def _verdict(rows: Sequence[Row]) -> str:
    failed, warned = (sum(row.status == status for row in rows) for status in ("failed", "warning"))
    if failed:
        return f"not ready: {failed} of {show.count(len(rows), 'check')} failed"
    return "ready" + (f", with {show.count(warned, 'warning')}" if warned else "")


def _mark(status: str) -> str:
    colour = {"ok": "green", "warning": "yellow", "failed": "red"}[status]
    return typer.style(f"{status:<7}", fg=colour) if show.results().is_terminal else f"{status:<7}"


def _show_status(found: SiteStatus) -> None:
    from client.runtime.killed import in_words

    budget = found.budget
    show.line(f"site          {found.site}")
    show.line(f"roster        {found.roster}")
    show.line(f"running       {f'yes, process {found.pid}' if found.pid else 'no'}, server {found.server}")
    show.line(f"budget        epsilon {show.epsilon(budget.epsilon, 4)} of {show.exact(budget.limit)} spent, "
               f"{show.budget_left(budget.left, 4)} left "
               f"(delta {show.exact(budget.delta)}, scope {budget.scope})")  # fmt: skip
    if budget.alone is not None:
        limit = f"of {show.exact(budget.alone_limit)}" if budget.alone_limit else "(no limit in policy.toml)"
        show.line(f"              epsilon {show.epsilon(budget.alone, 4)} {limit} if no other site is honest")
    show.line(
        f"ledger        {show.count(budget.committed, 'release')}, {budget.open} open, {budget.forfeit} failed, "
        f"{budget.void} given back"
    )
    show.line(f"model         {found.model}")
    for run in budget.paused:
        show.line(f"paused        {run}: answers failed here after they were charged; put right what the log says. The site "
                   "takes part in the next run, or in this one again if failures_max in policy.toml allows it")  # fmt: skip
    for run, ended in budget.unfinished:
        show.line(f"unfinished    {run}: {show.count(ended, 'answer')} ended with the process that computed, and given back. A "
                   "restart of the site, or want of memory (the system's log says so): one too many is charged, and the "
                   "site pauses")  # fmt: skip
    if found.killed is not None:
        times = f", {found.killed.times} times so far" if found.killed.times > 1 else ""
        show.line(f"killed        {found.killed.time}{times}: {in_words(found.killed)}")
    for request in found.requests:
        show.line(f"run           {request.run}: {request.status}, plan {request.digest[:16]}")
    for line in found.log:
        show.line(f"log           {line}")
