"""``server.deployed:app``: the ServerApp that a coordinator's SuperLink starts. The rounds are ``server.app``'s.

Around them it does what only a deployment needs: it asks the sites whether they agree, lets sites join that come
late, and leaves progress, notes, model and summary in the run folder, where ``fedcart server run`` reads them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.deployment import COORDINATOR_VARIABLE, CoordinatorKit, open_coordinator_kit
from common.errors import FedcartError, RefusedError, WorkFailedError
from common.flower import Parts, retry_pulls_quickly, transport_errors
from common.plain_text import word_or
from common.run import (
    FAILED,
    HEADS_FILE,
    INTERRUPTED,
    METADATA_FILE,
    PROPOSAL,
    RUNNING,
    Observer,
    Progress,
    RoundRecord,
    RunFolder,
    Summary,
    hold_run,
    interrupted,
    stop_is_asked,
)
from common.trust import Identity, Roster
from server.admission import HeadsBook
from server.app import Context, Grid, ServerApp, greet, read_item_rows, say_goodbye
from server.asking import Run
from server.delivery import DELIVER, Courier
from server.exchange import LATE, LOST, Exchange
from server.planning import open_run
from server.result import close_run, result_of_run, summarise_run, write_model
from server.rounds import Outcome, run_federation

APPROVAL_VARIABLE = "FEDCART_APPROVAL_S"
APPROVAL_S = 3_600.0
ASK_AGAIN_S = 5.0
ASK_DEADLINE_S = 30.0
PENDING = "approval"
SILENT = (LATE, LOST)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what is left of the run that the run config names, in the kit that the environment names."""
    kit = open_coordinator_kit(Path(os.environ.get(COORDINATOR_VARIABLE, "")))
    purpose, _, name = str(context.run_config["run"]).rpartition(":")
    folder = open_run(kit, name)
    retry_pulls_quickly()
    if purpose == DELIVER:
        with hold_run(folder):
            Deployment(grid, kit, folder).deliver_again()
        return
    with hold_run(folder), _told(folder):
        folder.write_summary(Summary(RUNNING))
        started = time.monotonic()
        deployment = Deployment(grid, kit, folder)
        outcome = deployment.run()
        _finish(deployment, outcome, time.monotonic() - started)


@dataclass
class Deployment:
    """One run over real sites."""

    grid: Grid
    kit: CoordinatorKit
    folder: RunFolder
    refusals: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plan = self.folder.plan()
        self.roster = self.folder.roster()
        self.coordinator = Identity.load(self.roster.coordinator.name, self.kit.identity_key)
        self.nodes: dict[str, int] = {}
        self.present: dict[str, int] = {}  # who proved to be which site, whether or not it takes part
        self.observer = FileObserver(self.folder, self)

    def run(self) -> Outcome:
        """Gather the sites, run the rounds, say goodbye. Raises: WorkFailedError, RefusedError."""
        self.present |= greet(self.grid, self.plan, self.roster, self.observer)
        self.nodes.update(self.present)
        self._catch_up()
        self.agree()
        run = Run(
            self.plan,
            self.folder,
            Exchange(self.grid, self.nodes),
            self.coordinator,
            self.roster,
            HeadsBook.open(self.kit.state / HEADS_FILE),
            read_item_rows(self.folder),
            self.observer,
            look_around=self.admit_late,
        )
        try:
            return run_federation(run)
        finally:
            say_goodbye(run)

    def agree(self) -> None:
        """Show every site the signed plan until nobody has to think about it any more; keep those that agree.

        Raises: RefusedError if too few agree.
        """
        end = time.monotonic() + float(os.environ.get(APPROVAL_VARIABLE, APPROVAL_S))
        agreed: set[str] = set()
        waiting = set(self.nodes)
        while waiting:
            said = self._propose(waiting)
            agreed |= {site for site, word in said.items() if not word}
            self.refusals |= {site: word for site, word in said.items() if word and word not in (PENDING, *SILENT)}
            for site in (site for site, word in said.items() if word in SILENT):
                self.observer.note(f"site {site} does not answer yet; it can join later")
                self.nodes.pop(site)
            waiting = {site for site, word in said.items() if word == PENDING}
            if not waiting or time.monotonic() > end:
                break
            self.observer.waiting(waiting)
            time.sleep(ASK_AGAIN_S)
        self.refusals |= dict.fromkeys(waiting, PENDING)
        for site, word in sorted(self.refusals.items()):
            self.observer.note(f"site {site} does not take part: {word}")
            self.nodes.pop(site, None)
        self._enough(agreed)

    def admit_late(self) -> None:
        """Let sites join that were not there at the start, if they agree to the plan."""
        if len(self.nodes) + len(self.refusals) >= len(self.plan.sites):
            return
        known = set(self.nodes.values())
        try:
            if not any(node not in known for node in self.grid.get_node_ids()):
                return
            late = {
                s: n
                for s, n in greet(self.grid, self.plan, self.roster, self.observer).items()
                if s in self._missing()
            }
        except WorkFailedError:
            return
        except transport_errors():
            return
        self.nodes.update(late)
        self.present |= late
        for site, word in self._propose(set(late)).items():
            if word:
                self.nodes.pop(site)
            else:
                self.observer.note(f"site {site} joins")

    def deliver(self, folder: RunFolder) -> None:
        """Hand a run's models to its sites, as far as they are connected and do not have them. Never fails the run."""
        courier = Courier(Exchange(self.grid, self.present), self.coordinator, Roster.load(self.kit.roster))
        try:
            for site, word in sorted(courier.deliver(folder, folder.plan().sites).items()):
                what = f"did not take the model of {folder.path.name}: {word}" if word else "keeps the model now"
                self.observer.note(f"site {site} {what}")
        except FedcartError as error:
            self.observer.note(f"the model of {folder.path.name} was not delivered: {error.message}")
        except transport_errors():
            self.observer.note(f"the model of {folder.path.name} was not delivered: the server does not answer")

    def deliver_again(self) -> None:
        """Only that, for a run that is over."""
        with suppress(WorkFailedError):  # whoever is there gets it
            self.present |= greet(self.grid, self.plan, self.roster, self.observer, needed=1)
        self.deliver(self.folder)

    def _catch_up(self) -> None:
        """Who was away at the end of the run before this one gets its model first: a run may begin with it."""
        before = [run for run in RunFolder.all_in(self.kit.runs) if run.path != self.folder.path]
        over = [run for run in before if (run.path / METADATA_FILE).is_file() and run.manifest()]
        if over:
            self.deliver(over[-1])

    def _missing(self) -> set[str]:
        return set(self.plan.sites) - set(self.nodes) - set(self.refusals)

    def _propose(self, sites: set[str]) -> dict[str, str]:
        """What each site says to the plan: empty for yes, else its code, with the policy rule."""
        signature = self.coordinator.sign(PROPOSAL + self.plan.digest())
        question: dict[str, Parts] = {
            site: {"plan": self.plan.to_json(), "signature": signature} for site in sorted(sites)
        }
        exchange = Exchange(self.grid, self.nodes)
        answers = exchange.ask("propose", question, deadline_s=ASK_DEADLINE_S, group="propose")
        return {site: _word(answer.error, answer.parts) for site, answer in answers.items()}

    def _enough(self, agreed: set[str]) -> None:
        needed = max(self.plan.config.aggregation.min_sites, 3)
        if len(agreed) >= needed:
            return
        words = ", ".join(f"{site} ({word})" for site, word in sorted(self.refusals.items())) or "none refused"
        raise RefusedError(
            f"{len(agreed)} sites agree, {needed} are needed: {words}",
            hint="a policy rule asks for other settings; approval is given with: fedcart site approve KIT",
        )


