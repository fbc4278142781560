"""``fedcart server``: what the coordinator does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.show as show
from cli.schedule import schedule

if TYPE_CHECKING:
    from common.run import RunFolder
    from server.runtime.status import ServerStatus

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Coordinate a federation: server and runs.")

KitArgument = Annotated[Path, typer.Argument(help="folder of the coordinator's kit", metavar="KIT")]
JsonOption = Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")]


@app.command()
def start(kit: KitArgument) -> None:
    """Serve the admitted sites until SIGTERM or Ctrl-C; starts again by itself after a crash."""
    from common.deployment import open_coordinator_kit
    from server.runtime.bundle import read_bundle
    from server.runtime.start import start_server

    opened = open_coordinator_kit(kit)
    read_bundle(opened)
    start_server(opened, show.note)


@app.command()
def unit(
    kit: KitArgument,
    user: Annotated[str, typer.Option(help="who runs the server; you, if left out", metavar="NAME")] = "",
) -> None:
    """Write the systemd unit of this coordinator on stdout, with this machine's paths."""
    from common.deployment import open_coordinator_kit
    from server.runtime.unit import systemd_unit

    typer.echo(systemd_unit(open_coordinator_kit(kit), user), nl=False)


@app.command()
def run(
    kit: KitArgument,
    settings: Annotated[Path, typer.Argument(help="settings of the run, as for simulate", metavar="RUN.toml")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="any setting, for example training.rounds=5", metavar="KEY=VALUE"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Start a run over the connected sites and show it, round by round.

    Ctrl-C stops it after the round under way, a second one at once; `fedcart server resume` goes on with it.
    """
    from cli.attend import Manner, submit_and_follow
    from common.deployment import open_coordinator_kit
    from server.affordable import require_payers, shares
    from server.planning import deployed_settings, needed_sites, plan_of_run, prepare_run, remark_on_stock
    from server.run_setup import remark_on
    from server.runtime.control import must_be_up

    opened = open_coordinator_kit(kit)
    config = deployed_settings(opened, settings, set_ or [])
    must_be_up(opened)
    poor = require_payers(
        shares(opened, plan_of_run(opened, config, base=settings.resolve().parent)), needed_sites(config)
    )
    if said := remark_on_stock(opened, config, base=settings.resolve().parent):
        show.note(said)
    if config.schedule.periods:
        show.note("this is a run beside the schedule of these settings: fedcart server schedule runs that")
    for site in poor:
        show.warning(f"site {site} cannot pay for this run and will refuse: fedcart server plan shows what fits")
    folder = prepare_run(opened, config, base=settings.resolve().parent)
    if remark := remark_on(folder.plan()):
        show.warning(remark)
    show.note(f"run {folder.path.name}, known to the sites as {_name_at_sites(folder)}; folder {folder.path}")
    raise typer.Exit(submit_and_follow(opened, folder, Manner(json)))


@app.command()
def plan(
    kit: KitArgument,
    settings: Annotated[Path, typer.Argument(help="settings of a run that you have in mind", metavar="RUN.toml")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="any setting, for example training.rounds=5", metavar="KEY=VALUE"),
    ] = None,
    periods: Annotated[
        int,
        typer.Option(
            help="so many such runs, one a month, say [those of the schedule]", metavar="N", min=0, max=366
        ),
    ] = 0,
    json: JsonOption = False,
) -> None:
    """Show what a run would cost each site, and the largest epsilon that all of them can still pay. Asks nobody.

    From the sites' last attestations: a site that never took part is taken to have spent nothing.
    """
    from common.deployment import open_coordinator_kit
    from server.affordable import horizon, largest_that_fits, shares
    from server.planning import deployed_settings, plan_of_run

    opened, base = open_coordinator_kit(kit), settings.resolve().parent
    config = deployed_settings(opened, settings, set_ or [])
    planned = plan_of_run(opened, config, base=base)
    found = shares(opened, planned)
    fits = largest_that_fits(opened, config, base=base)
    periods = periods or config.schedule.periods or 1
    later = horizon(opened, planned, periods)
    if json:
        plain = {"epsilon": config.privacy.epsilon, "sites": [asdict(s) for s in found], "fits": fits or None}
        expected = planned.task.forecast(planned)
        show.print_json(plain | {"periods": [asdict(period) for period in later], "forecast": expected})
        return
    _print_shares(f"A run of epsilon {show.exact(config.privacy.epsilon)}, {config.training.rounds} rounds", found)
    if periods > 1:
        _print_periods(later)
    rounds = config.training.rounds
    typer.echo(f"largest epsilon of a run of {rounds} rounds that every site can pay: {fits or 'none'}")
    _print_unknown(found)
    _print_forecast(planned.task.forecast(planned))


def _print_unknown(found: Sequence[Any]) -> None:
    from server.affordable import USUAL_LIMIT

    if unknown := sum(share.limit is None for share in found):
        usual = f"for them the usual {show.exact(USUAL_LIMIT)} is taken"
        typer.echo(f"{unknown} of {len(found)} sites attested no limit yet: {usual}")


def _print_forecast(lines: Sequence[str]) -> None:
    """What to expect of the run, public: it follows from settings and declarations."""
    typer.echo()
    for place, line in enumerate(lines):
        show.line(f"{'' if place else 'expect':<8} {line}")


def _print_shares(title: str, found: Sequence[Any]) -> None:
    show.table(
        title,
        ("site", "ε spent", "limit", "left", "with this run", "can pay"),
        [
            (
                share.site,
                show.epsilon(share.spent),
                show.exact(share.limit),
                show.budget_left(share.left),
                show.epsilon(share.after),
                "unknown" if share.limit is None else "yes" if share.can_pay else "NO",
            )
            for share in found
        ],
        words=("can pay",),
    )
    typer.echo()


def _print_periods(periods: Sequence[Any]) -> None:
    rows = [
        (str(p.number), show.epsilon(p.worst), ", ".join([*p.cannot, *(f"{site}?" for site in p.unsure)]) or "–")
        for p in periods
    ]
    show.table(
        "One run a period, of the same consumers: what adds up",
        ("period", "ε at the worst site", "cannot pay"),
        rows,
        words=("cannot pay",),
    )
    typer.echo("a consumer who is there in several periods has lost what stands in the last of them")


app.command()(schedule)


@app.command()
def resume(
    kit: KitArgument,
    run: Annotated[str, typer.Argument(help="name of the run; the newest if left out")] = "",
    json: JsonOption = False,
) -> None:
    """Go on with an interrupted run from its last finished round, or show again one that is under way."""
    from cli.attend import Manner, attach, is_under_way, submit_and_follow
    from common.deployment import open_coordinator_kit
    from common.errors import BadInputError
    from common.run import COMPLETED
    from server.planning import open_run
    from server.runtime.control import must_be_up

    opened = open_coordinator_kit(kit)
    folder = open_run(opened, run)
    must_be_up(opened)
    if is_under_way(folder):
        raise typer.Exit(attach(opened, folder, Manner(json)))
    if _status_of(folder) == COMPLETED:
        raise BadInputError(
            f"{folder.path.name} is completed", hint="nothing is left to do; fedcart report shows it"
        )
    show.note(f"resuming {folder.path.name} after {show.count(len(folder.metrics()), 'recorded round')}")
    raise typer.Exit(submit_and_follow(opened, folder, Manner(json), again=True))


@app.command()
def deliver(
    kit: KitArgument,
    run: Annotated[str, typer.Argument(help="name of the run; the newest that is over if left out")] = "",
    json: JsonOption = False,
) -> None:
    """Send the model of a run that is over to those of its sites that are connected and do not have it yet."""
    from cli.deliver import deliver_now
    from common.deployment import open_coordinator_kit

    opened = open_coordinator_kit(kit)
    delivered = deliver_now(opened, run)
    if json:
        show.print_json(asdict(delivered))
    else:
        show.line(f"run           {delivered.run}")
        for site in delivered.have:
            show.line(f"site          {site:<24} keeps the model")
        for site in delivered.missing:
            show.line(f"site          {site:<24} does not have it")
    raise typer.Exit(1 if delivered.missing else 0)


@app.command()
def status(
    kit: KitArgument,
    attestations: Annotated[
        Path | None,
        typer.Option(
            help="also write every site's last signed attestation there, for its recovery", metavar="DIR"
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="also name all that is wrong; exit code 1 if anything is")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show whether the server is up, which sites are connected, and how the runs stand."""
    from common.deployment import open_coordinator_kit
    from server.runtime.status import server_status, write_attestations

    opened = open_coordinator_kit(kit)
    written: list[Path] = []

    def read() -> ServerStatus:
        current = server_status(opened)
        if attestations:
            written.extend(write_attestations(opened, attestations))
        return current

    def plain(current: ServerStatus) -> dict[str, Any]:
        return asdict(current) | {"attestations": [str(path) for path in written]}

    if check:
        from cli.troubles import check_status
        from server.runtime.health import server_troubles

        look = partial(server_troubles, opened)
        raise typer.Exit(check_status(read, look, partial(_show_status, written), plain=plain if json else None))
    current = read()
    if json:
        show.print_json(plain(current))
    else:
        _show_status(written, current)


def _show_status(written: Sequence[Path], current: ServerStatus) -> None:
    show.line(f"server        {current.address}, {'up' if current.up else 'down'}")
    for site, online in current.sites.items():
        spent = f"ε {show.epsilon(current.spent[site])} spent" if site in current.spent else "never attested"
        show.line(f"site          {site:<24} {'connected' if online else 'not connected'}, {spent} (public)")
    for one in current.runs:
        show.line(f"run           {one.name:<40} {one.status}, round {one.rounds} of {one.planned}")
    for path in written:
        show.line(f"attestation   {path}")


def _name_at_sites(folder: RunFolder) -> str:
    return folder.plan().run


def _status_of(folder: RunFolder) -> str:
    """The word of a run's summary; empty if there is none."""
    summary = folder.summary()
    return summary.status if summary else ""
