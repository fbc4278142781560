"""What would help a run that ended below what simple methods reach: changes, each with what the forecast gives for it.

Sizes are in points of Recall@20, over the public logs that the forecast was fitted on: a range, because logs differ. A guess
from public numbers, as the forecast itself; no site is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import common.tasks.forecast as forecasts
from common.errors import FedcartError
from common.privacy import show_exact
from common.run import RunPlan
from common.tasks import metric_named
from common.tasks.forecast import LOGS, Forecast

WORTH = 0.5  # points on some log: a change that brings less is not named
MORE_SITES, LARGER_EPSILON = 4, 2.0
Points = Sequence[float]  # of each log


def advice(plan: RunPlan, metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One remark, if a trivial baseline beats the model and a forecast says what would change that; else none."""
    name, now = plan.task.primary, Forecast.of(plan)
    model, metric = metrics.get(name, math.nan), metric_named(name)
    if name != forecasts.METRIC or now is None:
        return []
    if not any(metric.better(other.get(name, math.nan), model) for other in baselines.values()):
        return []
    helps: list[tuple[float, str]] = []
    for words, change in changes(plan).items():
        with suppress(FedcartError):  # such noise, or such a run, is not possible
            then = change()
            gains = [_points(log, then.joined(log) - now.joined(log)) for log in LOGS] if then else [0.0]
            if max(gains) >= WORTH:
                helps.append((max(gains), f"{words} ({_words(gains)})"))
    told = [text for _, text in sorted(helps, reverse=True)]
    return [f"what would help here, by the forecast over public logs: {'; '.join([*told, _own_data(now)])}"]


def _own_data(now: Forecast) -> str:
    """What personalizing is worth where it is least: the better of shared and alone serves."""
    size = now.size()
    gains = [_points(log, max(forecasts.alone(log, size) - now.joined(log), 0.0)) for log in LOGS]
    worth = f", {_words(gains)} for a site of {size:,.0f}" if max(gains) >= WORTH else ""
    return (
        f"own data on top at each site{worth}: fedcart personalize is never below alone, --baselines shows it here"
    )


def _points(log: forecasts.Like, share: float) -> float:
    return 100 * share * (log.without_noise - log.untrained)


def _words(gains: Points) -> str:
    return f"{min(gains):+.0f} to {max(gains):+.0f} points"


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
    if honest := plan.could_share:
        found["quorum noise (--trust quorum), where the sites know and allow each other"] = lambda: Forecast.of(
            replace(plan, noise_multiplier=plan.noise_multiplier / math.sqrt(honest))
        )
    found[f"{MORE_SITES} times as many sites that share items"] = lambda: Forecast.of(_more_sites(plan))
    if not privacy.noise_multiplier:
        larger = privacy.epsilon * LARGER_EPSILON
        found[f"epsilon {show_exact(larger)} instead of {show_exact(privacy.epsilon)}"] = lambda: _changed(
            plan, {"privacy": {"epsilon": larger}}
        )
    return found


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
