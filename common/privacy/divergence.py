"""What sampled Gaussian steps lose, in numbers: Rényi divergences and privacy loss distributions, kept for the next time."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache, reduce
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.privacy.renyi import ORDERS, divergences_of_step
from common.privacy.sampled_loss import LossDistribution, losses_of_step

Setting: TypeAlias = tuple[
    float, float
]  # (sampling rate, noise multiplier): what a step costs depends on nothing else


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of Gaussian mechanisms with joint sensitivity / noise ratio ``mu``, rounded up.

    Source: Balle and Wang 2018, "Improving the Gaussian mechanism", theorem 8.
    """
    from scipy.special import log_ndtr

    def log_excess(epsilon: float) -> bool:
        first = float(log_ndtr(mu / 2 - epsilon / mu))
        second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
        return second < first and first + math.log1p(-math.exp(second - first)) > math.log(delta)

    if mu == 0 or not log_excess(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while log_excess(high):
        low, high = high, 2 * high
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if log_excess(middle) else (low, middle)
    return high * (1 + 1e-9)


@lru_cache(maxsize=256)
def rdp_of_step(
    rate: float, sigma: float, orders: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The orders and the divergence of one step at each: two ``float64[K]``. No ``orders``: the usual ones."""
    wanted = orders or ORDERS
    return np.asarray(wanted, dtype=np.float64), divergences_of_step(rate, sigma, wanted)


_loss_of_step = lru_cache(maxsize=32)(losses_of_step)


class _RecentPlds:
    """The last composed distributions: a round then costs one convolution, not a power of the single step."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: OrderedDict[tuple[float, float, float, int], LossDistribution] = OrderedDict()

    def get(self, rate: float, sigma: float, grid: float, steps: int) -> LossDistribution:
        key = (rate, sigma, grid, steps)
        if key not in self._found:
            self._found[key] = self._compose(rate, sigma, grid, steps)
            while len(self._found) > self._size:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        return self._found[key]

    def _compose(self, rate: float, sigma: float, grid: float, steps: int) -> LossDistribution:
        if rate == 1.0:  # a sum of Gaussian losses is Gaussian: no convolution needed
            return _loss_of_step(rate, sigma / math.sqrt(steps), grid)
        before = max((k[3] for k in self._found if k[:3] == (rate, sigma, grid) and k[3] < steps), default=0)
        if steps - before > before:
            return _loss_of_step(rate, sigma, grid).repeated(steps)
        first, more = self.get(rate, sigma, grid, before), self.get(rate, sigma, grid, steps - before)
        return first.composed(more)


_recent_plds = _RecentPlds(64)


def pld_of_settings(settings: Mapping[Setting, int], grid: float) -> LossDistribution:
    """The distribution of all steps of some settings, discretized upwards to a grid."""
    parts = [_recent_plds.get(rate, sigma, grid, steps) for (rate, sigma), steps in sorted(settings.items())]
    return reduce(lambda a, b: a.composed(b), parts)


def pld_epsilon(distribution: LossDistribution, delta: float) -> float:
    """Smallest epsilon with divergence at most delta, by bisection; the upper end is returned."""
    low, high = 0.0, 1.0
    while distribution.exceeds(high, delta):
        low, high = high, 2 * high
        if high > 1e4:
            return math.inf
    while high - low > 1e-6 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if distribution.exceeds(middle, delta) else (low, middle)
    return high
