"""``server.app:app``: the Flower ServerApp. The same one runs simulated and deployed.

It finds a prepared run folder (``run-folder`` of the run config: plan.json, roster.json, masks.npz, first
checkpoint) and the coordinator's key, greets the sites, and runs what is left of the rounds.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

import common.wire as wire
from common import VERSION
from common.errors import FedcartError, WorkFailedError
from common.flower import Parts
from common.limits import ItemCoordinates
from common.plain_text import word_or
from common.run import COUNTERSIGNED, FAREWELL, Closing, Observer, RunFolder, RunPlan
from common.trust import Identity, Roster
from server.admission import HeadsBook
from server.asking import Measure, Run
from server.exchange import LATE, Exchange
from server.rounds import Outcome, run_federation

HELLO = b"fedcart/hello/1\0"
GREETING_S = 20.0
CLOSING_S = 30.0


def make_app(
    observer: Observer, outcomes: list[Outcome] | None = None, measured: Measure | None = None
) -> ServerApp:
    """A ServerApp that reports to ``observer`` and leaves how it ended in ``outcomes``; ``measured``: see ``Run``."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        config = context.run_config
        folder = RunFolder.open(Path(str(config["run-folder"])))
        federation = open_federation(grid, folder, Path(str(config["coordinator-key"])), observer)
        if measured is not None:  # by whoever simulates the sites
            federation.measured, federation.simulated = measured, True
        outcome = run(federation)
        if outcomes is not None:
            outcomes.append(outcome)

    return app


def open_federation(grid: Grid, folder: RunFolder, key: Path, observer: Observer) -> Run:
    """Read a prepared run folder and greet its sites.

    Raises: WorkFailedError if too few sites answer; BadInputError for a damaged folder.
    """
    plan, roster = folder.plan(), folder.roster()
    coordinator = Identity.load(roster.coordinator.name, key)
    nodes = greet(grid, plan, roster, observer)
    book = HeadsBook.open(folder.heads_file)
    return Run(plan, folder, Exchange(grid, nodes), coordinator, roster, book, read_item_rows(folder), observer)


def run(federation: Run) -> Outcome:
    """Run the rounds that are left, say goodbye. Raises: WorkFailedError if rounds keep failing."""
    try:
        outcome = run_federation(federation)
    except FedcartError:
        say_goodbye(federation)
        raise
    say_goodbye(federation)
    return outcome


def say_goodbye(run: Run) -> None:
    """Tell the sites that the run is over, so that what never left them is voided at once; keep their word on its record.

    After Ctrl-C nobody is told: the sites void it when the run goes on, or when they restart.
    """
    records = run.folder.metrics()
    closing = Closing(run.plan.run, records[-1].round if records else 0, run.folder.last_record())
    parts: Parts = {
        "closing": wire.encode(closing),
        "signature": run.coordinator.sign(closing.statement(FAREWELL)),
    }
    farewell = {site: dict(parts) for site in run.exchange.nodes}
    answers = run.exchange.ask("close", farewell, deadline_s=CLOSING_S, group="close")
    signed = {}
    for site, answer in answers.items():
        signature = answer.parts.get("signature")
        if not isinstance(signature, bytes):
            continue
        with suppress(FedcartError):  # who signs nothing true is missing in the record
            run.roster.verify(site, closing.statement(COUNTERSIGNED), signature)
            signed[site] = signature.hex()
    run.folder.write_countersigned(closing.last, signed)


def greet(grid: Grid, plan: RunPlan, roster: Roster, observer: Observer, needed: int = 0) -> dict[str, int]:
    """Find out which node is which site: each proves it with its pinned key. Strangers are ignored.

    Waits longer for a node that is connected and silent: it may still be training for a round that was cut off.
    ``needed``: how many must be there, 0 for as many as a round needs.
    Raises: WorkFailedError if fewer sites than needed are there before the deadline.
    """
    needed = needed or max(plan.config.aggregation.min_sites, 1)
    known: dict[str, int] = {}
    end = time.monotonic() + plan.config.aggregation.exchange_deadline_s
    last_end = end + plan.config.aggregation.deadline_s
    silent = False
    while len(known) < len(plan.sites) and time.monotonic() < (last_end if silent else end):
        strangers = [node for node in grid.get_node_ids() if node not in known.values()]
        names = {f"node {node}": node for node in strangers}
        question = {name: {"run": plan.run} for name in names}
        before = len(known)
        answers = Exchange(grid, names).ask("hello", question, deadline_s=GREETING_S, group="hello")
        silent = any(answer.error == LATE for answer in answers.values())
        for name, answer in answers.items():
            site = _proven(answer.parts, plan, roster, names[name], observer)
            if site:
                known[site] = names[name]
        if len(known) >= needed and len(known) == before:  # whoever is still busy starting had a second chance
            break
        time.sleep(0.0 if silent else 0.5)
    if len(known) < needed:
        raise WorkFailedError(
            f"{len(known)} of {len(plan.sites)} sites are there, {needed} are needed",
            hint="start the sites, then resume",
        )
    return known


def _proven(parts: dict[str, object], plan: RunPlan, roster: Roster, node: int, observer: Observer) -> str:
    site, signature = parts.get("site"), parts.get("signature")
    if not isinstance(site, str) or not isinstance(signature, bytes) or site not in plan.sites:
        return ""
    try:
        roster.verify(site, HELLO + f"{plan.run}/{node}".encode(), signature)
    except FedcartError:
        observer.note(f"a node says it is {site} and cannot prove it: ignored")
        return ""
    if parts.get("version") != VERSION:
        observer.note(
            f"site {site} runs version {word_or(parts.get('version'), 'unknown')}, this server {VERSION}"
        )
    return site


def read_item_rows(folder: RunFolder) -> ItemCoordinates | None:
    """The sites' public item masks and which coordinate belongs to which item, if the run has a catalogue."""
    masks = folder.item_masks()
    return ItemCoordinates(folder.item_of(), masks) if masks else None


__all__ = ["Context", "Grid", "ServerApp", "app", "make_app", "run"]

app = make_app(Observer())
