"""What would help a run that ended below simple methods: named with what the forecast gives for it, and only then."""

from __future__ import annotations

import re
from dataclasses import replace

from common.run import RunPlan, build_config
from common.tasks.forecast import Forecast
from server.run_setup import noise_of
from simulations.advice import advice, changes

BELOW, ABOVE = {"markov": {"recall@20": 0.7}}, {"markov": {"recall@20": 0.1}}
MODEL = {"recall@20": 0.4}
SITES = tuple((f"site-{i}", 16_384) for i in range(8))


def plan_of(*settings: str) -> RunPlan:
    config = build_config({}, list(settings))
    features = '{"catalogue_items": 2000}'
    return RunPlan("run", config.public_json(), SITES, features, 120_000, *noise_of(config))


def test_a_model_above_all_simple_methods_gets_no_advice():
    assert advice(plan_of(), MODEL, ABOVE) == []
    assert advice(plan_of(), MODEL, {}) == []


def test_a_short_run_is_told_what_the_recipe_quality_would_bring():
    (told,) = advice(plan_of(), MODEL, BELOW)
    assert re.search(r"the recipe quality \(\+\d+ to \+\d+ points\)", told)
    assert re.search(r"times as many sites that share items \(\+\d+ to \+\d+ points\)", told)
    assert "fedcart personalize" in told


def test_what_a_run_does_already_is_not_named():
    plan = plan_of("recipe=quality")
    assert "the recipe quality" not in changes(plan)
    assert any("sampling rate" in words for words in changes(plan))


def test_each_change_is_forecast_at_the_noise_that_its_own_epsilon_asks_for():
    plan = plan_of()
    found = changes(plan)
    larger = next(change for words, change in found.items() if words.startswith("epsilon 16 instead of 8"))()
    by_hand = build_config({}, ["privacy.epsilon=16"])
    noise, evaluation = noise_of(by_hand)
    assert noise < plan.noise_multiplier
    same = replace(plan, settings=by_hand.public_json(), noise_multiplier=noise, evaluation_noise=evaluation)
    assert larger == Forecast.of(same)


def test_a_task_without_a_fit_gets_no_advice():
    assert advice(plan_of("task=purchase-intent"), {"intent_auc": 0.5}, {"buys-again": {"intent_auc": 0.6}}) == []
