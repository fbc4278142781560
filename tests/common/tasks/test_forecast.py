"""The forecast of a run: a range that follows from public numbers only, beside what sites of each size have alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from common.run import RunPlan, build_config
from common.tasks.forecast import ALONE, JOINED, LOGS, Forecast

SITES = tuple((f"site-{i}", 2_000) for i in range(8))
FEATURES = '{"catalogue_items": 1000}'


def plan_of(*settings: str, sites=SITES, noise: float = 2.0) -> RunPlan:
    config = build_config({}, list(settings))
    return RunPlan("run", config.public_json(), tuple(sites), FEATURES, 70_000, noise, noise)


def forecast(*settings: str, **more) -> Forecast:
    found = Forecast.of(plan_of(*settings, **more))
    assert found is not None
    return found


def test_less_noise_more_steps_and_more_consumers_promise_more():
    usual = forecast()
    for better in (
        forecast(noise=1.0),
        forecast("training.rounds=40"),
        forecast(sites=[(name, 4 * count) for name, count in SITES]),
    ):
        assert better.joined.low > usual.joined.low
        assert better.joined.middle > usual.joined.middle


def test_a_range_holds_its_middle_and_stays_a_share():
    for found in (forecast(noise=0.01), forecast(), forecast(noise=1e4)):
        assert 0 <= found.joined.low < found.joined.middle < found.joined.high <= 1


def test_a_site_of_the_size_up_to_which_joining_pays_has_alone_what_the_run_promises():
    found = forecast()
    assert found.alone(found.pays_up_to).middle == pytest.approx(found.joined.middle, abs=1e-6)
    assert found.alone(2 * found.pays_up_to).middle > found.joined.middle


def test_with_as_many_sites_as_are_named_joining_pays_one_of_them():
    """At a noise at which it does not pay with four sites, and less than a hundred are enough."""
    size, one = 8_192, 8_192 * 0.8
    for noise in (1.2**power for power in range(-20, 60)):
        few = forecast(sites=[(f"site-{i}", size) for i in range(4)], noise=noise)
        count = few.pays_from(one) / one
        if 8 < count <= 100:
            break
    assert 8 < count <= 100
    sites = [(f"site-{i}", size) for i in range(math.ceil(count))]
    assert few.joined.middle < few.alone(one).middle - 0.02
    many = forecast(sites=sites, noise=noise)
    assert many.joined.middle == pytest.approx(few.alone(one).middle, abs=0.02)


def test_the_size_of_the_site_that_reads_it_is_named():
    sites = [*SITES, ("mine", 5_000)]
    told = "\n".join(plan_of(sites=sites).task.forecast(plan_of(sites=sites), "mine"))
    assert "4,000: " in told
    assert "your site (4,000)" in told
    assert "your site" not in "\n".join(plan_of().task.forecast(plan_of()))


def test_every_log_of_the_fit_is_told_with_its_own_range():
    told = plan_of().task.forecast(plan_of())[1]
    joined = forecast().joined
    for log in LOGS:
        assert f"{log.name} {log.recall(joined.low):.2f} to {log.recall(joined.high):.2f}" in told


def test_a_run_unlike_all_that_were_measured_is_called_a_guess():
    assert "guess" not in plan_of().task.forecast(plan_of())[0]
    far = plan_of("training.local_steps=500")
    assert "guess" in far.task.forecast(far)[0]


def test_without_noise_or_without_a_fit_nothing_is_promised():
    plain = plan_of("privacy.enabled=false", noise=0.0)
    assert plain.task.forecast(plain) == ["no noise: quality is bounded by the data only"]
    intent = plan_of("task=purchase-intent")
    assert intent.task.forecast(intent)[0].startswith("no forecast: none is fitted for intent_auc")


def test_the_forecast_is_public_it_follows_from_the_plan_alone():
    one, other = plan_of(), replace(plan_of(), run="another")
    assert one.task.forecast(one) == other.task.forecast(other)


def test_the_fitted_curves_rise_with_signal_and_with_consumers():
    assert JOINED.weights[1] > 0
    assert ALONE.weights[1] > 0
