"""A coordinator, or a lost key, that moves consumers between training and hold-out: refused, or charged twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client.guard import Guard
from client.guard.recovery import recover_guard
from common.audit.verify import verify_path
from common.errors import PolicyRefusedError
from common.privacy.accountant import ScopeAccountant
from common.privacy.entries import Charge, Reserve, make_line, parse_line
from common.privacy.mechanism import HOLDOUT_SIDE, SUB_SCOPES, TRAIN_SIDE, VALIDATION_SIDE, PrivacyEvent
from tests.guard_samples import IDENTITY, ROSTER, guard_in, policy, proposal

TRAINING = PrivacyEvent(1.0, 0.1, 40)
EVALUATION = PrivacyEvent(1.0, 1.0, 1, HOLDOUT_SIDE)
SPLIT = {"holdout": 0.2, "split_key": "aa" * 32, "events": (TRAINING, EVALUATION)}


def release(guard: Guard, number: int, **changes: Any) -> None:
    grant = guard.reserve(proposal(number, **(SPLIT | changes)))
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    guard.commit(grant)


@pytest.mark.parametrize(
    "change",
    [{"holdout": 0.85}, {"holdout": 0.0}, {"split_key": "bb" * 32}, {"split_key": ""}, {"validation": 0.5}],
)
def test_nobody_changes_sides_between_two_runs_of_a_scope(tmp_path: Path, change: dict) -> None:
    release(guard_in(tmp_path), 1)
    before = (tmp_path / "ledger.jsonl").read_bytes()
    again = guard_in(tmp_path)
    for ask in (again.check_proposal, again.reserve):
        with pytest.raises(PolicyRefusedError, match="was held out when this scope") as refusal:
            ask(proposal(2, run="second", **(SPLIT | change)))
        assert refusal.value.rule == "holdout"
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    release(again, 2)


def test_a_ledger_whose_hold_out_changes_is_not_verified(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    release(guard, 1)
    last = parse_line(path.read_bytes().splitlines()[-1])
    body = Reserve(
        run="second", round=1, attempt=0, query="ab" * 32, config="cd" * 32, code="x", events=(TRAINING,),
        holdout=0.85, split_key="aa" * 32,
    )  # fmt: skip
    line = make_line(body, sequence=last.sequence + 1, previous=last.hash, time=last.time, identity=IDENTITY)
    path.write_bytes(path.read_bytes() + line)
    assert "changed sides" in str(verify_path(path, roster=ROSTER).findings[0])


def test_after_recovery_a_new_split_may_begin_and_everything_old_counts_on_every_side(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    release(guard, 1)
    known = guard.reserve(proposal(2, **SPLIT)).attestation
    recovered = recover_guard(tmp_path, IDENTITY, policy(), known)
    release(recovered, 3, holdout=0.85, split_key="bb" * 32)

    worst = ScopeAccountant()  # trained on twice, held out twice, then on the other side
    worst.add(TRAINING, 2)
    worst.add(PrivacyEvent(1.0, 1.0, 1, TRAIN_SIDE), 2)
    worst.add(TRAINING)
    assert recovered.status().epsilon >= worst.epsilon(1e-5)
    assert verify_path(tmp_path / "ledger.jsonl", roster=ROSTER).ok


def test_who_was_held_out_before_there_was_a_validation_part_has_lost_what_was_charged_then(
    tmp_path: Path,
) -> None:
    """A charge of an older program knows two sides; those by whom a run chooses now were held out, on the second of them."""
    guard = guard_in(tmp_path)
    with guard.ledger.transaction():
        guard.ledger.append(Charge(events=(TRAINING, EVALUATION), reason="recovered", order=4.0))
        guard.ledger.renew_anchor()
    chooses = PrivacyEvent(1.0, 1.0, 1, VALIDATION_SIDE)
    release(guard, 1, validation=0.5, events=(TRAINING, chooses))
    with guard.ledger.transaction():
        guard.ledger.append(Charge(events=(EVALUATION,), reason="another kit's"))
        guard.ledger.renew_anchor()
    spent = {event.sub_scope: event.steps for event in guard_in(tmp_path).ledger.state.spent}
    assert spent == {TRAIN_SIDE: 80, VALIDATION_SIDE: 3, HOLDOUT_SIDE: 2}


def test_what_charges_the_validation_part_itself_is_counted_once(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    everybody = tuple(PrivacyEvent(1.0, 1.0, 1, side) for side in SUB_SCOPES)
    with guard.ledger.transaction():
        guard.ledger.append(Charge(events=everybody, reason="recovered", order=4.0))
        guard.ledger.renew_anchor()
    release(guard, 1, validation=0.5, events=(TRAINING,))
    spent = {
        (event.sub_scope, event.sampling_rate): event.steps for event in guard_in(tmp_path).ledger.state.spent
    }
    assert spent == {(TRAIN_SIDE, 0.1): 40, **{(side, 1.0): 1 for side in SUB_SCOPES}}
