"""The guard of a site: reserve, store, commit, close; what is charged, and when."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from client.guard import ReservationKey, outbox_digest
from common.audit.verify import verify_path
from common.errors import (
    BudgetExhaustedError,
    LocalProtocolError,
    PolicyRefusedError,
    RefusedError,
    VerificationError,
)
from common.privacy.mechanism import HOLDOUT_SIDE, PrivacyEvent
from tests.guard_samples import (
    RELEASE,
    ROSTER,
    epsilon_of_releases,
    guard_in,
    one_round,
    policy,
    proposal,
    spent,
)


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
        while made < 50:  # a gate that lets all through must not keep the test for ever
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