class FileObserver(Observer):
    """Leaves what happens in the run folder, for whoever follows it."""

    def __init__(self, folder: RunFolder, deployment: Deployment) -> None:
        self._folder = folder
        self._deployment = deployment

    def progress(self, round_number: int, phase: str, done: int, total: int) -> None:
        """Say what is under way."""
        self._folder.write_progress(Progress(round_number, phase, done, total))

    def waiting(self, sites: set[str]) -> None:
        """Say for whose approval the run waits."""
        self.progress(0, "approval of " + ", ".join(sorted(sites)), 0, len(sites))

    def round_done(self, record: RoundRecord) -> None:  # noqa: ARG002
        """A round is over: the moment to let late sites in."""
        self._deployment.admit_late()

    def stop_is_asked(self) -> bool:
        """The coordinator has pressed Ctrl-C once."""
        return stop_is_asked(self._folder)

    def note(self, message: str) -> None:
        """Keep a remark."""
        self._folder.add_note(message)


def _word(error: str, parts: dict[str, Any]) -> str:
    rule = word_or(parts.get("rule"), "")
    return f"{error} {rule}".strip()


def _finish(deployment: Deployment, outcome: Outcome, seconds: float) -> None:
    """Write the model, if there is one, and the summary; sign all of it."""
    folder, plan, coordinator = deployment.folder, deployment.plan, deployment.coordinator
    remarks: tuple[str, ...] = ()
    if outcome.status != FAILED:
        made = result_of_run(folder, plan, outcome)
        write_model(folder.path, plan, made.last, made.facts, coordinator)
        if made.best is not None:
            write_model(folder.best_model, plan, made.best, made.best_facts, coordinator)
            remarks = (made.remark,)
    if outcome.status not in (FAILED, INTERRUPTED):
        deployment.deliver(folder)
    summary = summarise_run(folder, plan, outcome, seconds, remarks)
    close_run(folder, summary, coordinator)


@contextmanager
def _told(folder: RunFolder) -> Iterator[None]:
    """Leave a summary that says why, if the run ends before its end."""
    try:
        yield
    except FedcartError as error:
        _leave_word(folder, {"error": error.message, "hint": error.hint, "exit_code": error.exit_code})
        raise
    except (SystemExit, KeyboardInterrupt):
        # told to stop at once: by the coordinator's second Ctrl-C, or because the server has ended
        ended = {"error": "the server has ended", "hint": "fedcart server start KIT, then resume", "exit_code": 1}
        _leave_word(folder, {} if stop_is_asked(folder) else ended)
        raise
    except BaseException as error:
        what = f"unexpected {type(error).__name__}"
        _leave_word(folder, {"error": what, "hint": "see the server's log", "exit_code": 1})
        raise


def _leave_word(folder: RunFolder, told: dict[str, Any]) -> None:
    """Say in the summary why it ended; on a full disk the word may be lost, then the log has it."""
    try:
        folder.write_summary(interrupted(folder.metrics(), **told))
    except FedcartError as error:
        logging.getLogger("fedcart").error("%s; %s", told.get("error", "stopped"), error.message)
