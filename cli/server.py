"""``fedcart server``: what the coordinator does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.show as show

if TYPE_CHECKING:
    from cli.follow import Follower
    from common.deployment import CoordinatorKit
    from common.run.files import RunFolder
    from common.run.summary import Summary
    from server.runtime.link_server import Control

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Coordinate a federation: server and runs.")

KitArgument = Annotated[Path, typer.Argument(help="folder of the coordinator's kit", metavar="KIT")]
JsonOption = Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")]


@app.command()
def start(kit: KitArgument) -> None:
    """Serve the admitted sites until SIGTERM or Ctrl-C; starts again by itself after a crash."""
    from common.deployment import open_coordinator_kit
    from server.runtime.bundle import read_bundle
    from server.runtime.keeper import serve

    opened = open_coordinator_kit(kit)
    read_bundle(opened)
    serve(opened, show.note)


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
    from common.config import load_config
    from common.deployment import open_coordinator_kit
    from server.planning import prepare_run
    from server.runtime.control import must_be_up

    opened = open_coordinator_kit(kit)
    config = load_config(settings, set_ or [])
    must_be_up(opened)
    folder = prepare_run(opened, config, base=settings.resolve().parent)
    show.note(f"run {folder.path.name}, known to the sites as {_name_at_sites(folder)}; folder {folder.path}")
    raise typer.Exit(submit_and_follow(opened, folder, as_json=json))


@app.command()
def resume(
    kit: KitArgument,
    run: Annotated[str, typer.Argument(help="name of the run; the newest if left out")] = "",
    json: JsonOption = False,
) -> None:
    """Go on with an interrupted run from its last finished round, or show again one that is under way."""
    from common.deployment import open_coordinator_kit
    from common.errors import BadInputError
    from common.run.hold import run_is_held
    from common.run.records import COMPLETED
    from server.planning import open_run
    from server.runtime.control import must_be_up

    opened = open_coordinator_kit(kit)
    folder = open_run(opened, run)
    must_be_up(opened)
    if run_is_held(folder):
        show.note(f"{folder.path.name} is under way: showing it")
        raise typer.Exit(attach(opened, folder, as_json=json))
    if _status_of(folder) == COMPLETED:
        raise BadInputError(
            f"{folder.path.name} is completed", hint="nothing is left to do; fedcart report shows it"
        )
    show.note(f"resuming {folder.path.name} after {show.count(len(folder.metrics()), 'recorded round')}")
    raise typer.Exit(submit_and_follow(opened, folder, as_json=json, again=True))


@app.command()
def status(
    kit: KitArgument,
    attestations: Annotated[
        Path | None,
        typer.Option(
            help="also write every site's last signed attestation there, for its recovery", metavar="DIR"
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show whether the server is up, which sites are connected, and how the runs stand."""
    from common.deployment import open_coordinator_kit
    from server.runtime.status import server_status, write_attestations

    opened = open_coordinator_kit(kit)
    found = server_status(opened)
    written = write_attestations(opened, attestations) if attestations else []
    if json:
        show.print_json(asdict(found) | {"attestations": [str(path) for path in written]})
        return
    typer.echo(f"server        {found.address}, {'up' if found.up else 'down'}")
    for site, online in found.sites.items():
        typer.echo(f"site          {site:<24} {'connected' if online else 'not connected'}")
    for one in found.runs:
        typer.echo(f"run           {one.name:<40} {one.status}, round {one.rounds} of {one.planned}")
    for path in written:
        typer.echo(f"attestation   {path}")


def submit_and_follow(
    kit: CoordinatorKit, folder: RunFolder, *, as_json: bool, again: bool = False, patient: bool = True
) -> int:
    """Submit a prepared run to the running server and show it to its end, return the exit code.

    ``patient``: Ctrl-C lets the round under way come to its end, and only a second one stops at once.
    Raises: KeyboardInterrupt when the run was stopped so.
    """
    from server.runtime.control import open_control, submit

    follower = _follower(folder, as_json=as_json)
    if again:
        follower.skip_past()
    folder.begin()
    with open_control(kit) as control:
        number = submit(kit, control, folder.path.name)
        folder.begin(number)
        return _attend(Attended(kit, folder, control, number), follower, as_json=as_json, patient=patient)


