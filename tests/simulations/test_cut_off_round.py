"""A run that is cut off in any phase and resumed: no round is charged twice, and the run still comes to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

import server.rounds as rounds
from client.site import load_site
from common.audit.verify import verify_path
from common.errors import WorkFailedError
from common.run.files import RunFolder
from common.run.records import RoundRecord
from server.asking import Run
from server.state import ServerState
from simulations.run import simulate
from tests.tiny_federation import Recorder, tiny

BEFORE, AFTER = ("advertise", "share"), ("mask", "confirm", "unmask")


class CutOff(Recorder):
    """Ends the program in a phase of a round, once all sites have answered."""

    def __init__(self, number: int, phase: str) -> None:
        super().__init__()
        self.place = (number, phase)

    def progress(self, round: int, phase: str, done: int, total: int) -> None:
        if (round, phase) == self.place and done == total:
            raise WorkFailedError("cut off")


def cut_and_resumed(out: Path, number: int, phase: str, *settings: str) -> Recorder:
    with pytest.raises(WorkFailedError, match="cut off"):
        simulate(tiny(*settings), out, CutOff(number, phase))
    watcher = Recorder()
    assert simulate(tiny(*settings), out, watcher, resume=True).status == "completed"
    return watcher


def releases(out: Path, numbers: tuple[int, ...] = (1, 2, 3)) -> set[tuple[int, ...]]:
    """For every site: how often it released something for each of these rounds."""
    plan, found = RunFolder.open(out).plan(), set()
    for site in plan.sites:
        kit = load_site(out / "sites" / site, simulated=True, ledger_path=out / "ledgers" / f"{site}.jsonl")
        with kit.guard().ledger.transaction() as state:
            rounds = [r.body.round for r in state.reservations.values() if r.state == "committed"]
            assert not state.open_reservations()
        found.add(tuple(rounds.count(number) for number in numbers))
    return found


@pytest.mark.full
@pytest.mark.parametrize("phase", BEFORE)
def test_a_round_cut_off_before_anything_left_is_done_as_if_nothing_had_happened(
    tmp_path: Path, phase: str
) -> None:
    cut_and_resumed(tmp_path / "run", 2, phase)
    records = RunFolder.open(tmp_path / "run").metrics()
    assert [(r.round, r.aborted, r.answered) for r in records] == [(1, "", 3), (2, "", 3), (3, "", 3)]
    assert releases(tmp_path / "run") == {(1, 1, 1)}
    assert verify_path(tmp_path / "run").ok


@pytest.mark.full
@pytest.mark.parametrize("phase", AFTER)
def test_a_round_cut_off_after_contributions_left_is_given_up_and_never_charged_again(
    tmp_path: Path, phase: str
) -> None:
    watcher = cut_and_resumed(tmp_path / "run", 1, phase)
    records = RunFolder.open(tmp_path / "run").metrics()
    assert [(r.round, r.aborted, r.answered) for r in records] == [(1, "interrupted", 0), (2, "", 3), (3, "", 3)]
    assert set(records[0].attestations) == set(records[0].sites) == set(records[0].epsilon)
    assert releases(tmp_path / "run") == {(1, 1, 1)}
    assert verify_path(tmp_path / "run", every_round=True).ok
    assert any("cut off" in note for note in watcher.notes)


@pytest.mark.full
def test_a_closing_evaluation_cut_off_after_it_was_charged_is_not_asked_again(tmp_path: Path) -> None:
    cut_and_resumed(tmp_path / "run", 3, "confirm")
    last = RunFolder.open(tmp_path / "run").metrics()[-1]
    assert (last.kind, last.aborted, last.released) == ("evaluate", "interrupted", {})
    assert releases(tmp_path / "run") == {(1, 1, 1)}
    assert verify_path(tmp_path / "run").ok


@pytest.mark.full
@pytest.mark.parametrize(("phase", "aborted"), [("share", ""), ("mask", "interrupted"), ("unmask", "interrupted")])
def test_the_release_of_a_sales_run_that_was_cut_off_is_asked_again_only_if_nothing_had_left(
    tmp_path: Path, phase: str, aborted: str
) -> None:
    sales = ("task=sales", "sales.window=14", "sales.test=14", "data.days=100", "privacy.epsilon=3")
    cut_and_resumed(tmp_path / "run", 0, phase, *sales)
    records = RunFolder.open(tmp_path / "run").metrics()
    assert [(r.round, r.aborted) for r in records] == [(0, aborted), (1, ""), (2, ""), (3, "")]
    assert releases(tmp_path / "run", (0, 1, 2, 3)) == {(1, 1, 1, 1)}
    assert verify_path(tmp_path / "run", every_round=True).ok


@pytest.mark.full
@pytest.mark.parametrize("number", [1, 3])
def test_a_round_cut_off_between_its_sum_and_its_record_leaves_no_stray_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A simulation's own measuring lies between them, and takes long: the record was called broken afterwards."""
    true = rounds._signed

    def cut_off(run: Run, record: RoundRecord, state: ServerState) -> RoundRecord:
        if record.round == number:
            raise WorkFailedError("cut off")
        return true(run, record, state)

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "_signed", cut_off)
        with pytest.raises(WorkFailedError, match="cut off"):
            simulate(tiny(), tmp_path / "run")
    assert simulate(tiny(), tmp_path / "run", resume=True).status == "completed"
    assert RunFolder.open(tmp_path / "run").metrics()[number - 1].aborted == "interrupted"
    assert verify_path(tmp_path / "run").ok
