"""The forecast of a run: a range that follows from public numbers only, beside what sites of each size have alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from common.run import RunPlan, build_config
from common.tasks.forecast import ALONE, JOINED, LOGS, Forecast, alone

SITES = tuple((f"site-{i}", 2_000) for i in range(8))
FEATURES = '{"catalogue_items": 1000}'
LOG = LOGS[0]


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
        assert all(better.joined(log) > usual.joined(log) for log in LOGS)
        assert better.unlike > usual.unlike


def test_every_share_is_one_whatever_the_noise():
    for found in (forecast(noise=0.001), forecast(), forecast(noise=1e6)):
        low, high = found.unlike
        assert 0 <= low <= high <= 1
        assert all(0 <= found.joined(log) <= 1 for log in LOGS)


def test_a_site_of_the_size_up_to_which_joining_pays_has_alone_what_the_run_promises():
    found = forecast()
    for log in LOGS:
        limit = found.pays_up_to(log)
        assert alone(log, limit) == pytest.approx(max(found.joined(log), 1e-3), abs=1e-6)
        assert alone(log, 2 * limit) > found.joined(log)


def test_with_as_many_sites_as_are_named_joining_pays_one_of_them():
    """At a noise at which it does not pay with four sites, and less than a hundred are enough."""
    size, one = 8_192, 8_192 * 0.8
    for noise in (1.2**power for power in range(-20, 60)):
        few = forecast(sites=[(f"site-{i}", size) for i in range(4)], noise=noise)
        count = few.pays_from(LOG, one) / one
        if 8 < count <= 100:
            break
    assert 8 < count <= 100
    assert few.pays_up_to(LOG) < one
    many = forecast(sites=[(f"site-{i}", size) for i in range(math.ceil(count))], noise=noise)
    assert many.joined(LOG) == pytest.approx(alone(LOG, one), abs=0.02)
    assert many.pays_up_to(LOG) >= one


def test_the_size_of_the_site_that_reads_it_is_named():
    sites = [*SITES, ("mine", 5_000)]
    told = "\n".join(plan_of(sites=sites).task.forecast(plan_of(sites=sites), "mine"))
    assert "your site (4,000 consumers" in told
    assert "your site" not in "\n".join(plan_of().task.forecast(plan_of()))


def test_every_log_of_the_fit_is_told_with_its_own_range():
    told = plan_of().task.forecast(plan_of())
    for log in LOGS:
        assert log.words(forecast().joined(log), JOINED.half) in told[0]
        assert log.words(alone(log, 1_600), ALONE.half) in told[2]


def test_a_range_is_cut_where_no_share_can_be():
    assert LOG.words(0.0, 0.1).startswith(f"{LOG.name} {LOG.untrained:.2f} to ")
    assert LOG.words(1.0, 0.1).endswith(f" to {LOG.without_noise:.2f}")


def test_a_run_unlike_all_that_were_measured_is_called_a_guess():
    assert "guess" not in plan_of().task.forecast(plan_of())[0]
    far = plan_of("training.local_steps=500")
    assert "guess" in far.task.forecast(far)[0]


def test_without_noise_or_without_a_fit_nothing_is_promised():
    plain = plan_of("privacy.enabled=false", noise=0.0)
    assert plain.task.forecast(plain) == ["no noise: quality is bounded by the data only"]
    intent = plan_of("task=purchase-intent")
    assert intent.task.forecast(intent)[0].startswith("no forecast: there is no fit for intent_auc")


def test_the_forecast_is_public_it_follows_from_the_plan_alone():
    one, other = plan_of(), replace(plan_of(), run="another")
    assert one.task.forecast(one) == other.task.forecast(other)


def test_the_fitted_curves_rise_with_signal_and_with_consumers():
    assert JOINED.weights[0] > 0
    assert ALONE.weights[0] > 0
