"""Quorum noise: how a clipped sum becomes noised elements of the ring, by public constants.

Every site clamps each coordinate, rounds it to whole units, adds a discrete Gaussian of ``2**log2_sigma`` units and wraps
modulo 2**32, in this order. Two inequalities hold for what may be signed:

    no wrap    ``sites * clamp + 9 * sqrt(sites) * 2**log2_sigma < 2**31``
    privacy    ``S <= sqrt(4**log2_sigma - 16) / multiplier``,  S = ``rounded_sensitivity``

Guarantee: the sum of ``h`` honest shares then loses no more than a Gaussian mechanism of multiplier ``sqrt(h) * multiplier``
(one share alone: ``multiplier``), sampled or not, but for ``with_slack``: a sum of discrete Gaussians is up to a factor
``exp(1e-100 * length)`` a randomized rounding, of width 4, of a Gaussian of variance ``h * 4**log2_sigma - 16``, and that is
at least ``h`` times ``4**log2_sigma - 16``.
Source: Kairouz, Liu and Steinke 2021, "The distributed discrete Gaussian mechanism"; docs/adr has the proof sketch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import BadInputError, ConfigError, VerificationError
from common.trust.randomness import RandomStream

LEAST_LOG2_SIGMA, MOST_LOG2_SIGMA = 8, 20
MOST_NUMBERS = 1 << 27  # sites * length of one sum, for which the slack below is claimed

# Each noise number is within exp(2**-49) of an exact discrete Gaussian, so both of two neighbouring laws are within
# exp(h * d * 2**-49) of the ideal one, and 2 * h * d * 2**-49 <= 2**-21 is lost.
SLACK_PER_STEP = 2.0**-21
# exp(-7.5**2 / 2) < 6.2e-13 for a rounding that moves neighbours further apart than ``rounded_sensitivity``; the rest is
# for numbers beyond 12 deviations, which are never drawn: see ``delta_per_step``.
DELTA_PER_STEP = 1e-12

_SUM_ERROR = 1.001  # of clipped contributions added in float32: 2.4e-5 was the largest seen
_ROUNDING_ODDS = 7.5  # sqrt(2 * log(1 / 6.2e-13))
_WRAP_DEVIATIONS = 9.0  # of the noise of all sites: beyond with probability 1e-19 a coordinate; costs utility only
_MOST_LOOSE = 0.05  # of the noise that may go into the rounding
_REACH = 12.0  # deviations to which noise is drawn
_BLOCK = 1 << 14  # coordinates: every intermediate stays in the cache
_HINT = "use fewer coordinates, fewer sites, less noise or a smaller limit"


@dataclass(frozen=True)
class NoisedGrid:
    """The public constants. Units: ``unit`` = real value of one ring unit; ``clamp`` = the largest absolute integer of a
    coordinate before noise; the noise of one site has a standard deviation of ``2**log2_sigma`` ring units.
    """

    unit: float
    log2_sigma: int
    clamp: int


def noised_grid(*, sites: int, length: int, sensitivity: float, limit: float, multiplier: float) -> NoisedGrid:
    """The finest grid on which ``sites`` noised vectors do not wrap and one site's noise alone is worth ``multiplier``.

    Units: ``sensitivity``: L2, what one consumer moves the clipped sum of a site by; ``limit``: largest absolute value of a
    coordinate of that sum which is kept; both real. ``multiplier``: standard deviation of one site's noise over the
    sensitivity after rounding.
    Raises: ConfigError if a number is impossible, no grid fits, or rounding costs more than 5 % of the noise.
    """
    _check_numbers(sites, length, sensitivity=sensitivity, limit=limit, multiplier=multiplier)
    for log2_sigma in range(MOST_LOG2_SIGMA, LEAST_LOG2_SIGMA - 1, -1):
        room = _allowed(log2_sigma, multiplier)
        units = _sensitivity_that_fits(room, length)
        if room > (1 + _MOST_LOOSE) * units:
            raise ConfigError(
                f"rounding {length} coordinates to whole units costs more than 5 % of the noise: "
                f"multiplier {multiplier:g}, {2**log2_sigma} units of noise, sensitivity {max(units, 0.0):.4g} units",
                hint=_HINT,
            )
        unit = _SUM_ERROR * sensitivity / units
        grid = NoisedGrid(unit, log2_sigma, math.ceil(limit / unit))
        if not _wraps(grid, sites):
            return grid
    raise ConfigError(
        f"{sites} sites with coordinates up to {limit:g} wrap in 32 bits at sensitivity {sensitivity:g} and "
        f"multiplier {multiplier:g}, even with {2**LEAST_LOG2_SIGMA} units of noise",
        hint=_HINT,
    )


def rounded_sensitivity(grid: NoisedGrid, sensitivity: float, length: int) -> float:
    """How far one consumer moves the rounded sum, L2 in ring units, but for a probability of 6.2e-13.

    One draw rounds both neighbours, so it rounds their difference: up or down, unbiased, each coordinate on its own.
    Always below ``A + sqrt(length)``; and its square is a sum of ``length`` independent numbers of mean at most
    ``A**2 + length / 4``, whose ranges Hoeffding's inequality bounds.
    """
    return _rounded(_SUM_ERROR * sensitivity / grid.unit, length)


def check_grid(grid: NoisedGrid, *, sites: int, length: int, sensitivity: float, multiplier: float) -> None:
    """Return if what the grid says holds: privacy as claimed, and no sum that wraps.

    For a grid that somebody else chose: a site asks before it signs, an auditor afterwards.
    Raises: VerificationError naming the inequality and both of its sides; ConfigError for numbers that are impossible.
    """
    _check_numbers(sites, length, sensitivity=sensitivity, limit=1.0, multiplier=multiplier)
    if not LEAST_LOG2_SIGMA <= grid.log2_sigma <= MOST_LOG2_SIGMA:
        raise VerificationError(f"noise of 2**{grid.log2_sigma} units is outside 2**8 to 2**20")
    if not (math.isfinite(grid.unit) and grid.unit > 0 and grid.clamp >= 1):
        raise VerificationError(f"a grid of unit {grid.unit} and clamp {grid.clamp} holds nothing")
    moved, allowed = rounded_sensitivity(grid, sensitivity, length), _allowed(grid.log2_sigma, multiplier)
    if not moved <= allowed:
        raise VerificationError(
            f"noise is too small: one consumer moves {length} coordinates by up to {moved:.6g} units, "
            f"multiplier {multiplier:g} allows {allowed:.6g}",
            hint="the grid does not belong to this sensitivity and multiplier: ask for a plan that does",
        )
    if _wraps(grid, sites):
        raise VerificationError(
            f"the sum of {sites} sites can wrap: clamp {grid.clamp}, noise 2**{grid.log2_sigma} units", hint=_HINT
        )


def to_ring(
    values: NDArray[np.float64] | NDArray[np.float32],
    grid: NoisedGrid,
    stream: RandomStream,
    noise: NDArray[np.int64],
) -> NDArray[np.uint32]:
    """Clamp, round with draws of the stream, add the noise, wrap: in this order, as nothing may act on noise.

    Shapes: ``values: float[d]``, real; ``noise: int64[d]``, ring units; result: ``uint32[d]``.
    Raises: BadInputError for a value that is not finite, or noise of another shape.
    """
    if values.ndim != 1 or noise.shape != values.shape or noise.dtype != np.int64:
        raise BadInputError(f"noise is {noise.dtype}{list(noise.shape)} for values of shape {list(values.shape)}")
    ring = np.empty(values.size, dtype=np.uint32)
    for start in range(0, values.size, _BLOCK):
        piece = slice(start, start + _BLOCK)
        scaled = np.multiply(values[piece], 1 / grid.unit, dtype=np.float64)
        if not np.isfinite(scaled).all():
            raise BadInputError(
                "vector holds a value that is not finite", hint="look for a diverged training step"
            )
        np.clip(scaled, -grid.clamp, grid.clamp, out=scaled)
        noised = stream.stochastic_round(scaled)
        noised += noise[piece]
        ring[piece] = noised  # modulo 2**32
    return ring


def from_ring(ring_sum: NDArray[np.uint32], grid: NoisedGrid) -> NDArray[np.float64]:
    """The noised sum of the sites' vectors as real numbers. Shapes: ``uint32[d]`` -> ``float64[d]``."""
    values = ring_sum.view(np.int32).astype(np.float64)
    values *= grid.unit
    return values


