"""When a guard gives a round back, and when failures make a site pause."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.guard import ChargedError
from client.guard.ledger import Ledger
from common.errors import (
    PausedError,
    WorkFailedError,
)
from tests.guard_samples import (
    epsilon_of_releases,
    guard_in,
    one_round,
    policy,
    proposal,
)


def test_a_run_gets_two_rounds_back_and_pays_for_the_rest(tmp_path: Path) -> None:
    """Train, farewell, train again: how long it took is seen each time, so it is not free for ever."""
    guard = guard_in(tmp_path)
    for number in range(1, 8):
        one_round(guard, number, leave=False)
    status = guard.status()
    assert (status.void, status.forfeit) == (2, 5)
    assert not status.paused  # nothing failed, and this policy is patient
    assert not status.unfinished
    assert status.epsilon >= epsilon_of_releases(5) - 1e-6
    guard.reserve(proposal(9, run="another"))
    guard.restart()
    assert guard.status().void == 3  # the next run has its own


def test_after_a_failure_of_its_own_a_site_pauses_for_the_run_and_says_so(tmp_path: Path) -> None:
    guard = guard_in(tmp_path, policy(failures_max=1))
    guard.fail(guard.reserve(proposal(1)))
    with pytest.raises(PausedError, match="failures_max is 1") as caught:
        guard.reserve(proposal(2))
    assert "log" in caught.value.hint
    assert guard.status().paused == ("run",)
    assert guard.status().entries == 3  # it paused before it was charged
    with pytest.raises(PausedError):
        guard.check_proposal(proposal(2))
    guard.reserve(proposal(1, run="next"))
    patient = guard_in(tmp_path, policy(failures_max=2))
    patient.fail(patient.reserve(proposal(2)))
    assert patient.status().paused == ("run",)


def killed(folder: Path, number: int) -> None:
    """A round whose process dies while it computes: nothing is stored, nobody says why."""
    guard_in(folder, policy(failures_max=1)).reserve(proposal(number))
    guard_in(folder, policy(failures_max=1)).close_round("run", number)


def test_a_site_whose_process_is_killed_every_round_pauses_once_it_is_charged_for_it(tmp_path: Path) -> None:
    """Want of memory ends a process without a word: it would be asked for ever, and its budget go on nothing."""
    for number in (1, 2, 3):
        killed(tmp_path, number)
    guard = guard_in(tmp_path, policy(failures_max=1))
    assert (guard.status().void, guard.status().forfeit, guard.status().paused) == (2, 1, ("run",))
    with pytest.raises(PausedError):
        guard.reserve(proposal(4))
    assert guard.status().epsilon == pytest.approx(epsilon_of_releases(1), abs=2e-6)


def test_many_answers_in_a_row_that_never_left_pause_a_site_and_one_that_left_begins_anew(tmp_path: Path) -> None:
    """Lost after they were complete, whoever's fault it was: three aborted rounds end a run, and it can be resumed."""
    guard = guard_in(tmp_path, policy(failures_max=1))
    leaves = (False, False, False, True, False, False, False, False, False)
    for number, left in enumerate(leaves, start=1):
        one_round(guard, number, leave=left)
    assert not guard.status().paused  # of a long run some are lost on the way: charged, and it goes on
    one_round(guard, 10, leave=False)
    assert guard.status().paused == ("run",)
    with pytest.raises(PausedError, match="last 6 answers of run run came to nothing"):
        guard.reserve(proposal(11))


def test_restarts_in_the_middle_of_computing_are_given_back_twice_and_then_pause(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        guard_in(tmp_path, policy(failures_max=1)).reserve(proposal(number))
        guard_in(tmp_path, policy(failures_max=1)).restart()
    status = guard_in(tmp_path, policy(failures_max=1)).status()
    assert (status.void, status.forfeit, status.paused) == (2, 1, ("run",))
    assert status.unfinished == (("run", 2),)


def test_an_anchor_that_cannot_be_written_is_a_failure_like_any_other(tmp_path: Path, monkeypatch) -> None:
    """The server hears an error after the RESERVE: charged for good, and no second try of the run."""
    guard = guard_in(tmp_path, policy(failures_max=1))
    with monkeypatch.context() as full:
        full.setattr(Ledger, "renew_anchor", lambda _self: (_ for _ in ()).throw(WorkFailedError("disk full")))
        with pytest.raises(ChargedError):
            guard.reserve(proposal(1))
    guard.close_round("run", 1)
    assert (guard.status().forfeit, guard.status().void, guard.status().paused) == (1, 0, ("run",))
