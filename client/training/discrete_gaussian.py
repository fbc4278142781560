"""Discrete Gaussian noise by an integer table: whole numbers k with probability proportional to exp(-k**2 / (2 sigma**2)).

A number is drawn from a staircase above the bell: a step of width sigma / 128 by Walker's alias method on integer weights,
a place on the step by random bits; it is kept with probability bell / staircase, about .997. Everything but that quotient,
one exponential and one product in double precision, is exact: no probability depends on how a logarithm is rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from common.privacy.noised_grid import LEAST_LOG2_SIGMA, MOST_LOG2_SIGMA
from common.trust.randomness import RandomStream

REACH = 12  # deviations to either side that are drawn

_STEPS_LOG2 = 7  # steps of the staircase in one deviation
_HALF = REACH << _STEPS_LOG2  # steps on either side of zero
_COLUMNS_LOG2 = 12  # of the alias table: at least the steps, and one more for what is never kept
_REST_LOG2 = 64 - _COLUMNS_LOG2
_HEIGHT_LOG2 = 51  # bits of the first comparison: what a word has left beside the place on the widest step
_BLOCK = 1 << 15  # numbers: every intermediate stays in the cache

_COLUMN_SHIFT = np.uint64(_REST_LOG2)
_REST = np.uint64((1 << _REST_LOG2) - 1)
_HEIGHT_SHIFT = np.uint64(64 - _HEIGHT_LOG2)
_FRACTION_SHIFT = np.uint64(11)  # leaves the 53 bits of a double


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """The staircase of one sigma. ``weights``: integers, out of 2**64, of the steps from the lowest.

    Shapes: ``threshold: uint64[C]``, ``alias: int64[C]``: a column is itself below its threshold, else its alias.
    ``sure: uint64[C]``: heights, of 51 bits, that lie under the bell wherever on the step. ``bell: float64[C]``: height of
    exp(-k**2 / (2 sigma**2)) on a step is this times it; 0 where nothing is kept.
    """

    log2_sigma: int
    weights: tuple[int, ...]
    threshold: NDArray[np.uint64]
    alias: NDArray[np.int64]
    sure: NDArray[np.uint64]
    bell: NDArray[np.float64]


def draw(stream: RandomStream, log2_sigma: int, size: int) -> NDArray[np.int64]:
    """Draw independent discrete Gaussians of ``sigma = 2**log2_sigma``, 8 to 20. Shapes: result: ``int64[size]``.

    Guarantee: for every k from -12 sigma to below 12 sigma the probability is within a factor exp(2**-49) of the exact one,
    given an ``exp`` of numpy that errs by at most 2 units in the last place; nothing else is drawn. The exact mass out there
    is below exp(-72): it adds to delta, as ``common.privacy.noised_grid.delta_per_step`` says. Numbers of a stream that is not
    private can be guessed, and nothing may be claimed for them.
    Raises: ConfigError for another sigma.
    Source: Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy"; Walker 1977 for the alias.
    """
    if not LEAST_LOG2_SIGMA <= log2_sigma <= MOST_LOG2_SIGMA:
        raise ConfigError(
            f"noise of 2**{log2_sigma} units is outside 2**{LEAST_LOG2_SIGMA} to 2**{MOST_LOG2_SIGMA}",
            hint="choose the grid with common.privacy.noised_grid",
        )
    table = table_of(log2_sigma)
    numbers = np.empty(size, dtype=np.int64)
    for start in range(0, size, _BLOCK):
        _fill(table, stream, numbers[start : start + _BLOCK])
    return numbers


@lru_cache(maxsize=MOST_LOG2_SIGMA - LEAST_LOG2_SIGMA + 1)
def table_of(log2_sigma: int) -> Table:
    """The table of ``sigma = 2**log2_sigma``: public, the same everywhere."""
    tops, ends = _bell_at_steps(log2_sigma)
    columns, full = 1 << _COLUMNS_LOG2, 1 << 64
    # rounded up, and one more: above the bell whatever the last place of a logarithm or product
    scale = (full - 4 * len(tops) - columns) / math.fsum(tops) * (1 - 2.0**-40)
    weights = [math.ceil(top * scale * (1 + 2.0**-50)) + 1 for top in tops]
    rest = full - sum(weights)  # falls on a step where nothing is kept
    threshold, alias = _aliased([*weights, rest, *[0] * (columns - len(weights) - 1)])
    bell, sure = np.zeros(columns), np.zeros(columns)
    bell[: len(weights)] = [math.ldexp(scale / weight, _HEIGHT_LOG2) for weight in weights]
    sure[: len(weights)] = np.array(ends) * bell[: len(weights)] * (1 - 1e-12)  # a shortcut: less is slower only
    return Table(log2_sigma, tuple(weights), threshold, alias, np.floor(sure).astype(np.uint64), bell)


def _fill(table: Table, stream: RandomStream, numbers: NDArray[np.int64]) -> None:
    rejected = _candidates(table, stream, numbers)
    while rejected.size:
        again = np.empty(rejected.size, dtype=np.int64)
        still = _candidates(table, stream, again)
        numbers[rejected] = again
        rejected = rejected[still]


def _candidates(table: Table, stream: RandomStream, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Overwrite numbers with points under the staircase; the places of those that lie above the bell."""
    words = stream.words(numbers.size)
    column = (words >> _COLUMN_SHIFT).astype(np.int64)
    words &= _REST
    step = np.where(words < table.threshold[column], column, table.alias[column])
    words = stream.words(numbers.size)
    width_log2 = table.log2_sigma - _STEPS_LOG2
    np.subtract(step, _HALF, out=numbers)
    numbers <<= width_log2
    numbers += (words & np.uint64((1 << width_log2) - 1)).view(np.int64)
    height = words >> _HEIGHT_SHIFT
    unsure = np.flatnonzero(height >= table.sure[step])
    kept = _under_the_bell(table, stream, numbers[unsure], step[unsure], height[unsure])
    return unsure[~kept]


