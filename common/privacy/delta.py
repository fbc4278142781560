"""How delta has to be to the number of consumers: a promise that may fail for one in delta must not fail for one of n."""

from __future__ import annotations

import math
from collections.abc import Mapping

from common.errors import ConfigError
from common.privacy.shown import show_exact

USUAL_DELTA = 1e-5
CAUTION = 10.0  # delta should be below 1 / (CAUTION * n)


def delta_for(population: int) -> float:
    """The delta for a new scope: the usual one, or a smaller power of ten where there are more consumers."""
    return min(USUAL_DELTA, 10.0 ** math.floor(math.log10(1 / (CAUTION * max(population, 1)))))


def delta_remark(delta: float, populations: Mapping[str, int]) -> str:
    """What is to be said of delta for sites with so many declared consumers; empty if nothing.

    Raises: ConfigError above 1 / n: releasing whole rows of that share of the consumers would keep the promise.
    """
    site, largest = max(populations.items(), key=lambda item: item[1], default=("", 0))
    if largest and delta > 1 / largest:
        raise ConfigError(
            f"delta {show_exact(delta)} is above 1 / {largest:,}, the declared consumers of {site}",
            hint=f"set privacy.delta (and delta in policy.toml) to {show_exact(delta_for(largest))} or less",
        )
    if largest and delta > 1 / (CAUTION * largest):
        return (
            f"delta {show_exact(delta)} is above 1 / ({CAUTION:g} n) for the {largest:,} declared consumers of {site}; "
            f"{show_exact(delta_for(largest))} would be safe"
        )
    return ""
