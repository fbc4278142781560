"""What the sum of shares of quorum noise loses, from the exact table: never more than the Gaussian it is accounted as."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest

from client.training.discrete_gaussian import bell_height, table_of
from common.privacy.noised_grid import (
    DELTA_PER_STEP,
    SLACK_PER_STEP,
    check_grid,
    noised_grid,
    rounded_sensitivity,
)
from common.privacy.sampled_loss import divergences

LOG2_SIGMA = 8
EPSILONS = np.array([0.0, 0.1, 0.3, 0.7, 1.0, 1.5, 2.0, 3.0, 4.5])
ROUNDING = 1e-12  # relative, of the sums below: all terms are positive


def share(sigma: float | None = None) -> np.ndarray:
    """Probabilities of one share: of the table, or planted: of an exact discrete Gaussian that is too small."""
    reach = 12 << LOG2_SIGMA
    numbers = np.arange(-reach, reach)
    if sigma is not None:
        exact = np.exp(-(numbers**2) / (2 * sigma**2))
        return exact / exact.sum()
    step = (numbers >> (LOG2_SIGMA - 7)) + 1536
    table = table_of(LOG2_SIGMA)
    found = np.array(table.weights, dtype=np.float64)[step] * bell_height(table, numbers, step)
    return found / found.sum()


def lost(one: np.ndarray, shift: int, rate: float, epsilons: np.ndarray, *, removing: bool) -> np.ndarray:
    """Hockey-stick divergence of a sum with or without one consumer, sampled at a rate: computed outcome by outcome."""
    without = np.concatenate([one, np.zeros(shift)])
    sampled = (1 - rate) * without + rate * np.concatenate([np.zeros(shift), one])
    above, below = (sampled, without) if removing else (without, sampled)
    return np.array([np.maximum(above - math.exp(e) * below, 0.0).sum() for e in epsilons])


def claimed(rate: float, multiplier: float, epsilons: np.ndarray, *, removing: bool) -> np.ndarray:
    """What the account says at these epsilons, slack included."""
    ideal = divergences(rate, multiplier, np.maximum(epsilons - SLACK_PER_STEP, 0.0), removing=removing)
    return ideal * math.exp(SLACK_PER_STEP / 2) + DELTA_PER_STEP


def worst_excess(one: np.ndarray, shift: int, multiplier: float, rate: float) -> float:
    """Largest quotient of what is lost and what is claimed."""
    quotients = [
        lost(one, shift, rate, EPSILONS, removing=removing)
        / claimed(rate, multiplier, EPSILONS, removing=removing)
        for removing in (True, False)
    ]
    return float(np.max(quotients))


def grid_and_shift(multiplier: float) -> tuple[int, float]:
    """The furthest whole move of one coordinate that a grid with the smallest noise allows."""
    limit = 4.5e8 / 256 * multiplier
    grid = noised_grid(sites=4, length=1, sensitivity=1.0, limit=limit, multiplier=multiplier)
    assert grid.log2_sigma == LOG2_SIGMA
    check_grid(grid, sites=4, length=1, sensitivity=1.0, multiplier=multiplier)
    return math.floor(rounded_sensitivity(grid, 1.0, 1)), 1.0 / grid.unit


@pytest.mark.parametrize("rate", [0.2, 1.0])
@pytest.mark.parametrize("honest", [1, 4])
@pytest.mark.parametrize("multiplier", [0.5, 0.72, 1.5, 3.8])
def test_shares_lose_no_more_than_the_gaussian_of_the_account(multiplier, honest, rate):
    shift, units = grid_and_shift(multiplier)
    total = reduce(np.convolve, [share()] * honest)
    exact = math.sqrt(honest) * multiplier
    assert worst_excess(total, shift, exact, rate) <= 1 + ROUNDING
    # planted: noise that is 2 % too small; a move counted before rounding and single precision; a share more than there is
    small = reduce(np.convolve, [share(0.98 * 2**LOG2_SIGMA)] * honest)
    assert worst_excess(small, shift, exact, rate) > 1.005
    bare = math.sqrt(honest * (4**LOG2_SIGMA - 16)) / units
    assert worst_excess(total, shift, bare, rate) > 1 + 1e-4
    assert worst_excess(total, shift, math.sqrt(honest + 1) * multiplier, rate) > 1.01


@pytest.mark.parametrize("removing", [True, False])
def test_a_move_of_two_coordinates_loses_no_more_than_one_as_long(removing):
    rate, shift, one = 0.2, 150, share()
    multiplier = math.sqrt(4**LOG2_SIGMA - 16) / math.hypot(shift, shift)
    inside = slice((12 - 7) << LOG2_SIGMA, (12 + 7) << LOG2_SIGMA)  # less than 1e-9 lies outside
    x, shifted = one[inside], np.roll(one, shift)[inside]
    epsilons = np.array([0.1, 0.5, 1.0] if removing else [0.02, 0.1, 0.18])
    found = np.zeros(len(epsilons))
    for rows in np.array_split(np.arange(x.size), 16):
        without = np.outer(x[rows], x)
        sampled = (1 - rate) * without + rate * np.outer(shifted[rows], shifted)
        above, below = (sampled, without) if removing else (without, sampled)
        found += [np.maximum(above - math.exp(e) * below, 0.0).sum() for e in epsilons]
    ideal = claimed(rate, multiplier, epsilons, removing=removing)
    assert (found + 1e-9 <= ideal).all()
    assert (
        found >= 0.99 * divergences(rate, multiplier, epsilons, removing=removing)
    ).all()  # and little is wasted
