"""The site's rules: every one refuses, by name, what is outside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.guard import SitePolicy
from common.errors import ConfigError, PolicyRefusedError
from common.privacy.mechanism import HOLDOUT_SIDE, PrivacyEvent
from tests.guard_samples import guard_in, proposal

TRAINING = PrivacyEvent(1.5, 0.04, 20)
HELD = PrivacyEvent(20.0, 1.0, 1, HOLDOUT_SIDE)
NAN = float("nan")

BROKEN = [
    ("allowed_tasks", {"allowed_tasks": ["multi-task"]}, {}),
    ("noise_multiplier_min", {}, {"events": ()}),
    ("noise_multiplier_min", {"noise_multiplier_min": 2.0}, {}),
    ("evaluation_noise_min", {"evaluation_noise_min": 30.0}, {}),
    ("delta", {"delta": 1e-6}, {}),
    ("delta", {}, {"delta": NAN}),
    ("plain_aggregation", {}, {"secure": False}),
    ("clip_min", {"clip_min": 2.0}, {}),
    ("clip_max", {"clip_max": 0.5}, {}),
    ("clip_max", {}, {"clip": NAN}),
    ("learning_rate_max", {}, {"learning_rate": 1e6}),
    ("learning_rate_max", {}, {"learning_rate": NAN}),
    ("learning_rate_max", {"learning_rate_max": 0.5}, {}),
    ("weight_ratio_max", {}, {"weight_ratio": 2.0**20}),
    ("weight_ratio_max", {}, {"weight_ratio": NAN}),
    ("min_cohort", {}, {"cohort": 2}),
    ("min_threshold_fraction", {}, {"threshold": 3}),
    ("min_consumers", {}, {"population": 99}),
    ("min_stockists", {}, {"min_stockists": 1}),
    ("sampling_rate_max", {"sampling_rate_max": 0.03}, {}),
    ("steps_max", {"steps_max": 19}, {}),
    ("evaluation", {"evaluation": False}, {}),
    ("evaluation", {"evaluation": False}, {"kind": "evaluate", "events": (HELD,)}),
    ("statistics", {"statistics": False}, {"kind": "statistics"}),
]


@pytest.mark.parametrize(("rule", "rules", "change"), BROKEN)
def test_a_proposal_outside_a_rule_is_refused_naming_the_rule(rule: str, rules: dict, change: dict) -> None:
    asked = proposal(**({"events": (TRAINING, HELD)} | change))
    with pytest.raises(PolicyRefusedError, match=rule) as refusal:
        SitePolicy(**rules).check_proposal(asked)
    assert refusal.value.rule == rule and refusal.value.exit_code == 3


def test_a_usual_proposal_is_allowed() -> None:
    SitePolicy().check_proposal(proposal(events=(TRAINING, HELD)))
    SitePolicy().check_proposal(proposal(kind="evaluate", events=(HELD,)))
    SitePolicy().check_proposal(proposal(kind="statistics", events=(PrivacyEvent(20.0, 1.0, 1),)))


def test_steps_of_two_training_events_add_up() -> None:
    with pytest.raises(PolicyRefusedError, match="steps_max"):
        SitePolicy(steps_max=39).check_proposal(proposal(events=(TRAINING, TRAINING)))


def test_a_policy_file_keeps_every_rule(tmp_path: Path) -> None:
    rules = SitePolicy(epsilon_max=3.5, allowed_tasks=("multi-task",), evaluation=False)
    rules.save(tmp_path / "policy.toml")
    assert SitePolicy.load(tmp_path / "policy.toml") == rules
    text = (tmp_path / "policy.toml").read_text()
    assert all(f"{name} = " in text for name in SitePolicy.model_fields)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epsilon_maximum = 3", "epsilon_maximum"),
        ("epsilon_max = -1", "epsilon_max"),
        ("epsilon_max = inf", "epsilon_max"),
        ("clip_min = 9\nclip_max = 1", "clip_min"),
        ("allowed_tasks = ['gossip']", "gossip"),
        ("epsilon_max = ", "TOML"),
    ],
)
def test_a_policy_that_cannot_be_read_is_refused_naming_the_rule(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(ConfigError, match=named):
        SitePolicy.load(tmp_path / "policy.toml")


def test_a_missing_policy_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        SitePolicy.load(tmp_path / "policy.toml")


def test_a_refused_proposal_leaves_no_trace(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    with pytest.raises(PolicyRefusedError):
        guard.reserve(proposal(task="mind-reading"))
    assert guard.status().entries == 1
