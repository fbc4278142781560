"""The market: the sum of the sites' released sales series, with what it takes to read it. All of it is released."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.model.sales_series import CHANNELS, SalesSpec, trend
from common.plan import RunPlan

MARKET_FILE = "market.json"


def market_series(plan: RunPlan, total: NDArray[np.float64], sites: Sequence[str]) -> dict[str, Any]:
    """The released series of all surviving sites together, in pieces and in money, as JSON values.

    Shapes: ``total: float64[cells]``. ``noise``: standard deviation of each period's value, per channel, public.
    ``trend``: relative change of the last four seasons against the four before, as far as the noise lets it be seen.
    """
    spec = SalesSpec.of(plan.config)
    series = total.reshape(spec.shape) * np.array(spec.bounds)[:, None, None]
    noise = plan.noise_multiplier * plan.config.privacy.clip * math.sqrt(len(sites))
    changes = trend(series, spec.season)
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


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    return [round(float(value), 3) if math.isfinite(value) else None for value in values]