def delta_per_step(multiplier: float, sites: int = 1) -> float:
    """What one sum adds to delta where its noise is worth ``multiplier`` and a consumer is known at so many ``sites``.

    ``DELTA_PER_STEP`` while the consumer moves the sum by at most 4 deviations of its noise. Beyond, an outcome near the end
    of the table (12 deviations of a share) betrays him with a probability that counts: with reach R it is below
    ``R**2 * Q(12 - R)``, as at most R**2 coordinates move by more than one deviation; the others: 2**28 * Q(11) < 1e-19.
    Each of his sites rounds on its own, and each may move him further than ``rounded_sensitivity``.
    """
    reach = sites / multiplier
    tail = reach**2 * 0.5 * math.erfc((_REACH - reach) / math.sqrt(2)) + 1e-19
    return min(1.0, max(DELTA_PER_STEP, sites * math.exp(-(_ROUNDING_ODDS**2) / 2) + 1.001 * tail))


def with_slack(delta: float, steps: int, multiplier: float, sites: int = 1) -> tuple[float, float]:
    """How to read the account of ``steps`` ideal Gaussian sums: what to add to its epsilon, and the delta to read it at.

    ``multiplier``: the smallest of the sums. Where noise is within ``exp(eta)`` of the ideal, ``epsilon + 2 * eta`` holds at
    ``exp(eta) * delta``: so delta is less by this factor too, with ``2 * eta = steps * SLACK_PER_STEP``.
    Guarantee: a delta of 0 or less never results: then nothing is left to claim, and epsilon is infinite.
    """
    more = steps * SLACK_PER_STEP
    left = (delta - steps * delta_per_step(multiplier, sites)) * math.exp(-more / 2)
    return (more, left) if left > 0 else (math.inf, delta)


