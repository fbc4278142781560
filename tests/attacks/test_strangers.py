"""A stranger with nothing but the address, or a line that is down: the run waits, and goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import VERSION
from common.errors import WorkFailedError
from common.flower import transport_errors
from common.run.files import RunFolder
from common.run.records import INTERRUPTED, STOPPED
from common.trust.identity import Identity
from server import app, gathering
from server.admission import HeadsBook
from server.asking import TOO_FEW, Run
from server.exchange import Exchange
from server.rounds import evaluate, release_series, run_federation
from server.state import ServerState, latest_checkpoint, save_checkpoint
from tests.guard_samples import COORDINATOR, IDENTITY
from tests.server.test_exchange import ScriptedGrid
from tests.signed_runs import signed_run
from tests.tiny_federation import Recorder

SITES = ("one", "two", "three")


class Line(ScriptedGrid):
    """Nodes that refuse what they are asked; the line is down for the first looks, then up, or down after some asking."""

    def __init__(self, *, down: int = 0, nobody: int = 0, falls_after: int = 10**6, word: str = "policy") -> None:
        super().__init__({number: {"error": word} for number in range(2, 2 + len(SITES))})
        self.down, self.nobody, self.falls_after, self.looks, self.asked = down, nobody, falls_after, 0, 0

    def get_node_ids(self) -> Any:
        self.looks += 1
        if self.down > 0:
            self.down -= 1
            raise transport_errors()[0]("connection refused")
        if self.nobody > 0:
            self.nobody -= 1
            return []
        return super().get_node_ids()

    def push_messages(self, messages: Any) -> Any:
        self.asked += 1
        if self.asked == self.falls_after:
            self.down = 3
        if self.down > 0:
            raise transport_errors()[0]("connection refused")
        return super().push_messages(messages)


class Watcher(Recorder):
    """Asks the run to stop after so many looks."""

    def __init__(self, stops_after: int = 10**6) -> None:
        super().__init__()
        self.left = stops_after

    def stop_is_asked(self) -> bool:
        self.left -= 1
        return self.left < 0


def run_over(folder: Path, line: Line, watcher: Watcher | None = None, *settings: str) -> tuple[Run, Watcher]:
    """A run in the clear over three sites that refuse everything, with its folder."""

    sites = {
        name: IDENTITY if name == "one" else Identity.from_seed(name, name.encode().ljust(32)) for name in SITES
    }
    made = signed_run(RunFolder.create(folder / "run"), sites, ["training.rounds=3", *settings], (1.0, 3.0))
    save_checkpoint(made.folder.checkpoints, ServerState.initial(np.zeros(4, np.float32), made.plan.digest()))
    watcher = watcher or Watcher()
    nodes = {name: 2 + number for number, name in enumerate(SITES)}
    book = HeadsBook.open(folder / "heads.json")
    return Run(
        made.plan, made.folder, Exchange(line, nodes), COORDINATOR, made.roster, book, None, watcher
    ), watcher


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "FIRST_PAUSE_S", 0.01)


# --- the server, or the line, was down


@pytest.mark.parametrize("outage", [{"down": 4}, {"nobody": 4}])
def test_no_round_is_asked_while_nobody_can_be_reached(tmp_path: Path, outage: dict[str, int]) -> None:
    line = Line(**outage)
    run, watcher = run_over(tmp_path, line)
    run_federation(run)
    assert watcher.records[0].round == 1
    assert {site.status for site in watcher.records[0].sites.values()} == {"refused"}
    said = [note for note in watcher.notes if note.startswith("round 1 ")]
    assert len(said) == 2
    assert "0 of 3 sites can be reached, 3 are needed; missing: one, two, three" in said[0]


def test_a_line_that_falls_while_the_sites_are_asked_uses_up_no_number(tmp_path: Path) -> None:
    line = Line(falls_after=1)
    run, watcher = run_over(tmp_path, line)
    run_federation(run)
    assert [record.round for record in watcher.records] == [1]
    assert {site.status for site in watcher.records[0].sites.values()} == {"refused"}


def test_patience_ends_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gathering.PATIENCE_VARIABLE, "0.05")
    run, watcher = run_over(tmp_path, Line(down=10**6))
    with pytest.raises(WorkFailedError, match="0 of 3 sites can be reached") as caught:
        run_federation(run)
    assert "resume" in caught.value.hint
    assert not watcher.records
    assert latest_checkpoint(run.folder.checkpoints).round == 0


def test_the_coordinator_can_stop_a_run_that_waits(tmp_path: Path) -> None:
    run, watcher = run_over(tmp_path, Line(down=10**6), Watcher(stops_after=3))
    assert run_federation(run).status == INTERRUPTED
    assert not watcher.records


# --- nobody is left


def test_a_run_whose_sites_all_refuse_stops_and_says_who_said_what(tmp_path: Path) -> None:
    run, watcher = run_over(tmp_path, Line(word="budget"))
    outcome = run_federation(run)
    assert outcome.status == STOPPED
    assert "0 of 3 sites are left, 3 are needed (one: budget" in outcome.reason
    assert outcome.evaluation is None
    assert [record.kind for record in watcher.records] == ["train"]


@pytest.mark.parametrize("mode", ["plain", "secure"])
@pytest.mark.parametrize("left", [0, 1, 2])
def test_an_evaluation_of_too_few_sites_gives_no_numbers_and_no_error(
    tmp_path: Path, left: int, mode: str
) -> None:
    run, _ = run_over(tmp_path, Line(), None, f"aggregation.mode={mode}")
    state = latest_checkpoint(run.folder.checkpoints)
    for site in SITES[left:]:
        run.exchange.nodes.pop(site)
    record = evaluate(run, state)
    assert record is not None
    assert record.aborted == TOO_FEW
    assert not record.released
    assert set(record.sites) == set(SITES[:left])


def test_all_rounds_done_and_nobody_left_to_evaluate_is_a_completed_run(tmp_path: Path) -> None:
    run, watcher = run_over(tmp_path, Line())
    state = latest_checkpoint(run.folder.checkpoints)
    done = ServerState(state.parameters, state.average, state.plan, 3, stopped=dict.fromkeys(SITES, "budget"))
    save_checkpoint(run.folder.checkpoints, done)
    outcome = run_federation(run)
    assert outcome.evaluation is None
    assert "there is no closing evaluation: 0 of 3 sites are left" in outcome.reason
    assert not watcher.records


def test_series_of_too_few_sites_end_the_run_with_a_word_and_no_market(tmp_path: Path) -> None:
    run, watcher = run_over(
        tmp_path,
        Line(),
        None,
        "task=sales",
        "sales.window=14",
        "sales.test=14",
        "sales.start=2024-01-01",
        "sales.periods=100",
    )
    outcome = run_federation(run)
    assert outcome.status == "failed"
    assert "gave no sum" in outcome.reason
    assert [record.kind for record in watcher.records] == ["statistics"]
    run.exchange.nodes.clear()
    assert release_series(run, outcome.state).aborted == TOO_FEW


# --- the greeting


class Greeted(ScriptedGrid):
    """Nodes that prove who they are, after having been silent for the first questions."""

    def __init__(self, run: str, identities: dict[int, Identity], silent_s: float) -> None:
        super().__init__(dict.fromkeys(identities))
        self.identities, self.run_name, self.speaks_at = identities, run, time.monotonic() + silent_s
        self.asked = 0

    def push_messages(self, messages: Any) -> Any:
        self.asked += 1
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Any) -> Any:
        if time.monotonic() > self.speaks_at:
            for node, identity in self.identities.items():
                signature = identity.sign(app.HELLO + f"{self.run_name}/{node}".encode())
                self.script[node] = {"site": SITES[node - 2], "signature": signature, "version": VERSION}
        return super().pull_messages(message_ids)


@pytest.mark.parametrize(("silent_s", "there"), [(0.0, True), (1.0, True), (60.0, False)])
def test_a_connected_site_that_still_works_for_a_round_that_was_cut_off_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_s: float, there: bool
) -> None:
    monkeypatch.setattr(app, "GREETING_S", 0.1)
    short = ["aggregation.exchange_deadline_s=0.3", "aggregation.deadline_s=2.0"]
    run, watcher = run_over(tmp_path, Line(), None, *short)
    identities = {
        2 + n: IDENTITY if s == "one" else Identity.from_seed(s, s.encode().ljust(32)) for n, s in enumerate(SITES)
    }
    grid = Greeted(run.plan.run, identities, silent_s)
    if there:
        assert set(app.greet(grid, run.plan, run.roster, watcher)) == set(SITES)
    else:
        with pytest.raises(WorkFailedError, match="0 of 3 sites are there"):
            app.greet(grid, run.plan, run.roster, watcher)


def test_nodes_that_answer_and_prove_nothing_are_neither_waited_for_nor_asked_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "GREETING_S", 0.1)
    run, watcher = run_over(tmp_path, Line(), None, "aggregation.exchange_deadline_s=0.6")
    grid = Greeted("another-run", {2: IDENTITY}, 0.0)
    began = time.monotonic()
    with pytest.raises(WorkFailedError, match="0 of 3 sites are there"):
        app.greet(grid, run.plan, run.roster, watcher)
    assert time.monotonic() - began < 60.0  # the deadline of training, 600 s, is not waited for
    assert grid.asked <= 3
