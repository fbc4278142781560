"""What would help a run that ended below what simple methods reach: changes, each with what the forecast gives for it.

Sizes are in points of Recall@20, over the public logs that the forecast was fitted on: what training without noise gains there
differs, so each is a range. A guess from public numbers, as the forecast itself; no site is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from common.errors import FedcartError
from common.run import RunPlan
from common.tasks import metric_named
from common.tasks.forecast import LOGS, METRIC as FORECAST, Forecast

WORTH = 0.01  # of what training without noise gains: below it a change is not named
MORE_SITES, LARGER_EPSILON = 4, 2.0


def advice(plan: RunPlan, metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One remark, if a trivial baseline beats the model and a forecast says what would change that; else none."""
    name, now = plan.task.primary, Forecast.of(plan)
    model, metric = metrics.get(name, math.nan), metric_named(name)
    if (
        name != FORECAST
        or now is None
        or not any(metric.better(other.get(name, math.nan), model) for other in baselines.values())
    ):
        return []
    helps = []
    for words, change in changes(plan).items():
        with suppress(FedcartError):  # such noise, or such a run, is not possible
            then = change()
            gain = then.joined.middle - now.joined.middle if then else 0.0
            if gain >= WORTH:
                helps.append((gain, f"{words} ({points(gain)})"))
    told = [text for _, text in sorted(helps, reverse=True)]
    return [f"what would help here, by the forecast: {'; '.join([*told, _own_data(now)])}"]


def _own_data(now: Forecast) -> str:
    """What personalizing is worth where it is least: the better of shared and alone serves."""
    size = sorted(now.sites.values())[len(now.sites) // 2]
    gain = now.alone(size).middle - now.joined.middle
    worth = f", {points(gain)} for a site of {size:,.0f}" if gain >= WORTH else ""
    return (
        f"own data on top at each site{worth}: fedcart personalize is never below alone, --baselines shows it here"
    )


def changes(plan: RunPlan) -> dict[str, Callable[[], Forecast | None]]:
    """Words -> the forecast of the run with one thing changed, at the same epsilon unless it is the change."""
    privacy, training = plan.config.privacy, plan.config.training
    quality: dict[str, dict[str, Any]] = {
        "training": {"rounds": max(200, training.rounds), "local_steps": 1},
        "privacy": {"sampling_rate": max(0.25, privacy.sampling_rate)},
    }
    found: dict[str, Callable[[], Forecast | None]] = {}
    if training.local_steps > 1 or training.rounds < quality["training"]["rounds"]:
        found["the recipe quality"] = lambda: _changed(plan, quality)
    elif privacy.sampling_rate < 0.5:
        found["a sampling rate twice as large"] = lambda: _changed(
            plan, {"privacy": {"sampling_rate": 2 * privacy.sampling_rate}}
        )
    found[f"{MORE_SITES} times as many sites that share items"] = lambda: Forecast.of(_more_sites(plan))
    if not privacy.noise_multiplier:
        larger = privacy.epsilon * LARGER_EPSILON
        found[f"epsilon {larger:g} instead of {privacy.epsilon:g}"] = lambda: _changed(
            plan, {"privacy": {"epsilon": larger}}
        )
    return found


def points(gain: float) -> str:
    """A gain of so large a share in points of Recall@20, over the logs of the fit."""
    sizes = sorted(100 * gain * (log.without_noise - log.untrained) for log in LOGS)
    return f"{sizes[0]:+.0f} to {sizes[-1]:+.0f} points"


def _changed(plan: RunPlan, sections: Mapping[str, Mapping[str, Any]]) -> Forecast | None:
    from server.run_setup import noise_of

    config = plan.config
    parts = {name: getattr(config, name).model_copy(update=dict(keys)) for name, keys in sections.items()}
    config = config.model_copy(update=parts)
    noise, evaluation = noise_of(config)
    return Forecast.of(
        replace(plan, settings=config.public_json(), noise_multiplier=noise, evaluation_noise=evaluation)
    )


def _more_sites(plan: RunPlan) -> RunPlan:
    more = tuple(
        (f"site-{copy}-{place}", declared)
        for copy in range(MORE_SITES)
        for place, (_, declared) in enumerate(plan.populations)
    )
    return replace(plan, populations=more)
