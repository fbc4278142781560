"""What a site is charged for shared noise: both figures, the plan's numbers whoever survives, its own rules and limits."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

import client.training.quorum as mechanism
from client.guard import ChargedError, SitePolicy
from client.selftest import people, sessions
from common.errors import (
    BudgetExhaustedError,
    ConfigError,
    PolicyRefusedError,
)
from common.privacy import Losses, PrivacyEvent, epsilon_alone, epsilon_of, round_up
from common.run import RunPlan, build_config
from server.run_setup import make_plan, settled
from tests.guard_samples import guard_in, policy, proposal
from tests.quorum_sites import advertise, asked, quorum_site


@pytest.fixture
def scratch():
    with quorum_site() as made:
        yield made


def test_what_is_charged_is_the_plans_share_whoever_survives(scratch):
    for number, cohort in enumerate((scratch.plan.sites, scratch.plan.sites[:6], scratch.plan.sites[:5]), start=1):
        made = sessions.Round(scratch, asked(scratch, number, cohort=cohort))
        said = json.loads(made.attestation)
        events = said["attestation"]["events"]
        assert {(e["honest"], e["colluders"]) for e in events} == {(3, 2)}
        made.opened()
    spent = scratch.site.guard().ledger.state.spent
    train = PrivacyEvent(0.6, 0.5, 3, "train", 3, 2)
    assert spent == Losses.of([train, PrivacyEvent(1.5, 1.0, 3, "validation", 3, 2)])
    status = scratch.site.guard().status()
    assert status.epsilon == round_up(epsilon_of(spent, status.delta))
    assert status.alone == round_up(epsilon_alone(spent, status.delta))
    assert status.alone > epsilon_of([PrivacyEvent(0.6, 0.5, 3)], status.delta)


@pytest.mark.parametrize(
    "change", [{"noise_multiplier": 0.599}, {"honest": 4}, {"colluders": 1}, {"sampling_rate": 0.6}, {"steps": 2}]
)
def test_what_was_drawn_is_what_was_charged_with_every_number_of_the_quorum(scratch, monkeypatch, change):
    true = mechanism.QuorumMechanism._events

    def other(self: Any) -> Any:
        return tuple(dataclasses.replace(event, **change) for event in true(self))

    monkeypatch.setattr(mechanism.QuorumMechanism, "_events", other)
    with pytest.raises(ChargedError, match="not what was charged"):
        advertise(scratch, asked(scratch))
    assert scratch.site.guard().status().committed == 0


def test_a_plan_fixes_threshold_colluders_and_honest_sites_before_round_one():
    config = build_config({}, ["privacy.trust=quorum", "privacy.epsilon=3"])
    assert (config.privacy.colluders, config.privacy.honest, config.aggregation.threshold) == (-1, 0, 0)
    for sites, wanted in ((3, (0, 3, 3)), (5, (1, 3, 4)), (8, (2, 4, 6)), (16, (5, 6, 11))):
        made = settled(config, sites)
        assert (made.privacy.colluders, made.privacy.honest, made.aggregation.threshold) == wanted
    with pytest.raises(ConfigError, match="two lists"):
        settled(build_config({}, ["privacy.trust=quorum", "privacy.colluders=4"]), 8)
    with pytest.raises(ConfigError, match="two lists"):  # five of sixteen could all be in a session of eight
        settled(build_config({}, ["privacy.trust=quorum", "aggregation.max_cohort=8"]), 16)


@pytest.mark.parametrize("epsilon", [8, 3, 1])
def test_a_plan_meets_its_target_in_the_sum_and_shares_its_noise(epsilon):
    config = build_config(
        {},
        ["privacy.trust=quorum", f"privacy.epsilon={epsilon}", "training.rounds=100", "privacy.sampling_rate=0.2"],
    )
    plan = make_plan(config, tuple((f"s{i}", 1_000) for i in range(8)), people.spec(), 1_000)
    train = [e for e in plan.total_events() if e.sub_scope == "train"]
    assert 0.97 * epsilon < epsilon_of(train, 1e-5) <= epsilon
    assert epsilon_of(plan.total_events(), 1e-5) <= epsilon
    assert {(e.honest, e.colluders) for e in plan.total_events()} == {(4, 2)}
    assert epsilon_alone(train, 1e-5) > 2 * epsilon_of(train, 1e-5)
    assert RunPlan.from_json(plan.to_json()) == plan


SHARED = PrivacyEvent(1.2, 0.2, 4, "train", 4, 2)
LAX = {"quorum_noise": True, "epsilon_alone_max": 1e6}


@pytest.mark.parametrize(
    ("rules", "changes", "rule"),
    [
        ({"quorum_noise": False}, {}, "quorum_noise"),
        ({"epsilon_alone_max": 0.0}, {}, "epsilon_alone_max"),
        ({"colluders_max": 3}, {}, "colluders_max"),
        ({}, {"sites": 20}, "colluders_max"),
        ({"honest_min": 5}, {}, "honest_min"),
        ({}, {"threshold": 5}, "quorum_noise"),
        ({"colluders_max": 2}, {"cohort": 5, "threshold": 5}, "quorum_noise"),
        ({"plain_aggregation": True}, {"secure": False}, "quorum_noise"),
        ({"noise_multiplier_min": 2.5}, {}, "noise_multiplier_min"),
    ],
)
def test_each_rule_of_a_policy_about_shared_noise_is_asked(rules, changes, rule):
    policy(**LAX).check_proposal(proposal(events=(SHARED,)))
    with pytest.raises(PolicyRefusedError) as caught:
        policy(**(LAX | rules)).check_proposal(proposal(events=(SHARED,), **changes))
    assert caught.value.rule == rule


def test_a_site_shares_no_noise_unless_its_policy_says_so():
    with pytest.raises(PolicyRefusedError) as caught:
        SitePolicy(epsilon_max=50.0).check_proposal(proposal(events=(SHARED,)))
    assert caught.value.rule == "quorum_noise"


def test_the_limit_alone_is_kept_by_the_gate_and_before_a_run(tmp_path):
    two = epsilon_of([PrivacyEvent(1.2, 0.2, 8)], 1e-5) + 1e-3  # by the own noise, as nobody else's counts
    guard = guard_in(tmp_path, policy(quorum_noise=True, epsilon_alone_max=two))
    with pytest.raises(BudgetExhaustedError, match="without the noise of other sites"):
        guard.check_proposal(proposal(events=(SHARED,), run_events=(SHARED,) * 3))
    for number in (1, 2):
        guard.reserve(proposal(number, events=(SHARED,)))
    with pytest.raises(BudgetExhaustedError, match="without the noise of other sites"):
        guard.reserve(proposal(3, events=(SHARED,)))
    status = guard.status()
    assert status.epsilon < status.alone <= two


def test_colluders_and_honest_sites_are_for_shared_noise_only():
    for override in ("privacy.colluders=1", "privacy.honest=3"):
        with pytest.raises(ConfigError, match=r"privacy\.trust"):
            build_config({}, [override])
