"""What sampled Gaussian steps lose, in numbers: Rényi divergences and privacy loss distributions, kept for the next time.

Both are dp-accounting's; loading it takes most of a second, so it is imported at the first use.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

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
    """The orders and the divergence of one step at each: two ``float64[K]``. No ``orders``: the library's own."""
    from dp_accounting import dp_event, rdp

    accountant = rdp.RdpAccountant(orders or None)
    with _quiet():
        accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(sigma)))
    return accountant.orders, accountant.rdp


@lru_cache(maxsize=32)
def _pld_of_step(rate: float, sigma: float, grid: float) -> PrivacyLossDistribution:
    from common.privacy.sampled_loss import pld_of_sampled_gaussian

    return pld_of_sampled_gaussian(rate, sigma, grid)


class _RecentPlds:
    """The last composed distributions: a round then costs one convolution, not a power of the single step."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: OrderedDict[tuple[float, float, float, int], PrivacyLossDistribution] = OrderedDict()

    def get(self, rate: float, sigma: float, grid: float, steps: int) -> PrivacyLossDistribution:
        key = (rate, sigma, grid, steps)
        if key not in self._found:
            self._found[key] = self._compose(rate, sigma, grid, steps)
            while len(self._found) > self._size:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        return self._found[key]

    def _compose(self, rate: float, sigma: float, grid: float, steps: int) -> PrivacyLossDistribution:
        if rate == 1.0:  # a sum of Gaussian losses is Gaussian: no convolution needed
            return _pld_of_step(rate, sigma / math.sqrt(steps), grid)
        before = max((k[3] for k in self._found if k[:3] == (rate, sigma, grid) and k[3] < steps), default=0)
        if steps - before > before:
            return _pld_of_step(rate, sigma, grid).self_compose(steps)
        first, more = self.get(rate, sigma, grid, before), self.get(rate, sigma, grid, steps - before)
        return first.compose(more)


_recent_plds = _RecentPlds(64)


def pld_of_settings(settings: Mapping[Setting, int], grid: float) -> PrivacyLossDistribution:
    """The distribution of all steps of some settings, discretized upwards to a grid."""
    parts = [_recent_plds.get(rate, sigma, grid, steps) for (rate, sigma), steps in sorted(settings.items())]
    return reduce(lambda a, b: a.compose(b), parts)


def pld_epsilon(distribution: PrivacyLossDistribution, delta: float) -> float:
    """Smallest epsilon with divergence at most delta, by bisection; the upper end is returned."""

    def too_small(epsilon: float) -> bool:
        return bool(distribution.get_delta_for_epsilon(epsilon) > delta)

    low, high = 0.0, 1.0
    while too_small(high):
        low, high = high, 2 * high
        if high > 1e4:
            return math.inf
    while high - low > 1e-6 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high


@contextmanager
def _quiet() -> Iterator[None]:
    """Orders for which a series does not converge count as infinite; that is safe and not worth a warning."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
