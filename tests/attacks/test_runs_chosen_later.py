"""A run that is chosen after seeing a model is adaptive: only what was planned before the first release is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from client.guard import Guard
from client.guard.recovery import recover_guard
from common.audit import ledger_check
from common.audit.verify import verify_path
from common.errors import BudgetExhaustedError, VerificationError
from common.privacy.accountant import PldAccountant, RdpAccountant, ScopeAccountant
from common.privacy.attestation import SignedAttestation, check_attestation
from common.privacy.entries import make_line, parse_line
from common.privacy.mechanism import PrivacyEvent
from common.privacy.replay import Replay
from tests.guard_samples import IDENTITY, ROSTER, guard_in, policy, proposal

FIRST = PrivacyEvent(1.7, 0.05, 200)
SECOND = PrivacyEvent(2.2, 0.05, 200)
A = {"run": "a", "config": "aa" * 32, "events": (FIRST,), "run_events": (FIRST,)}
B = {"run": "b", "config": "bb" * 32, "events": (SECOND,), "run_events": (SECOND,)}


def leave(guard: Guard, grant: Any) -> None:
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    guard.commit(grant)


def test_two_runs_reserved_before_the_first_release_cost_the_smaller_bound(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    grants = [guard.reserve(proposal(1, **A)), guard.reserve(proposal(1, **B))]
    for grant in grants:
        leave(guard, grant)
    status = guard.status()
    assert not status.reading.adaptive
    assert status.epsilon == pytest.approx(PldAccountant([FIRST, SECOND]).epsilon(1e-5), abs=1e-5)
    assert status.epsilon < RdpAccountant([FIRST, SECOND]).epsilon(1e-5)
    assert verify_path(tmp_path / "ledger.jsonl", roster=ROSTER).ok


@pytest.mark.parametrize("later", [B, A | {"run": "again", "config": "cc" * 32}])
def test_a_run_reserved_after_a_release_pays_at_the_order_that_was_fixed_before(
    tmp_path: Path, later: Any
) -> None:
    """The same settings again, too: whether there is a second run was decided after the first one."""
    guard = guard_in(tmp_path)
    first = guard.reserve(proposal(1, **A))
    order = first.attestation.attestation.order
    assert not first.attestation.attestation.adaptive
    leave(guard, first)
    assert guard.status().epsilon == pytest.approx(PldAccountant([FIRST]).epsilon(1e-5), abs=1e-5)
    second = guard.reserve(proposal(1, **later))
    said = second.attestation.attestation
    assert (said.adaptive, said.order) == (True, order)
    both = [FIRST, *later["events"]]
    assert said.epsilon_after == pytest.approx(ScopeAccountant(both, order).epsilon(1e-5), abs=1e-5)
    assert said.epsilon_after >= RdpAccountant(both).epsilon(1e-5) - 1e-6
    check_attestation(second.attestation, IDENTITY.public_key)
    leave(guard, second)
    assert guard.status().reading.adaptive
    assert verify_path(tmp_path / "ledger.jsonl", roster=ROSTER, every_round=True).ok


def test_a_later_run_that_was_given_back_leaves_the_scope_as_it_was(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    leave(guard, guard.reserve(proposal(1, **A)))
    before = guard.status().epsilon
    guard.reserve(proposal(1, **B))
    assert guard.status().epsilon > before
    guard.close_round("b", 1)
    assert guard.status().epsilon == before


def test_a_failed_answer_is_a_release(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    guard.fail(guard.reserve(proposal(1, **A)))
    assert guard.reserve(proposal(1, **B)).attestation.attestation.adaptive


def test_the_gate_reckons_with_the_price_of_a_later_run(tmp_path: Path) -> None:
    limit = PldAccountant([FIRST, SECOND]).epsilon(1e-5) + 1e-3
    guard = guard_in(tmp_path, policy(epsilon_max=limit))
    leave(guard, guard.reserve(proposal(1, **A)))
    with pytest.raises(BudgetExhaustedError):
        guard.reserve(proposal(1, **B))


def test_recovery_keeps_the_order_and_is_adaptive(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal(1, **A))
    leave(guard, grant)
    known = guard.reserve(proposal(2, **(A | {"run_events": ()}))).attestation
    recovered = recover_guard(tmp_path, IDENTITY, policy(), known)
    said = recovered.reserve(proposal(3, **(A | {"run_events": ()}))).attestation.attestation
    assert (said.order, said.adaptive) == (grant.attestation.attestation.order, True)


def forged(tmp_path: Path, **changes: Any) -> list[bytes]:
    """The ledger with its reservations rewritten, signed again by the site itself."""
    lines: list[bytes] = []
    for line in (tmp_path / "ledger.jsonl").read_bytes().splitlines():
        entry = parse_line(line)
        body = entry.body
        if body.kind == "reserve" and body.run in changes:
            body = body.model_copy(update={"order": changes[body.run]})
        previous = parse_line(lines[-1][:-1]).hash if lines else entry.previous
        lines.append(
            make_line(body, sequence=entry.sequence, previous=previous, time=entry.time, identity=IDENTITY)
        )
    return lines


@pytest.mark.parametrize(
    ("orders", "words"),
    [
        ({"a": None}, "does not fix the order"),
        ({"b": 2.0}, "a second time"),
        ({"a": None, "b": 9.0}, "does not fix"),
    ],
)
def test_an_order_that_is_missing_or_changed_is_named(tmp_path: Path, orders: Any, words: str) -> None:
    guard = guard_in(tmp_path)
    leave(guard, guard.reserve(proposal(1, **A)))
    leave(guard, guard.reserve(proposal(1, **B)))
    (tmp_path / "ledger.jsonl").write_bytes(b"".join(forged(tmp_path, **orders)))
    assert words in str(verify_path(tmp_path / "ledger.jsonl", roster=ROSTER).findings[0])


def test_a_site_cannot_attest_a_cheaper_way_to_add_up(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    leave(guard, guard.reserve(proposal(1, **A)))
    said = guard.reserve(proposal(1, **B)).attestation.attestation
    cheaper = ScopeAccountant(said.totals).epsilon(1e-5)
    for lie in ({"adaptive": False}, {"order": 30.0}):
        with pytest.raises(VerificationError, match="says epsilon"):
            check_attestation(
                SignedAttestation.sign(dataclasses.replace(said, **lie), IDENTITY), IDENTITY.public_key
            )
    consistent = dataclasses.replace(said, adaptive=False, epsilon_before=0.0, epsilon_after=cheaper)
    signed = SignedAttestation.sign(consistent, IDENTITY)
    check_attestation(signed, IDENTITY.public_key)  # consistent in itself: the ledger tells
    state = Replay()
    for line in (tmp_path / "ledger.jsonl").read_bytes().splitlines():
        state.apply(parse_line(line))
    with pytest.raises(VerificationError, match="another way to add up"):
        ledger_check._compare(1, signed, state)


def test_which_of_two_planned_runs_goes_on_is_a_choice_made_later(tmp_path: Path) -> None:
    """What both had reserved before the first release was fixed; that one of them takes another round was not."""
    guard = guard_in(tmp_path)
    more = {"run_events": (PrivacyEvent(1.7, 0.05, 400),)}
    grants = [guard.reserve(proposal(1, **(A | more))), guard.reserve(proposal(1, **B))]
    for grant in grants:
        leave(guard, grant)
    assert not guard.status().reading.adaptive
    assert guard.reserve(proposal(2, **(A | more))).attestation.attestation.adaptive


def test_the_later_rounds_of_the_only_planned_run_were_planned(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    more = {"run_events": (PrivacyEvent(1.7, 0.05, 400),)}
    for number in (1, 2):
        grant = guard.reserve(proposal(number, **(A | more)))
        assert not grant.attestation.attestation.adaptive
        leave(guard, grant)


def test_a_plan_that_was_given_back_before_anything_left_is_no_plan(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    guard.reserve(proposal(1, **B))
    guard.close_round("b", 1)
    more = {"run_events": (PrivacyEvent(1.7, 0.05, 400),)}
    leave(guard, guard.reserve(proposal(1, **(A | more))))
    assert not guard.reserve(proposal(2, **(A | more))).attestation.attestation.adaptive
