"""Mistakes that other systems made, each as a test that fails where it is made again."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest

from client.guard import Proposal
from common.errors import BudgetExhaustedError
from common.privacy.accountant import ScopeAccountant
from common.privacy.attestation import Attestation
from common.privacy.mechanism import HOLDOUT_SIDE, PrivacyEvent
from common.trust.randomness import PrivateStream
from tests.guard_samples import guard_in, one_round, policy, proposal

TRAINING = PrivacyEvent(4.0, 0.05, 20)


def test_the_total_is_not_the_epsilon_of_the_last_round(tmp_path: Path) -> None:
    alone = ScopeAccountant([TRAINING]).epsilon(1e-5)
    for number in (1, 2, 3):  # a new process in every round, as under Flower
        grant = guard_in(tmp_path).reserve(proposal(number, events=(TRAINING,)))
    found = grant.attestation.attestation.epsilon_after
    assert found == pytest.approx(ScopeAccountant([TRAINING] * 3).epsilon(1e-5), abs=1e-5)
    assert found > 1.3 * alone


def test_the_sampling_of_sites_does_not_lower_epsilon(tmp_path: Path) -> None:
    found = []
    for cohort in (3, 100):
        asked = proposal(events=(TRAINING,), cohort=cohort, threshold=cohort)
        found.append(guard_in(tmp_path / str(cohort)).reserve(asked).attestation.attestation)
    assert found[0].epsilon_after == found[1].epsilon_after
    assert found[1].events == (TRAINING,)


def test_epsilon_follows_what_was_released_not_what_was_planned(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    one_round(guard, 1)
    one_round(guard, 2, leave=False)
    once = guard.status().epsilon
    one_round(guard, 3)
    twice = guard.status().epsilon
    assert once < twice
    assert once == pytest.approx(ScopeAccountant([PrivacyEvent(5.0, 1.0, 1)]).epsilon(1e-5), abs=2e-6)


def test_an_exhausted_budget_says_so_before_anything_is_computed_and_keeps_the_past(tmp_path: Path) -> None:
    guard = guard_in(tmp_path, policy(epsilon_max=1.0))
    one_round(guard, 1)
    before = guard.status()
    with pytest.raises(BudgetExhaustedError, match="the limit is 1"):
        guard.reserve(proposal(2))
    assert guard.status() == before


def test_global_seeds_do_not_give_two_sites_the_same_noise() -> None:
    draws = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        draws.append(PrivateStream().gaussian(8))
    assert not np.any(draws[0] == draws[1])


def test_two_runs_on_the_same_consumers_add_up(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    for run in ("spring", "autumn"):
        grant = guard.reserve(proposal(1, run=run, events=(TRAINING,)))
    both = ScopeAccountant([TRAINING, TRAINING]).epsilon(1e-5)
    assert grant.attestation.attestation.epsilon_after == pytest.approx(both, abs=1e-5)


def test_neither_an_attestation_nor_a_ledger_has_a_place_for_private_numbers(tmp_path: Path) -> None:
    public = {
        "site", "scope", "run", "round", "attempt", "query", "events", "totals", "sequence", "head",
        "epsilon_before", "epsilon_after", "order", "adaptive", "delta", "limit", "simulated", "roster", "witness",
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(Attestation)} == public
    event = {"noise_multiplier", "sampling_rate", "steps", "sub_scope", "honest", "colluders"}
    event |= {"mechanism", "unit", "relation"}
    assert {field.name for field in dataclasses.fields(PrivacyEvent)} == event
    guard = guard_in(tmp_path)
    one_round(guard, 1)
    keys = {
        "open": {
            "kind",
            "format",
            "site",
            "scope",
            "delta",
            "public_key",
            "unit",
            "relation",
            "simulated",
            "shared",
        },
        "reserve": {
            "kind",
            "run",
            "round",
            "attempt",
            "query",
            "config",
            "code",
            "events",
            "holdout",
            "validation",
            "split_key",
            "source",  # a sequence of this very ledger
            "order",  # a constant, fixed before the first release
            "by",  # a kit's public key
            "roster",  # digests of what the coordinator has signed
            "witness",
        },
        "commit": {"kind", "reserve", "outbox"},
    }
    for line in guard.ledger.path.read_text().splitlines():
        body = json.loads(line)["body"]
        assert set(body) == keys[body["kind"]]


def test_a_guard_does_not_know_how_many_consumers_there_are() -> None:
    fields = {field.name for field in dataclasses.fields(Proposal)}
    assert "population" in fields and not fields & {"consumers", "rows", "batch_size", "n"}


def test_evaluating_every_round_is_charged_to_the_hold_out(tmp_path: Path) -> None:
    held = PrivacyEvent(2.0, 1.0, 1, HOLDOUT_SIDE)
    weak = PrivacyEvent(20.0, 0.05, 1)
    guard = guard_in(tmp_path)
    for number in (1, 2, 3):
        grant = guard.reserve(proposal(number, events=(weak, held)))
    expected = ScopeAccountant([held] * 3).epsilon(1e-5)
    assert grant.attestation.attestation.epsilon_after == pytest.approx(expected, abs=1e-5)
