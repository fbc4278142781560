"""The market: the sum of the sites' released sales series, with what it takes to read it. All of it is released."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.run import RunPlan
from common.tasks.sales_series import CHANNELS, SEASONS, SalesSpec, trend

_LOUDER = 10.0  # then a shown trend is off by about a seventh at most, two times in three


def market_series(plan: RunPlan, total: NDArray[np.float64], sites: Sequence[str]) -> dict[str, Any]:
    """The released series of all surviving sites together, in pieces and in money, as JSON values.

    Shapes: ``total: float64[cells]``. ``noise``: standard deviation of each period's value, per channel, public.
    ``trend``: relative change of the last four seasons against the four before, null where the noise hides it.
    """
    spec = SalesSpec.of(plan.config)
    series = total.reshape(spec.shape) * np.array(spec.bounds)[:, None, None]
    noise = plan.noise_multiplier * plan.config.privacy.clip * math.sqrt(len(sites))
    changes = _seen(series, spec, noise)
    return {
        "kind": "released",
        "sites": list(sites),
        "granularity": spec.granularity,
        "start": spec.start.isoformat(),
        "categories": list(spec.categories),
        "noise": {name: round(noise * bound, 3) for name, bound in zip(CHANNELS, spec.bounds, strict=True)},
        "series": {
            name: {category: _rounded(series[i, j]) for j, category in enumerate(spec.categories)}
            for i, name in enumerate(CHANNELS)
        },
        "trend": {
            name: dict(zip(spec.categories, _rounded(changes[i]), strict=True)) for i, name in enumerate(CHANNELS)
        },
    }


def _seen(series: NDArray[np.float64], spec: SalesSpec, noise: float) -> NDArray[np.float64]:
    """Trends where both halves are at least ``_LOUDER`` times as large as their noise, else NaN."""
    span = SEASONS * spec.season
    if spec.periods < 2 * span:
        return np.full(series.shape[:-1], np.nan)
    halves = series[..., -span:].sum(axis=-1), series[..., -2 * span : -span].sum(axis=-1)
    least = _LOUDER * noise * math.sqrt(span) * np.array(spec.bounds)[:, None]
    return np.where(np.minimum(*halves) >= least, trend(series, spec.season), np.nan)


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    return [round(float(value), 3) if math.isfinite(value) else None for value in values]