def attach(kit: CoordinatorKit, folder: RunFolder, *, as_json: bool) -> int:
    """Show a run that is under way to its end, as ``submit_and_follow`` does."""
    from server.runtime.control import open_control

    follower = _follower(folder, as_json=as_json)
    with open_control(kit) as control:
        run = Attended(kit, folder, control, folder.submitted())
        return _attend(run, follower, as_json=as_json, patient=True)


def _follower(folder: RunFolder, *, as_json: bool) -> Follower:
    """A screen on which what is about to be trained is shown, and who tells it the rest."""
    from cli.follow import Follower, deployed_facts
    from cli.screen import Screen

    facts = deployed_facts(folder)
    screen = Screen(folder.settings(), folder.path, to_stderr=as_json)
    screen.prepared(facts)
    return Follower(folder, screen)


@dataclass(frozen=True)
class Attended:
    """A submitted run: kit, folder, connection to the server, Flower's number for it."""

    kit: CoordinatorKit
    folder: RunFolder
    control: Control
    number: int

    def word(self) -> str:
        """Flower's word for how the run stands; empty while the server starts again."""
        return _flower_word(self.control, self.number)


def _attend(run: Attended, follower: Follower, *, as_json: bool, patient: bool) -> int:
    with follower.screen:
        try:
            summary = follower.to_the_end(run.word)
        except KeyboardInterrupt:
            summary = _stop(run, follower, patient=patient)
        return _close(run, follower, summary, as_json=as_json)


def _stop(run: Attended, follower: Follower, *, patient: bool) -> Summary:
    from common.run.hold import ask_to_stop
    from common.run.records import INTERRUPTED
    from common.run.summary import Summary
    from server.runtime.control import stop_at_once

    if patient and follower.in_a_round():
        ask_to_stop(run.folder)
        show.note("stopping after the round under way; Ctrl-C again stops at once, and gives that round up")
        with suppress(KeyboardInterrupt):
            return follower.to_the_end(run.word)
    stop_at_once(run.control, run.folder, run.number)
    summary = Summary(INTERRUPTED)
    run.folder.write_summary(summary)
    return summary


def _name_at_sites(folder: RunFolder) -> str:
    return folder.plan().run


def _status_of(folder: RunFolder) -> str:
    """The word of a run's summary; empty if there is none."""
    summary = folder.summary()
    return summary.status if summary else ""


def _flower_word(control: Control, flower_run: int) -> str:
    from common.errors import WorkFailedError

    try:
        return control.run_status(flower_run)[0].split(":")[0]
    except WorkFailedError:
        return ""  # the server may be starting again


def _close(run: Attended, follower: Follower, summary: Summary, *, as_json: bool) -> int:
    """Show how a run ended, return the exit code. Raises: FedcartError as the server app said, KeyboardInterrupt."""
    from common.errors import FedcartError
    from common.run.records import INTERRUPTED

    resume = f"fedcart server resume {run.kit.path}"
    _report(run.folder)
    if as_json:
        show.print_json(summary.to_json())
    if summary.error:
        failure = FedcartError(summary.error, hint=summary.hint or resume)
        failure.exit_code = summary.exit_code or 1
        raise failure
    if summary.status == INTERRUPTED:
        show.note(f"every finished round is kept, the sites go on waiting; to go on: {resume}")
        raise KeyboardInterrupt
    follower.screen.closing(summary)
    if summary.completed:
        return 0
    return 3 if any("budget" in note or "policy" in note for note in summary.notes) else 1


def _report(folder: RunFolder) -> None:
    from cli.report import write_report
    from common.errors import FedcartError

    try:
        write_report(folder.path)
    except FedcartError as error:
        show.warning(f"no report: {error.message}")
