"""The plan: public constants only, the same for every party."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings, strategies as st

from common.contribution import EVALUATE, METRICS, TRAIN, UPDATE
from common.errors import ConfigError
from common.privacy.mechanism import HOLDOUT_SIDE, TRAIN_SIDE, VALIDATION_SIDE
from common.run import RunPlan, build_config
from common.tasks import default_learning_rate


def make_plan(populations: tuple[tuple[str, int], ...] = (("a", 1024), ("b", 256)), **settings: object) -> RunPlan:
    config = build_config({}, [f"{key.replace('__', '.')}={value}" for key, value in settings.items()])
    return RunPlan("run-1", config.public_json(), populations, "{}", 1000, 1.5, 3.0)


def test_a_plan_survives_json_and_any_change_changes_its_digest() -> None:
    plan = make_plan()
    assert RunPlan.from_json(plan.to_json()) == plan
    for field, value in {
        "run": "x",
        "parameters": 999,
        "noise_multiplier": 1.4,
        "populations": (("a", 512),),
    }.items():
        assert dataclasses.replace(plan, **{field: value}).digest() != plan.digest()


def test_weights_follow_declared_populations() -> None:
    plan = make_plan()
    assert [plan.weight(site) for site in plan.sites] == [1.0, 0.25]
    assert make_plan(aggregation__weights="equal").weight("b") == 1.0
    with pytest.raises(ConfigError, match="not part"):
        plan.weight("stranger")


def test_the_signal_is_made_of_public_numbers_and_grows_with_consumers_rate_and_less_noise() -> None:
    plan = make_plan(privacy__sampling_rate=0.1, privacy__holdout=0.2)
    consumers = sum(population for _, population in plan.populations)
    assert plan.signal == pytest.approx(0.1 * 0.8 * consumers / (1.5 * 2**0.5))
    assert dataclasses.replace(plan, noise_multiplier=3.0).signal == pytest.approx(plan.signal / 2)
    assert dataclasses.replace(plan, noise_multiplier=0.0).signal == float("inf")
    assert make_plan(privacy__enabled="false").signal == float("inf")


def test_rounds_pay_for_those_who_train_and_choose_and_the_end_for_those_who_are_reported_on() -> None:
    plan = make_plan()
    assert [e.sub_scope for e in plan.events(TRAIN)] == [TRAIN_SIDE, VALIDATION_SIDE]
    assert [e.sub_scope for e in plan.events(EVALUATE)] == [HOLDOUT_SIDE]
    assert plan.events(TRAIN)[0].steps == plan.config.training.local_steps
    assert make_plan(privacy__enabled="false").events(TRAIN) == ()


def test_the_whole_run_costs_every_round_and_the_closing_evaluation() -> None:
    plan = make_plan(training__rounds=7, training__local_steps=3)
    sides = [(event.sub_scope, event.steps) for event in plan.total_events()]
    assert sides == [(TRAIN_SIDE, 21), (VALIDATION_SIDE, 7), (HOLDOUT_SIDE, 1)]


def test_without_a_validation_part_all_who_are_held_out_pay_for_every_round_and_the_end() -> None:
    plan = make_plan(training__rounds=7, privacy__validation=0)
    assert [(e.sub_scope, e.steps) for e in plan.total_events()] == [(TRAIN_SIDE, 70), (HOLDOUT_SIDE, 8)]


def test_a_plan_from_before_there_was_a_validation_part_means_what_it_meant() -> None:
    plan = make_plan(training__rounds=7)
    settings = json.loads(plan.settings)
    del settings["privacy"]["validation"], settings["privacy"]["closing_noise"]
    old = dataclasses.replace(plan, settings=json.dumps(settings))
    assert [(e.sub_scope, e.steps) for e in old.total_events()] == [(TRAIN_SIDE, 70), (HOLDOUT_SIDE, 8)]


@given(st.integers(1, 100), st.integers(1, 2**40))
@settings(deadline=None, max_examples=40)
def test_no_block_can_wrap_whatever_the_federation(sites: int, population: int) -> None:
    plan = make_plan(tuple((f"s{i}", population) for i in range(sites)))
    try:
        blocks = plan.blocks(TRAIN)
    except ConfigError:
        assert sites * 2 * population >= 2**31  # only where no precision at all would fit
        return
    assert [block.name for block in blocks] == [UPDATE, METRICS]
    assert all(sites * block.clip * 2**block.fractional_bits < 2**31 for block in blocks)


def test_foreign_text_is_not_a_plan() -> None:
    for text in ("", "[]", '{"run": 1}'):
        with pytest.raises(ConfigError):
            RunPlan.from_json(text)


def test_signal_and_rate_are_those_of_a_round_where_sites_are_sampled() -> None:
    many, few = (tuple((f"site-{n}", 200) for n in range(count)) for count in (1000, 100))
    sampled, whole = (make_plan(sites, aggregation__mode="plain") for sites in (many, few))
    assert (sampled.cohort, whole.cohort) == (100, 100)
    assert sampled.signal == pytest.approx(whole.signal)
    assert default_learning_rate("scalar-adam", sampled.cohort, sampled.signal) < 0.2
    assert make_plan(many, aggregation__max_cohort=150).cohort == 100  # of a secure sum
    assert make_plan(many, aggregation__max_cohort=150, aggregation__mode="plain").cohort == 150
