"""``fedcart server``: what the coordinator does."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import show

if TYPE_CHECKING:
    from common.deployment import CoordinatorKit
    from common.flower_link import Control
    from common.runfolder import RunFolder

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
    """Start a run over the connected sites and show it, round by round. Ctrl-C stops it; it can be resumed."""
    from common.config import load_config
    from common.deployment import open_coordinator_kit
    from server.planning import prepare_run
    from server.runtime.control import must_be_up

    opened = open_coordinator_kit(kit)
    config = load_config(settings, set_ or [])
    must_be_up(opened)
    folder = prepare_run(opened, config, base=settings.resolve().parent)
    show.note(f"run {folder.path.name}, folder {folder.path}")
    raise typer.Exit(submit_and_follow(opened, folder, as_json=json))


@app.command()
def resume(
    kit: KitArgument,
    run: Annotated[str, typer.Argument(help="name of the run; the newest if left out")] = "",
    json: JsonOption = False,
) -> None:
    """Go on with an interrupted run from its last finished round."""
    from common.deployment import open_coordinator_kit
    from server.planning import open_run
    from server.runtime.control import must_be_up

    opened = open_coordinator_kit(kit)
    folder = open_run(opened, run)
    must_be_up(opened)
    show.note(f"resuming {folder.path.name} after {len(folder.metrics())} recorded rounds")
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


def submit_and_follow(kit: CoordinatorKit, folder: RunFolder, *, as_json: bool, again: bool = False) -> int:
    """Submit a prepared run to the running server and show it to its end, return the exit code."""
    from cli.follow import Follower, announce, follow
    from server.runtime.control import open_control, submit

    config = announce(folder)
    follower = Follower(folder, config, to_stderr=as_json)
    if again:
        follower.skip_past()
    folder.write_json("summary.json", {"status": "running"})
    with open_control(kit) as control:
        flower_run = submit(kit, control, folder.path.name)
        try:
            summary = follow(follower, folder, lambda: _flower_word(control, flower_run))
        except KeyboardInterrupt:
            control.stop_run(flower_run)
            folder.write_json("summary.json", {"status": "interrupted"})
            show.note(f"stopped; every finished round is kept. To go on: fedcart server resume {kit.path}")
            raise
    return _close(kit, folder, summary, as_json=as_json)


def _flower_word(control: Control, flower_run: int) -> str:
    from common.errors import WorkFailedError

    try:
        return control.run_status(flower_run)[0].split(":")[0]
    except WorkFailedError:
        return ""  # the server may be starting again


def _close(kit: CoordinatorKit, folder: RunFolder, summary: dict[str, Any], *, as_json: bool) -> int:
    from common.errors import FedcartError
    from common.runfolder import COMPLETED

    _report(folder)
    if as_json:
        show.print_json(summary)
    if summary.get("error"):
        failure = FedcartError(
            summary["error"], hint=summary.get("hint", "") or f"fedcart server resume {kit.path}"
        )
        failure.exit_code = int(summary.get("exit_code", 1))
        raise failure
    if not as_json:
        from common.privacy.accountant import show_epsilon

        typer.echo(f"{summary['status']}: {summary['rounds']} rounds in {show.duration(summary['seconds'])}")
        for site, epsilon in sorted(summary["epsilon"].items()):
            typer.echo(f"epsilon       {show_epsilon(epsilon)} spent at {site} (public, from its signed ledger)")
        for note in summary["notes"]:
            typer.echo(f"note          {note}")
        typer.echo(f"folder        {folder.path}")
    if summary["status"] == COMPLETED:
        return 0
    return 3 if any("budget" in note or "policy" in note for note in summary["notes"]) else 1


def _report(folder: RunFolder) -> None:
    from cli.report import write_report
    from common.errors import FedcartError

    try:
        write_report(folder.path)
    except FedcartError as error:
        show.warning(f"no report: {error.message}")
