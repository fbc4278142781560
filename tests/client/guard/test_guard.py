"""The guard of a site: reserve, store, commit, close, restart, recover."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path

import pytest

from client.guard import ChargedError, ReservationKey, outbox_digest
from client.guard.ledger import Ledger
from client.guard.recovery import recover_guard
from common.audit.verify import verify_path
from common.errors import (
    BadInputError,
    BudgetExhaustedError,
    LocalProtocolError,
    PausedError,
    PolicyRefusedError,
    RefusedError,
    RollbackError,
    VerificationError,
    WorkFailedError,
)
from common.privacy.accountant import ScopeAccountant
from common.privacy.entries import Commit
from common.privacy.mechanism import HOLDOUT_SIDE, PrivacyEvent
from common.trust.identity import Identity
from tests.guard_samples import IDENTITY, RELEASE, ROSTER, guard_in, one_round, policy, proposal


def epsilon_of_releases(count: int) -> float:
    return ScopeAccountant([RELEASE] * count).epsilon(1e-5)


def spent(folder: Path) -> float:
    return guard_in(folder).status().epsilon


def test_a_reservation_is_charged_before_anything_is_computed(tmp_path: Path) -> None:
    grant = guard_in(tmp_path).reserve(proposal())
    assert spent(tmp_path) == pytest.approx(epsilon_of_releases(1), abs=2e-6)
    said = grant.attestation.attestation
    assert (said.epsilon_before, said.sequence, said.limit) == (0.0, 1, 50.0)
    assert said.epsilon_after == spent(tmp_path)


def test_a_committed_round_stays_charged_after_it_is_closed(tmp_path: Path) -> None:
    one_round(guard_in(tmp_path), 1)
    guard_in(tmp_path).restart()
    status = guard_in(tmp_path).status()
    assert (status.committed, status.open, status.void) == (1, 0, 0)
    assert status.epsilon >= epsilon_of_releases(1)


def test_a_site_that_was_too_slow_is_not_charged(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    one_round(guard, 1, leave=False)
    assert guard.status().epsilon == 0.0 and guard.status().void == 1
    assert list((tmp_path / "outbox").iterdir()) == []


def test_a_contribution_leaves_at_most_once(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal())
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    assert guard_in(tmp_path).commit(grant) == b"numbers"
    assert list((tmp_path / "outbox").iterdir()) == []
    for again in (guard, guard_in(tmp_path)):
        with pytest.raises(LocalProtocolError, match="dead"):
            again.commit(grant)


def test_a_retry_before_anything_left_uses_the_same_bytes_at_no_charge(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    first = guard.reserve(proposal())
    guard.store(first, b"numbers", first.attestation.attestation.events)
    second = guard_in(tmp_path).reserve(proposal(attempt=1), first.attestation)
    assert second.reused and second.sequence == first.sequence and guard.stored(second) == b"numbers"
    assert second.attestation.attestation.attempt == 1
    assert second.attestation.attestation.totals == first.attestation.attestation.totals
    assert spent(tmp_path) == first.attestation.attestation.epsilon_after


@pytest.mark.parametrize(("number", "attempt"), [(3, 1), (3, 0), (2, 9), (1, 9), (0, 0)])
def test_a_round_is_over_once_an_answer_has_left(tmp_path: Path, number: int, attempt: int) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal(3))
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    guard.commit(grant)
    before = guard.ledger.path.read_bytes()
    with pytest.raises(PolicyRefusedError, match="answered once") as refusal:
        guard.reserve(proposal(number, attempt=attempt))
    assert refusal.value.rule == "round" and guard.ledger.path.read_bytes() == before
    assert not guard.reserve(proposal(1, run="another")).reused


def test_rounds_and_attempts_only_rise(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    guard.reserve(proposal(3, attempt=4))
    guard.close_round("run", 3)
    for number, attempt in ((3, 4), (3, 3), (2, 5)):
        with pytest.raises(PolicyRefusedError, match="answered once"):
            guard.reserve(proposal(number, attempt=attempt))
    grant = guard.reserve(proposal(3, attempt=5))
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    with pytest.raises(PolicyRefusedError, match="answered once"):
        guard.reserve(proposal(3, attempt=4))
    assert guard.reserve(proposal(3, attempt=6)).reused


@pytest.mark.parametrize("change", [{"query": "ff" * 32}, {"config": "ff" * 32}, {"events": (RELEASE, RELEASE)}])
def test_another_question_never_gets_the_stored_answer(tmp_path: Path, change: dict) -> None:
    guard = guard_in(tmp_path)
    guard.store(guard.reserve(proposal()), b"numbers", (RELEASE,))
    assert not guard.reserve(proposal(attempt=1, **change)).reused


def test_a_damaged_outbox_is_not_sent_and_stays_charged(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal())
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    (path,) = (tmp_path / "outbox").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(VerificationError, match="damaged"):
        guard.commit(grant)
    assert guard.status().open == 1 and not guard.reserve(proposal(attempt=1)).reused


def test_what_was_read_already_is_committed_by_its_digest_and_only_if_it_still_waits(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal())
    with pytest.raises(LocalProtocolError, match="no such stored"):
        guard.commit_known(grant, outbox_digest(b"numbers"))
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    contribution, digest = guard.stored_with_digest(grant) or (b"", b"")
    assert contribution == b"numbers" and guard.status().open == 1
    with pytest.raises(LocalProtocolError, match="no such stored"):
        guard.commit_known(grant, outbox_digest(b"others"))
    guard.commit_known(grant, digest)
    assert guard.status().committed == 1 and list((tmp_path / "outbox").iterdir()) == []
    entry = guard.ledger.reservation(grant.sequence)
    assert entry is not None and entry.outbox == digest.hex()
    with pytest.raises(LocalProtocolError, match="dead"):
        guard.commit_known(grant, digest)


def test_the_outbox_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    guard.store(guard.reserve(proposal()), b"numbers", (RELEASE,))
    (path,) = (tmp_path / "outbox").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ledger.jsonl").stat().st_mode) == 0o600


def test_nothing_is_committed_that_was_not_stored(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    with pytest.raises(LocalProtocolError, match="no stored contribution"):
        guard.commit(guard.reserve(proposal()))


def test_an_answer_that_failed_is_charged_for_good(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal())
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    guard_in(tmp_path).fail(grant)
    assert list((tmp_path / "outbox").iterdir()) == []
    guard.close_round("run", 1)
    guard_in(tmp_path).restart()
    status = guard_in(tmp_path).status()
    assert (status.forfeit, status.void, status.epsilon) == (1, 0, grant.attestation.attestation.epsilon_after)
    assert verify_path(tmp_path / "ledger.jsonl", roster=ROSTER).ledgers[0].reading.epsilon >= epsilon_of_releases(
        1
    )
    for act in (guard.commit, guard.fail):
        with pytest.raises(LocalProtocolError, match="forfeit"):
            act(grant)
    assert not guard.reserve(proposal(attempt=1)).reused


def test_only_an_open_reservation_can_be_forfeit(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal())
    guard_in(tmp_path).restart()
    with pytest.raises(LocalProtocolError, match="void"):
        guard.fail(grant)


def test_a_process_that_outlives_a_restart_can_neither_store_nor_commit(tmp_path: Path) -> None:
    orphan = guard_in(tmp_path)
    grant = orphan.reserve(proposal())
    orphan.store(grant, b"numbers", grant.attestation.attestation.events)
    guard_in(tmp_path).restart()
    for act in (
        lambda: orphan.store(grant, b"numbers", grant.attestation.attestation.events),
        lambda: orphan.commit(grant),
    ):
        with pytest.raises(LocalProtocolError, match="void"):
            act()
    assert list((tmp_path / "outbox").iterdir()) == []


def test_a_reservation_of_another_ledger_is_not_accepted(tmp_path: Path) -> None:
    grant = guard_in(tmp_path / "a").reserve(proposal())
    guard = guard_in(tmp_path / "b")
    guard.reserve(proposal(2))
    with pytest.raises(LocalProtocolError, match="not in this ledger"):
        guard.store(grant, b"numbers", grant.attestation.attestation.events)


def test_another_process_finds_the_open_reservation_of_a_round(tmp_path: Path) -> None:
    grant = guard_in(tmp_path).reserve(proposal(3))
    found = guard_in(tmp_path).find("run", 3)
    assert found == ReservationKey(grant.sequence, grant.head, "run", 3)
    assert guard_in(tmp_path).find("run", 4) is None


def test_the_budget_stops_before_the_round_and_says_how_many_rounds_fit(tmp_path: Path) -> None:
    limit = epsilon_of_releases(3) + 1e-6
    guard = guard_in(tmp_path, policy(epsilon_max=limit))
    assert guard.rounds_left([RELEASE]) == 3
    for number in (1, 2, 3):
        one_round(guard, number)
    before = (tmp_path / "ledger.jsonl").read_bytes()
    with pytest.raises(BudgetExhaustedError, match="rounds left at these settings: 0") as refusal:
        guard.reserve(proposal(4))
    assert refusal.value.exit_code == 3 and isinstance(refusal.value, RefusedError)
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    smaller = PrivacyEvent(50.0, 1.0, 1)
    with pytest.raises(BudgetExhaustedError, match="limit"):  # mixed settings count by the looser bound
        guard.reserve(proposal(4, events=(smaller,)))


def test_sub_scopes_are_disjoint_so_evaluation_does_not_eat_the_training_budget(tmp_path: Path) -> None:
    held = PrivacyEvent(5.0, 1.0, 1, HOLDOUT_SIDE)
    grant = guard_in(tmp_path).reserve(proposal(events=(RELEASE, held)))
    assert grant.attestation.attestation.epsilon_after == pytest.approx(epsilon_of_releases(1), abs=2e-6)


def test_a_rolled_back_ledger_refuses_the_round(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    one_round(guard, 1)
    older = path.read_bytes()
    echo = guard.reserve(proposal(2)).attestation
    path.write_bytes(older)
    with pytest.raises(RollbackError, match="which this site has signed"):
        guard_in(tmp_path).reserve(proposal(3), echo)
    assert path.read_bytes() == older


def test_a_ledger_that_went_another_way_from_an_old_copy_refuses_the_round(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    older = path.read_bytes()
    echo = guard.reserve(proposal(1)).attestation
    path.write_bytes(older)
    path.with_suffix(".head.json").unlink()  # the site itself can no longer know
    one_round(guard_in(tmp_path), 9)
    with pytest.raises(RollbackError):
        guard_in(tmp_path).reserve(proposal(3), echo)


@pytest.mark.parametrize("emptied", [True, False])
def test_a_ledger_that_is_gone_refuses_the_round(tmp_path: Path, emptied: bool) -> None:
    echo = guard_in(tmp_path).reserve(proposal(1)).attestation
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"") if emptied else path.unlink()
    with pytest.raises(RollbackError):
        guard_in(tmp_path).reserve(proposal(2), echo)


def test_an_echo_that_this_site_did_not_sign_is_refused(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    echo = guard.reserve(proposal(1)).attestation
    changed = dataclasses.replace(echo, attestation=dataclasses.replace(echo.attestation, sequence=0))
    with pytest.raises(VerificationError, match="signature"):
        guard.reserve(proposal(2), changed)


def test_recovery_charges_everything_the_server_has_seen(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    for number in (1, 2):
        one_round(guard, number)
    known = guard.reserve(proposal(3)).attestation
    (tmp_path / "ledger.jsonl").write_bytes(b"damaged\n")
    recovered = recover_guard(tmp_path, IDENTITY, policy(), known)
    assert recovered.status().epsilon == known.attestation.epsilon_after
    assert (tmp_path / "ledger.lost-1.jsonl").read_bytes() == b"damaged\n"
    after = guard_in(tmp_path).reserve(proposal(4), known)
    assert after.attestation.attestation.sequence > known.attestation.sequence
    assert after.attestation.attestation.epsilon_after == pytest.approx(epsilon_of_releases(4), abs=2e-6)
    assert verify_path(tmp_path / "ledger.jsonl", roster=ROSTER).ok


def test_recovery_from_an_old_attestation_does_not_satisfy_a_server_that_knows_more(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    old, new = (guard.reserve(proposal(n)).attestation for n in (1, 2))
    newest = guard.reserve(proposal(3)).attestation
    guard.ledger.path.unlink()
    guard.ledger.anchor_path.unlink()  # else it would charge what the old attestation does not show
    recovered = recover_guard(tmp_path, IDENTITY, policy(), old)
    assert new.attestation.sequence == old.attestation.sequence + 1
    for echo in (new, newest):
        with pytest.raises(RollbackError):
            recovered.reserve(proposal(4), echo)


def test_a_recovered_ledger_without_its_charge_is_not_a_ledger(tmp_path: Path) -> None:
    known = guard_in(tmp_path).reserve(proposal(1)).attestation
    guard = recover_guard(tmp_path, IDENTITY, policy(), known)
    path = guard.ledger.path
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    guard.ledger.anchor_path.unlink()
    ledger = Ledger(path, IDENTITY)
    ledger.open(scope="consumers", delta=1e-5, simulated=False)
    with ledger.transaction(), pytest.raises(VerificationError, match="begin with a charge"):
        ledger.append(Commit(reserve=0, outbox="0" * 64))


@pytest.mark.parametrize(
    ("what", "change"),
    [("delta", {"rules": policy(delta=1e-6)}), ("simulated", {"simulated": True})],
)
def test_constants_of_a_ledger_are_fixed_when_it_is_made(tmp_path: Path, what: str, change: dict) -> None:
    guard_in(tmp_path)
    with pytest.raises(BadInputError, match=what):
        guard_in(tmp_path, **change)


def test_another_site_cannot_use_the_ledger(tmp_path: Path) -> None:
    guard_in(tmp_path)
    ledger = Ledger(tmp_path / "ledger.jsonl", Identity.generate("thief"))
    with pytest.raises((BadInputError, VerificationError)):
        ledger.open(scope="consumers", delta=1e-5, simulated=False)


def test_a_torn_last_line_was_never_written(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    guard.reserve(proposal())
    whole = path.read_bytes()
    for cut in (1, 40, 400):
        path.write_bytes(whole + whole.splitlines()[-1][:cut])
        assert guard_in(tmp_path).status().open == 1
        assert path.read_bytes() == whole


def test_a_last_line_that_lacks_only_its_end_still_counts(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    guard.reserve(proposal())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert guard_in(tmp_path).status().open == 1
    assert path.read_bytes() == whole


def test_an_entry_that_breaks_a_rule_never_reaches_the_file(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    before = path.read_bytes()
    with guard.ledger.transaction(), pytest.raises(VerificationError, match="not an open reservation"):
        guard.ledger.append(Commit(reserve=0, outbox="0" * 64))
    assert path.read_bytes() == before


def test_a_damaged_line_refuses_the_ledger_and_names_it(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    guard.reserve(proposal())
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b'"steps":1', b'"steps":0'))
    with pytest.raises(VerificationError, match="line 2") as error:
        guard_in(tmp_path)
    assert "recover" in error.value.hint


def test_a_full_disk_means_not_reserved_and_nothing_half_believed(tmp_path: Path, monkeypatch) -> None:
    guard = guard_in(tmp_path)
    one_round(guard, 1)

    def full(fd: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(28, "no space left on device")
        return real(fd, data[: len(data) // 2])

    real, before = os.write, (tmp_path / "ledger.jsonl").read_bytes()
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(WorkFailedError, match="no space left"):
        guard.reserve(proposal(2))
    monkeypatch.undo()
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    assert guard.status().entries == 3 and guard.status().open == 0
    one_round(guard, 2)
    assert verify_path(tmp_path / "ledger.jsonl", roster=ROSTER).ok


def test_a_failed_sync_means_not_committed_but_charged(tmp_path: Path, monkeypatch) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal())
    guard.store(grant, b"numbers", grant.attestation.attestation.events)

    def broken(fd: int) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(WorkFailedError, match="input/output"):
        guard.commit(grant)
    monkeypatch.undo()
    assert guard.status().epsilon >= epsilon_of_releases(1)


def test_two_processes_never_reserve_more_than_the_limit(tmp_path: Path) -> None:
    limit = epsilon_of_releases(6) + 1e-6
    guard_in(tmp_path, policy(epsilon_max=limit))
    children = [_fork_and_reserve(tmp_path, limit, first) for first in (1, 101)]
    made = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    status = guard_in(tmp_path, policy(epsilon_max=limit)).status()
    assert sum(made) == 6 == status.open
    assert status.epsilon <= limit
    assert verify_path(tmp_path / "ledger.jsonl", roster=ROSTER).ok


def _fork_and_reserve(folder: Path, limit: float, first: int) -> int:
    child = os.fork()
    if child:
        return child
    made = 0
    try:
        guard = guard_in(folder, policy(epsilon_max=limit))
        while True:
            guard.reserve(proposal(first + made, run=f"run-{first}"))
            made += 1
    except BudgetExhaustedError:
        os._exit(made)
    finally:
        os._exit(99)


def test_a_second_guard_sees_the_reservation_of_the_first(tmp_path: Path) -> None:
    first, second = guard_in(tmp_path), guard_in(tmp_path)
    first.reserve(proposal(1))
    grant = second.reserve(proposal(2))
    assert grant.attestation.attestation.epsilon_before == pytest.approx(epsilon_of_releases(1), abs=2e-6)


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
