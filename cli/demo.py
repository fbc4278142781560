"""``fedcart demo``: the whole deployment on this machine, with real processes, keys and TLS."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cli.show as show

if TYPE_CHECKING:
    from simulations.processes import LocalFederation

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    sites: Annotated[int, typer.Option(help="number of sites", min=3, max=30, metavar="N")] = 4,
    rounds: Annotated[int, typer.Option(help="number of rounds", min=1, metavar="R")] = 3,
    keep: Annotated[Path | None, typer.Option(help="keep everything in this new folder", metavar="DIR")] = None,
    json: Annotated[bool, typer.Option("--json", help="the run's summary as JSON on stdout")] = False,
) -> None:
    """Start a server and sites as real processes, run a few private rounds, audit them, clean up."""
    from common.errors import BadInputError

    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise BadInputError(f"{keep} is not empty", hint="name a new folder")
    folder = keep.resolve() if keep else Path(tempfile.mkdtemp(prefix="fedcart-demo-"))
    try:
        code = _run(folder, sites, rounds, as_json=json)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if keep is not None:
        show.note(f"kept in {folder}: kits/coordinator, kits/sites, data")
    else:
        show.note("all processes have ended, all files are removed; --keep DIR keeps them to look at")
    raise typer.Exit(code)


def _run(folder: Path, sites: int, rounds: int, *, as_json: bool) -> int:
    from cli.attend import Manner, submit_and_follow
    from common.run import load_config
    from server.planning import prepare_run
    from simulations.demo import site_names, write_demo
    from simulations.processes import LocalFederation

    began = time.monotonic()
    show.note(f"making a small marketplace of {sites} sites, their keys, certificates and settings")
    files = write_demo(folder / "data", sites=sites, consumers=400 * sites, rounds=rounds)
    names = site_names(files)
    with LocalFederation(folder) as local:
        local.provision(files.sites)
        show.note(f"kits are in {folder}; starting a server and {sites} sites on this machine's own network")
        local.start_server()
        for name in names:
            local.start_site(name)
        local.wait_online(names)
        show.note(f"server and {sites} sites are up after {time.monotonic() - began:.1f} s, each its own process")
        run = prepare_run(local.coordinator, load_config(files.run), base=files.run.parent)
        code = submit_and_follow(local.coordinator, run, Manner(as_json, patient=False))
        local.stop()
    return max(code, _audit(local, run.path, names))


def _audit(federation: LocalFederation, run: Path, sites: Sequence[str]) -> int:
    from common.audit.verify import verify_path
    from common.trust import Roster

    roster = Roster.load(federation.coordinator.roster)
    verdicts = [verify_path(run, roster=roster)]
    verdicts += [verify_path(federation.site(name).ledger, roster=roster) for name in sites]
    problems = [problem for verdict in verdicts for problem in verdict.findings]
    for verdict in verdicts[1:]:
        for ledger in verdict.ledgers:
            show.note(
                f"audit         {ledger.site}: ledger intact, {ledger.entries} entries, signature and chain hold, "
                f"ε {show.epsilon(ledger.reading.epsilon)} recomputed"
            )
    for problem in problems:
        show.warning(f"audit: {problem}")
    show.note(f"audit         run folder and {len(sites)} ledgers: {len(problems)} problems")
    return 1 if problems else 0