def _under_the_bell(
    table: Table,
    stream: RandomStream,
    numbers: NDArray[np.int64],
    step: NDArray[np.int64],
    height: NDArray[np.uint64],
) -> NDArray[np.bool_]:
    """Whether a uniform height lies below the bell: exactly, with 53 bits more where the first 51 tie."""
    bell = bell_height(table, numbers, step)
    whole = np.floor(bell)
    first = height.astype(np.float64)
    more = (stream.words(numbers.size) >> _FRACTION_SHIFT).astype(np.float64)
    more *= 2.0**-53
    kept: NDArray[np.bool_] = (first < whole) | ((first == whole) & (more < bell - whole))
    return kept


def bell_height(table: Table, numbers: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[np.float64]:
    """The bell above each number, in parts of 2**-51 of the step: the one inexact operation. Square and quotient are exact."""
    squares = numbers.astype(np.float64)
    squares *= squares
    squares *= -math.ldexp(0.5, -2 * table.log2_sigma)
    heights = np.exp(squares, out=squares)
    heights *= table.bell[step]
    return heights


def _bell_at_steps(log2_sigma: int) -> tuple[list[float], list[float]]:
    """The bell at the end of each step that is nearest to zero, and at the other."""
    width = 1 << (log2_sigma - _STEPS_LOG2)
    lowest = [step * width for step in range(-_HALF, _HALF)]
    ends = [(first, first + width - 1) for first in lowest]
    near, far = [min(pair, key=abs) for pair in ends], [max(pair, key=abs) for pair in ends]
    variance2 = 2 * 4**log2_sigma
    return [math.exp(-(x * x) / variance2) for x in near], [math.exp(-(x * x) / variance2) for x in far]


def _aliased(weights: list[int]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Columns of equal weight, each of at most two parts: exact, in integers."""
    column = 1 << _REST_LOG2
    threshold, alias, left = [column] * len(weights), list(range(len(weights))), list(weights)
    small = [i for i, weight in enumerate(left) if weight < column]
    large = [i for i, weight in enumerate(left) if weight >= column]
    while small:
        taker, giver = small.pop(), large[-1]
        threshold[taker], alias[taker] = left[taker], giver
        left[giver] -= column - left[taker]
        if left[giver] < column:
            small.append(large.pop())
    return np.array(threshold, dtype=np.uint64), np.array(alias, dtype=np.int64)
