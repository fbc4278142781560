"""Free training on a released series: it must name a release that was charged, and can be faked by nobody."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from client.guard import Guard
from common.audit.verify import verify_path
from common.errors import PolicyRefusedError, VerificationError
from common.privacy.accountant import epsilon_of
from common.privacy.entries import Reserve, make_line, split_lines
from common.privacy.mechanism import HOLDOUT_SIDE, PrivacyEvent
from common.privacy.replay import replay_lines
from tests.guard_samples import IDENTITY, guard_in, proposal

GAUSSIAN = PrivacyEvent(1.0, 1.0, 1)
SERIES = (GAUSSIAN, dataclasses.replace(GAUSSIAN, sub_scope=HOLDOUT_SIDE))
SALES: dict[str, Any] = {"task": "sales", "run_events": SERIES}
KNOWN = 4.377178  # Gaussian, no sampling, sigma 1, delta 1e-5: Balle and Wang 2018


def release(guard: Guard) -> int:
    grant = guard.reserve(proposal(0, kind="statistics", events=SERIES, **SALES))
    guard.store(grant, b"series", grant.attestation.attestation.events)
    guard.commit(grant)
    return grant.sequence


def learn(guard: Guard, number: int, **changes: Any) -> None:
    grant = guard.reserve(proposal(number, events=(), derived=True, **(SALES | changes)))
    guard.store(grant, b"update %d" % number, grant.attestation.attestation.events)
    guard.commit(grant)


def test_a_release_is_charged_once_at_the_known_price_and_training_on_it_costs_nothing_more(
    tmp_path: Path,
) -> None:
    guard = guard_in(tmp_path)
    sequence = release(guard)
    after = guard.status().epsilon
    assert after == pytest.approx(KNOWN, abs=1e-5)
    for number in range(1, 6):
        learn(guard, number)
    status = guard.status()
    assert (status.epsilon, status.committed, status.open) == (after, 6, 0)
    assert epsilon_of(guard.ledger.state.spent, 1e-5) == pytest.approx(KNOWN, abs=1e-5)
    sources = [r.body.source for r in guard.ledger.state.reservations.values()]
    assert sources == [None, *[sequence] * 5]
    assert verify_path(guard.ledger.path, every_round=True).ok


def test_what_a_derived_round_attests_has_no_events_and_the_whole_price(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    release(guard)
    said = guard.reserve(proposal(1, events=(), derived=True, **SALES)).attestation.attestation
    assert said.events == ()
    assert said.epsilon_before == said.epsilon_after == pytest.approx(KNOWN, abs=1e-5)


def test_nothing_is_learnt_for_free_where_nothing_was_released(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    before = guard.ledger.path.read_bytes()
    with pytest.raises(PolicyRefusedError, match="no released series") as refusal:
        learn(guard, 1)
    assert refusal.value.rule == "release"
    assert guard.ledger.path.read_bytes() == before


@pytest.mark.parametrize("other", [{"run": "another"}, {"config": "ee" * 32}])
def test_the_release_of_another_run_is_none(tmp_path: Path, other: dict[str, str]) -> None:
    guard = guard_in(tmp_path)
    release(guard)
    with pytest.raises(PolicyRefusedError, match="no released series"):
        learn(guard, 1, **other)


def test_a_release_that_never_left_or_failed_is_none(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal(0, kind="statistics", events=SERIES, **SALES))
    with pytest.raises(PolicyRefusedError, match="no released series"):
        learn(guard, 1)
    guard.fail(grant)
    with pytest.raises(PolicyRefusedError, match="no released series"):
        learn(guard, 1)


def test_a_query_without_events_that_is_not_derived_is_refused(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    release(guard)
    with pytest.raises(PolicyRefusedError) as refusal:
        guard.reserve(proposal(1, events=(), **SALES))
    assert refusal.value.rule == "noise_multiplier_min"


def test_a_second_release_of_the_same_run_is_refused(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    release(guard)
    for number, rule in ((0, "round"), (1, "run_total")):
        with pytest.raises(PolicyRefusedError, match=rule):
            guard.reserve(proposal(number, attempt=1, query="aa" * 32, kind="statistics", events=SERIES, **SALES))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": None}, "does not name the release"),
        ({"source": 0}, "no charged release"),
        ({"source": 99}, "no charged release"),
        ({"events": SERIES}, "no charged release"),
        ({"run": "another"}, "another run"),
    ],
)
def test_a_ledger_that_claims_a_free_release_falsely_does_not_verify(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    guard = guard_in(tmp_path)
    sequence = release(guard)
    learn(guard, 1)
    honest = guard.ledger.state.reservations[sequence + 2].body
    assert isinstance(honest, Reserve)
    state = guard.ledger.state
    lie = make_line(
        honest.model_copy(update=changes),  # signed with the site's own key
        sequence=state.sequence,
        previous=state.head,
        time="2026-01-01T00:00:00Z",
        identity=IDENTITY,
    )
    lines = [*split_lines(guard.ledger.path.read_bytes())[0], lie[:-1]]
    with pytest.raises(VerificationError, match=words):
        list(replay_lines(lines, IDENTITY.public_key))
