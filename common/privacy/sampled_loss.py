"""Privacy loss distributions of Poisson-sampled Gaussian steps, computed over whole arrays.

Discretization, composition and their bounds are those of dp-accounting's ``PrivacyLossDistribution``, which inverts the
loss point by point and takes most of a second to load; tests compare every probability with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

_LOG_MASS = -50.0  # of the noise outside of the range that is looked at: it counts as an infinite loss
_TAIL_MASS = 1e-15  # of a composition that may be cut off: it counts as an infinite loss too
_CHERNOFF_ORDERS = 20  # to each side, at which the range of a composition is bounded
_QUICK_BELOW = 500.0  # epsilon whose exponential is a number, and that of the losses above it too
_QUICK_ERROR = 1e-6  # relative, of the quick divergence: a thousand times what rounding can do


@dataclass(frozen=True)
class LossMasses:
    """Probabilities of losses ``grid * (lowest + i)``: ``float64[n]``, and of an infinite loss."""

    grid: float
    lowest: int
    probabilities: Array
    infinite: float

    def delta_at(self, epsilon: float) -> float:
        """Hockey-stick divergence at ``epsilon``."""
        first = max(0, math.floor(epsilon / self.grid) - self.lowest)
        losses = (np.arange(first, len(self.probabilities)) + self.lowest) * self.grid
        above = np.maximum(-np.expm1(epsilon - losses), 0.0)
        return self.infinite + float(above @ self.probabilities[first:])

    def exceeds(self, epsilon: float, delta: float) -> bool:
        """Whether ``delta_at(epsilon)`` is above ``delta``, for ``epsilon`` from 0: from running sums, where they say so."""
        if epsilon < _QUICK_BELOW:
            from_zero, weights, shrunk = self._running_sums
            first = max(0, math.floor(epsilon / self.grid) + 1 - from_zero)
            if first >= len(weights):
                return self.infinite > delta
            quick = self.infinite + float(weights[first] - math.exp(epsilon) * shrunk[first])
            if abs(quick - delta) > _QUICK_ERROR * delta:
                return quick > delta
        return self.delta_at(epsilon) > delta

    @cached_property
    def _running_sums(self) -> tuple[int, Array, Array]:
        """Of the masses and of ``exp(-loss)`` times them, each from a positive loss upwards; place of the first."""
        first = max(1, self.lowest)
        masses = self.probabilities[first - self.lowest :]
        losses = np.arange(first, first + len(masses)) * self.grid
        return first, np.cumsum(masses[::-1])[::-1], np.cumsum((masses * np.exp(-losses))[::-1])[::-1]

    def composed(self, other: LossMasses) -> LossMasses:
        """Of a step like this and one like the other."""
        from scipy import fft

        size = len(self.probabilities) + len(other.probabilities) - 1
        room = fft.next_fast_len(size, real=True)
        masses = fft.irfft(fft.rfft(self.probabilities, room) * fft.rfft(other.probabilities, room), room)[:size]
        infinite = self.infinite + other.infinite - self.infinite * other.infinite
        begin, end = _tails(masses)
        kept = masses[begin:end].copy()
        kept[0] += masses[:begin].sum()
        lowest = self.lowest + other.lowest + begin
        return LossMasses(self.grid, lowest, kept, infinite + float(masses[end:].sum()))

    def size_of(self, times: int) -> int:
        """How many losses ``repeated`` would look at."""
        low, high = _range_of_sum(self.probabilities, times)
        return high - low + 1

    def repeated(self, times: int) -> LossMasses:
        """Of so many steps like this."""
        from scipy import fft

        low, high = _range_of_sum(self.probabilities, times)
        size = high - low + 1
        room = fft.next_fast_len(max(size, len(self.probabilities)))
        masses = np.real(fft.ifft(fft.fft(self.probabilities, room) ** times))
        infinite = _TAIL_MASS - math.expm1(times * math.log1p(-self.infinite))
        return LossMasses(self.grid, self.lowest * times + low, np.roll(masses, -low)[:size], infinite)


@dataclass(frozen=True)
class LossDistribution:
    """Both directions: a consumer is removed, or added. ``added`` None: they are one distribution."""

    removed: LossMasses
    added: LossMasses | None = None

    def delta_at(self, epsilon: float) -> float:
        """Hockey-stick divergence at ``epsilon``, the larger of both directions."""
        delta = self.removed.delta_at(epsilon)
        return delta if self.added is None else max(delta, self.added.delta_at(epsilon))

    def exceeds(self, epsilon: float, delta: float) -> bool:
        """Whether the divergence at ``epsilon`` is above ``delta``."""
        return self.removed.exceeds(epsilon, delta) or (
            self.added is not None and self.added.exceeds(epsilon, delta)
        )

    def composed(self, other: LossDistribution) -> LossDistribution:
        """The distribution of both together."""
        removed = self.removed.composed(other.removed)
        if self.added is None and other.added is None:
            return LossDistribution(removed)
        return LossDistribution(removed, (self.added or self.removed).composed(other.added or other.removed))

    def repeated(self, times: int) -> LossDistribution:
        """The distribution of so many steps like this."""
        added = None if self.added is None else self.added.repeated(times)
        return LossDistribution(self.removed.repeated(times), added)


def losses_of_step(rate: float, sigma: float, grid: float) -> LossDistribution:
    """The distribution of one step at sampling rate ``rate`` and noise multiplier ``sigma``.

    Guarantee: discretized upwards to multiples of ``grid`` (connect the dots): its epsilon is never below the true one.
    """
    removed = _discretized(rate, sigma, grid, removing=True)
    return LossDistribution(removed, None if rate == 1.0 else _discretized(rate, sigma, grid, removing=False))


def bounds_of_step(rate: float, sigma: float, *, removing: bool) -> tuple[float, float]:
    """The smallest and the largest finite loss that is looked at."""
    from scipy.special import ndtri

    reach = -sigma * float(ndtri(0.5 * math.exp(_LOG_MASS)))

    def loss(x: float) -> float:
        shift = (-0.5 - x) / sigma**2 if removing else (0.5 - x) / sigma**2
        if rate == 1.0:
            return shift
        mixed = float(np.logaddexp(math.log1p(-rate), math.log(rate) + (shift if removing else -shift)))
        return mixed if removing else -mixed

    return (loss(reach), loss(-reach - 1)) if removing else (loss(reach + 1), loss(-reach))


def divergences(rate: float, sigma: float, epsilons: Array, *, removing: bool) -> Array:
    """Hockey-stick divergence of one step at each epsilon: ``float64[n]``."""
    from scipy.special import log_ndtr, ndtr

    # beyond the edge one density lies above exp(epsilon) times the other everywhere, or nowhere
    edge = math.log1p(-rate) if rate < 1 else -math.inf
    inside = epsilons > edge if removing else epsilons < -edge
    result = np.where(inside | (not removing), 0.0, -np.expm1(np.minimum(epsilons, 0)))
    at = epsilons[inside]
    # the loss before sampling, and where the noise has it: x falls as the loss grows
    if removing:
        x = -0.5 - _before_sampling(at, rate) * sigma**2
        upper = (1 - rate) * ndtr(x / sigma) + rate * ndtr((x + 1) / sigma)
        log_lower = log_ndtr(x / sigma)
    else:
        x = 0.5 + _before_sampling(-at, rate) * sigma**2
        upper = ndtr(x / sigma)
        log_lower = log_ndtr((x - 1) / sigma) + math.log(rate)
        if rate < 1:
            log_lower = np.logaddexp(math.log1p(-rate) + log_ndtr(x / sigma), log_lower)
    result[inside] = upper - np.exp(at + log_lower)
    return np.clip(result, 0, 1)


def _discretized(rate: float, sigma: float, grid: float, *, removing: bool) -> LossMasses:
    smallest, largest = bounds_of_step(rate, sigma, removing=removing)
    lowest, highest = math.floor(smallest / grid), math.ceil(largest / grid)
    points = np.arange(lowest, highest + 1, dtype=np.float64) * grid
    return connect_the_dots(grid, lowest, divergences(rate, sigma, points, removing=removing))


def connect_the_dots(grid: float, lowest: int, divergences_there: Array) -> LossMasses:
    """The distribution on ``grid * (lowest + i)`` of these divergences: between the points it lies above every other one.

    Source: Doroshenko et al. 2022, "Connect the Dots", algorithm 1.
    """
    deltas = np.minimum.accumulate(divergences_there)
    if len(deltas) == 1:
        return LossMasses(grid, lowest, 1 - deltas, float(deltas[0]))
    falls, step = np.diff(deltas), math.expm1(grid)
    masses = np.empty_like(deltas)
    masses[0] = 1 - deltas[0] + falls[0] / step
    masses[1:-1] = (falls[1:] - falls[:-1] * math.exp(grid)) / step
    masses[-1] = falls[-1] / math.expm1(-grid)
    return LossMasses(grid, lowest, np.maximum(masses, 0.0), float(deltas[-1]))


def _before_sampling(epsilons: Array, rate: float) -> Array:
    """``log(1 + (exp(epsilon) - 1) / rate)``, minus infinity at the edge ``log(1 - rate)``."""
    scaled = epsilons - math.log(rate)
    if rate == 1.0:
        return scaled
    with np.errstate(divide="ignore"):
        return scaled + np.log1p(-np.exp(np.minimum(math.log(1 / rate - 1) - scaled, 0)))


def _range_of_sum(masses: Array, times: int) -> tuple[int, int]:
    """First and last place of a sum of so many draws, but for ``_TAIL_MASS``, by Chernoff's bound."""
    low, high = 0, (len(masses) - 1) * times
    place, more = np.arange(len(masses)) / len(masses), math.log(2 / _TAIL_MASS)
    for sign in (1, -1):
        growth, moment = np.exp(sign * place), masses
        for order in range(1, _CHERNOFF_ORDERS + 1):
            moment = moment * growth
            bound = (times * math.log(moment.sum()) + more) * len(masses) / (sign * order)
            low, high = (low, min(high, math.ceil(bound))) if sign > 0 else (max(low, math.floor(bound)), high)
    return low, high


def _tails(masses: Array) -> tuple[int, int]:
    """What is left of masses without the longest ends that weigh at most half of ``_TAIL_MASS`` each."""
    begin = int(np.argmax(np.cumsum(masses) > _TAIL_MASS / 2))
    end = len(masses) - int(np.argmax(np.cumsum(masses[::-1]) > _TAIL_MASS / 2))
    return begin, max(end, begin + 1)
