"""What a consumer loses who is known at several sites, when all of them add to one noised sum.

Each of his ``m`` sites samples him on its own, so he moves the sum 0 to m times, Binomial(m, rate): a mixture of Gaussians
with these shifts against the one without him. This is no composition: there is one noise, and m moves of it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from common.privacy.accountant import COARSE, FINE, FINE_BELOW, FINE_FROM, MIN_PLD_NOISE, SMALLEST_PLD_DELTA
from common.privacy.divergence import gaussian_epsilon, pld_epsilon
from common.privacy.sampled_loss import LossDistribution, LossMasses, connect_the_dots, losses_of_step

Array: TypeAlias = NDArray[np.float64]
GroupSetting: TypeAlias = tuple[float, float, int, int]
"""(sampling rate, noise multiplier of the sum for one site's sensitivity, steps, sites that know the consumer)."""

GroupStep: TypeAlias = tuple[float, float, int]  # the same without the steps

_LOG_MASS = -50.0  # of the noise outside of the range that is looked at: it counts as an infinite loss
_MOST_POINTS = 1 << 18  # of one step, beyond which the grid is made coarser
_MOST_COMPOSED = 1 << 23  # points of all steps together, beyond which the bound without sampling counts
_SPREAD = 10.5  # deviations that the range comes to at most
_GUESSES = 1 << 13  # places at which the loss is tabulated before it is inverted
_NEWTON_STEPS = 4  # from a guess that is already close
_CHUNK = 1 << 12  # points: a row of each shift stays in the cache


def epsilon_of_mixture(settings: tuple[GroupSetting, ...], delta: float) -> float:
    """Epsilon of noised sums which one consumer may move several times each, composed.

    All settings fixed in advance. The slack of discrete noise is not in it: see ``common.privacy.noised_grid.with_slack``.
    Guarantee: never below the true one. At one site it is that of the sampled Gaussian; without sampling the exact one of
    a shift of ``m`` sensitivities, which is an upper bound with sampling too and counts where the rest would take too long.
    Raises: ConfigError for a delta outside (0, 1) or numbers that are no setting.
    Source: Choquette-Choo et al. 2024, "Privacy amplification for matrix mechanisms", for mixtures and why equal directions
    are the worst.
    """
    if not 0 < delta < 1:
        raise ConfigError(f"delta must be between 0 and 1, got {delta}", hint="use 1e-5 or smaller")
    steps: Counter[GroupStep] = Counter()
    for rate, multiplier, times, sites in settings:
        _check_setting(rate, multiplier, times, sites)
        if times:
            steps[rate, multiplier, sites] += times
    return _epsilon(tuple(sorted(steps.items())), delta) if steps else 0.0


def losses_of_group_step(rate: float, sigma: float, sites: int, grid: float) -> LossDistribution:
    """The distribution of one sum, both directions, discretized upwards to multiples of ``grid``."""
    if rate == 1.0:
        return losses_of_step(1.0, sigma / sites, grid)
    if sites == 1:
        return losses_of_step(rate, sigma, grid)
    mixture = _mixture_of(rate, sigma, sites)
    return LossDistribution(
        _discretized(mixture, grid, removing=True),
        _discretized(mixture, grid, removing=False),
    )


@dataclass(frozen=True, eq=False)
class _Mixture:
    """Normal numbers of deviation ``sigma`` around ``shifts``. Shapes: ``shifts, log_weights: float64[m + 1]``."""

    sigma: float
    shifts: Array
    log_weights: Array

    @property
    def reach(self) -> float:
        from scipy.special import ndtri

        return -self.sigma * float(ndtri(0.5 * math.exp(_LOG_MASS)))

    def loss(self, x: Array) -> tuple[Array, Array]:
        """Logarithm of the mixture over the normal around 0, and its slope; increasing and convex in x."""
        parts = self.log_weights[:, None] + self.shifts[:, None] * (x - self.shifts[:, None] / 2) / self.sigma**2
        top = parts.max(axis=0)
        np.exp(parts - top, out=parts)
        total = parts.sum(axis=0)
        return top + np.log(total), (self.shifts @ parts) / total / self.sigma**2

    def where(self, losses: Array) -> Array:
        """The x of each loss: by a table, then Newton's method on a convex function; no further than the table."""
        lowest, highest = -1.1 * self.reach - 1, float(self.shifts[-1]) + 1.1 * self.reach + 1
        table = np.linspace(lowest, highest, _GUESSES)
        x: Array = np.interp(losses, self.loss(table)[0], table)
        for start in range(0, len(x), _CHUNK):
            part, wanted = x[start : start + _CHUNK], losses[start : start + _CHUNK]
            for _ in range(_NEWTON_STEPS):
                found, slope = self.loss(part)
                part -= (found - wanted) / slope
                np.clip(part, lowest, highest, out=part)
        return x

    def below(self, x: Array) -> Array:
        """Mass of the mixture below each x."""
        from scipy.special import ndtr

        total = np.zeros_like(x)
        for shift, log_weight in zip(self.shifts, self.log_weights, strict=True):
            total += math.exp(log_weight) * ndtr((x - shift) / self.sigma)
        return total

    def above(self, x: Array) -> Array:
        """Mass of the mixture above each x."""
        from scipy.special import ndtr

        total = np.zeros_like(x)
        for shift, log_weight in zip(self.shifts, self.log_weights, strict=True):
            total += math.exp(log_weight) * ndtr((shift - x) / self.sigma)
        return total


def _mixture_of(rate: float, sigma: float, sites: int) -> _Mixture:
    from scipy.special import gammaln

    shifts = np.arange(sites + 1, dtype=np.float64)
    choices = gammaln(sites + 1) - gammaln(shifts + 1) - gammaln(sites - shifts + 1)
    return _Mixture(sigma, shifts, choices + shifts * math.log(rate) + (sites - shifts) * math.log1p(-rate))


def _divergences(mixture: _Mixture, epsilons: Array, *, removing: bool) -> Array:
    """Hockey-stick divergence of one step at each epsilon: ``float64[n]``."""
    from scipy.special import log_ndtr, ndtr

    # beyond the edge one density lies above exp(epsilon) times the other everywhere, or nowhere
    edge = float(mixture.log_weights[0])
    inside = epsilons > edge if removing else epsilons < -edge
    result = np.where(inside | (not removing), 0.0, -np.expm1(np.minimum(epsilons, 0)))
    at = epsilons[inside]
    if removing:
        x = mixture.where(at)
        result[inside] = mixture.above(x) - np.exp(at + log_ndtr(-x / mixture.sigma))
    else:
        x = mixture.where(-at)
        with np.errstate(divide="ignore"):
            result[inside] = ndtr(x / mixture.sigma) - np.exp(at + np.log(mixture.below(x)))
    return np.clip(result, 0, 1)


def _discretized(mixture: _Mixture, grid: float, *, removing: bool) -> LossMasses:
    ends = np.array([-mixture.reach, mixture.reach + (mixture.shifts[-1] if removing else 0.0)])
    low, high = mixture.loss(ends)[0] if removing else -mixture.loss(ends)[0][::-1]
    lowest, highest = math.floor(low / grid), math.ceil(high / grid)
    points = np.arange(lowest, highest + 1, dtype=np.float64) * grid
    return connect_the_dots(grid, lowest, _divergences(mixture, points, removing=removing))


@lru_cache(maxsize=256)
def _epsilon(settings: tuple[tuple[GroupStep, int], ...], delta: float) -> float:
    whole = gaussian_epsilon(math.sqrt(sum(n * (m / sigma) ** 2 for (_, sigma, m), n in settings)), delta)
    noise = min(sigma / m for (_, sigma, m), _ in settings)
    if all(rate == 1.0 for (rate, _, _), _ in settings) or delta < SMALLEST_PLD_DELTA or noise < MIN_PLD_NOISE:
        return whole
    span = max(m * (m / 2 + _SPREAD * sigma) / sigma**2 for (_, sigma, m), _ in settings)
    found = min(whole, _composed_epsilon(settings, delta, max(COARSE, span / _MOST_POINTS)))
    if found >= FINE_BELOW or min(sigma for (_, sigma, _), _ in settings) < FINE_FROM:
        return found
    return min(found, _composed_epsilon(settings, delta, max(FINE, span / _MOST_POINTS)))


def _composed_epsilon(settings: tuple[tuple[GroupStep, int], ...], delta: float, grid: float) -> float:
    parts = [(losses_of_group_step(*step, grid), times) for step, times in settings]
    if sum(part.removed.size_of(times) for part, times in parts) > _MOST_COMPOSED:
        return math.inf
    return pld_epsilon(reduce(lambda a, b: a.composed(b), [part.repeated(n) for part, n in parts]), delta)


def _check_setting(rate: float, multiplier: float, steps: int, sites: int) -> None:
    if not (0 < rate <= 1 and 0 < multiplier < math.inf and steps >= 0 and sites >= 1):
        raise ConfigError(
            f"no noised sum has rate {rate}, multiplier {multiplier}, {steps} steps and {sites} sites",
            hint="a rate above 0 and up to 1, a positive multiplier, steps from 0, sites from 1",
        )