def _allowed(log2_sigma: int, multiplier: float) -> float:
    return math.sqrt(4**log2_sigma - 16) / multiplier


def _rounded(units: float, length: int) -> float:
    root = math.sqrt(length)
    likely = math.sqrt(units**2 + length / 4 + _ROUNDING_ODDS * (units + root / 2))
    return min(units + root, likely)


def _sensitivity_that_fits(room: float, length: int) -> float:
    """The largest sensitivity in units, before rounding, that is at most ``room`` after it; negative if there is none."""
    root, half = math.sqrt(length), _ROUNDING_ODDS / 2
    square = room**2 + half**2 - length / 4 - half * root
    units = max(room - root, math.sqrt(square) - half if square > 0 else -math.inf)
    return units * (1 - 1e-12)  # more than these formulas can be off by


def _wraps(grid: NoisedGrid, sites: int) -> bool:
    noise: float = _WRAP_DEVIATIONS * math.sqrt(sites) * math.ldexp(1.0, grid.log2_sigma)
    return sites * grid.clamp + noise >= 2**31


def _check_numbers(sites: int, length: int, **positive: float) -> None:
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} must be a positive number, got {value}", hint="see the plan of the run")
    if sites < 1 or length < 1:
        raise ConfigError(f"need at least one site and one coordinate, got {sites} and {length}")
    if sites * length > MOST_NUMBERS:
        raise ConfigError(
            f"{sites} sites times {length} coordinates are above {MOST_NUMBERS}, for which the account of quorum noise holds",
            hint="use a smaller model or fewer sites",
        )


def carried_multiplier(grid: NoisedGrid, sensitivity: float, length: int) -> float:
    """What one site's noise on this grid alone is worth: the largest multiplier for which ``check_grid`` returns."""
    return math.sqrt(4**grid.log2_sigma - 16) / rounded_sensitivity(grid, sensitivity, length)
