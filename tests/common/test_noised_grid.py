"""Quorum noise on a grid: what rounding moves, what is refused, and that nothing acts on noise."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

from common.errors import BadInputError, ConfigError, VerificationError
from common.privacy.noised_grid import (
    DELTA_PER_STEP,
    SLACK_PER_STEP,
    NoisedGrid,
    check_grid,
    delta_per_step,
    from_ring,
    noised_grid,
    rounded_sensitivity,
    to_ring,
    with_slack,
)
from common.trust.randomness import PrivateStream, SeededStream

SETTINGS = [  # sites, length, multiplier, limit over sensitivity
    (1, 1, 1.0, 1.0),
    (3, 10, 7.63, 50.0),
    (8, 75_000, 0.72, 50.0),
    (8, 678_000, 5.0, 50.0),
    (8, 678_000, 0.35, 5_000.0),
    (100, 678_000, 0.0875, 50.0),
    (100, 75_000, 1.25, 5_000.0),
]


def odds_beyond(difference: np.ndarray, limit: float) -> float:
    """Exact probability that a difference, rounded up or down without bias, is longer than the limit."""
    spread = np.ones(1)  # of the squared length
    for value in difference:
        down = math.floor(value)
        up = value - down
        lengths = {down**2: 1 - up}
        lengths[(down + 1) ** 2] = lengths.get((down + 1) ** 2, 0.0) + up
        more = np.zeros(max(lengths) + 1)
        more[list(lengths)] = list(lengths.values())
        spread = np.convolve(spread, more)
    return float(spread[math.floor(limit**2) + 1 :].sum())


def differences() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    found = [np.full(d, f) for d in (1, 2, 7, 40, 200) for f in (1e-6, 0.02, 0.3, 0.5, 0.97, 1.0)]
    found += [np.concatenate([[5.5], np.full(d, f)]) for d in (1, 30, 150) for f in (0.01, 0.1, 0.5)]
    found += [rng.normal(0, s, d) for s in (0.01, 0.3, 1.0, 4.0) for d in (1, 3, 20, 100)]
    return found


def unit_grid(units: float) -> NoisedGrid:
    return NoisedGrid(unit=1.001 / units, log2_sigma=20, clamp=1)


@pytest.mark.parametrize("difference", differences(), ids=lambda v: f"{v.size}x{v[-1]:.2g}")
def test_rounding_moves_neighbours_no_further_than_stated(difference):
    moved = float(np.linalg.norm(difference))
    limit = rounded_sensitivity(unit_grid(moved), 1.0, difference.size)
    assert odds_beyond(difference, limit * (1 + 1e-12)) <= 6.2e-13


@pytest.mark.parametrize("length", [1_000, 75_000, 678_000])
@pytest.mark.parametrize("units", [30.0, 1e3, 1e6])
def test_rounding_of_long_vectors_too(length, units):
    for even in (
        units / math.sqrt(length),
        0.5,
        0.02,
    ):  # the rest of the sensitivity in one coordinate, in whole units
        if even**2 * length > units**2:
            continue
        down, up = math.floor(even), even - math.floor(even)
        whole = math.floor(math.sqrt(max(0.0, units**2 - even**2 * length)))
        limit = rounded_sensitivity(unit_grid(units), 1.0, length + 1)
        ups = (limit**2 - whole**2 - length * down**2) / (2 * down + 1)
        assert stats.binom.sf(math.floor(ups), length, up) <= 6.2e-13


def test_without_slack_for_rounding_the_distance_would_be_passed():
    difference = np.full(40, 0.3)
    assert odds_beyond(difference, float(np.linalg.norm(difference))) > 0.9
    assert odds_beyond(difference, math.sqrt(float(difference @ difference) + 10)) > 1e-3  # the mean alone


def test_one_draw_rounds_the_difference_of_neighbours():
    rng = np.random.default_rng(1)
    values, change = rng.normal(0, 50, 4_000), rng.normal(0, 2, 4_000)
    limit = rounded_sensitivity(unit_grid(float(np.linalg.norm(change))), 1.0, 4_000)
    for seed in range(50):
        moved = SeededStream(seed).stochastic_round(values + change) - SeededStream(seed).stochastic_round(values)
        assert ((moved == np.floor(change)) | (moved == np.ceil(change))).all()
        assert np.linalg.norm(moved) <= limit


@pytest.mark.parametrize(("sites", "length", "multiplier", "limit"), SETTINGS)
def test_the_grid_meets_both_inequalities_and_is_the_finest(sites, length, multiplier, limit):
    grid = noised_grid(sites=sites, length=length, sensitivity=0.3, limit=0.3 * limit, multiplier=multiplier)
    check_grid(grid, sites=sites, length=length, sensitivity=0.3, multiplier=multiplier)
    moved = rounded_sensitivity(grid, 0.3, length)
    assert math.sqrt(4**grid.log2_sigma - 16) / moved == pytest.approx(multiplier, rel=1e-9)  # no noise wasted
    assert moved <= 1.05 * 1.001 * 0.3 / grid.unit
    assert grid.clamp * grid.unit >= 0.3 * limit > (grid.clamp - 1) * grid.unit
    finer = NoisedGrid(grid.unit / 2, grid.log2_sigma + 1, 2 * grid.clamp - 1)
    assert grid.log2_sigma == 20 or sites * finer.clamp + 9 * math.sqrt(sites) * 2**finer.log2_sigma >= 2**31


@pytest.mark.parametrize(("sites", "length", "multiplier", "limit"), SETTINGS)
def test_a_grid_with_less_noise_than_claimed_is_refused(sites, length, multiplier, limit):
    grid = noised_grid(sites=sites, length=length, sensitivity=0.3, limit=0.3 * limit, multiplier=multiplier)
    numbers = {"sites": sites, "length": length, "sensitivity": 0.3, "multiplier": multiplier}
    for change in (
        {"multiplier": 1.02 * multiplier},
        {"sensitivity": 0.3 * 1.02},
        {"grid": replace(grid, unit=grid.unit / 1.001)},  # no slack for sums in single precision
        {"grid": replace(grid, log2_sigma=grid.log2_sigma - 1)},
    ):
        wrong = {"grid": grid, **numbers, **change}
        with pytest.raises(VerificationError, match=r"too small|outside"):
            check_grid(**wrong)


def test_a_grid_whose_only_fault_is_the_slack_of_rounding_is_refused():
    units, length = 1_000.0, 75_000
    grid = NoisedGrid(1.001 / units, 12, 10_000)
    bare = math.sqrt(4**12 - 16) / units
    with pytest.raises(VerificationError, match="too small"):
        check_grid(grid, sites=4, length=length, sensitivity=1.0, multiplier=bare)
    check_grid(grid, sites=4, length=length, sensitivity=1.0, multiplier=bare / 1.02)


def test_a_grid_that_can_wrap_or_holds_nothing_is_refused():
    grid = noised_grid(sites=8, length=1_000, sensitivity=1.0, limit=50.0, multiplier=0.72)
    numbers = {"sites": 8, "length": 1_000, "sensitivity": 1.0, "multiplier": 0.72}
    with pytest.raises(VerificationError, match="can wrap"):
        check_grid(replace(grid, clamp=2**28), **numbers)
    with pytest.raises(VerificationError, match="can wrap"):
        check_grid(grid, **{**numbers, "sites": 50})
    for wrong in ({"unit": 0.0}, {"unit": math.nan}, {"unit": math.inf}, {"clamp": 0}, {"clamp": -5}):
        with pytest.raises(VerificationError, match="holds nothing"):
            check_grid(replace(grid, **wrong), **numbers)
    for log2_sigma in (-1, 7, 21):
        with pytest.raises(VerificationError, match="outside"):
            check_grid(replace(grid, log2_sigma=log2_sigma), **numbers)


GOOD = {"sites": 8, "length": 1_000, "sensitivity": 1.0, "limit": 50.0, "multiplier": 1.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": 1e7}, "wrap in 32 bits"),
        ({"limit": 1e5, "length": 678_000, "multiplier": 3.0}, "costs more than 5 %"),
        ({"length": 678_000, "multiplier": 1e9}, "costs more than 5 %"),
        ({"sites": 1_000, "length": 678_000}, "account of quorum noise"),
        *[
            ({name: bad}, name)
            for name, bad in product(["sensitivity", "limit", "multiplier"], [0.0, -1.0, math.nan])
        ],
        ({"multiplier": math.inf}, "multiplier"),
        ({"sites": 0}, "at least one"),
        ({"length": 0}, "at least one"),
    ],
)
def test_what_no_grid_can_hold_is_refused_by_name(change, words):
    with pytest.raises(ConfigError, match=words):
        noised_grid(**{**GOOD, **change})


def test_nothing_acts_on_noise():
    grid = NoisedGrid(unit=0.5, log2_sigma=8, clamp=100)
    values = np.array([0.0, 50.0, 49.0, -1e30, 1e30, 3.0])
    noise = np.array([2**31 - 1, 5_000, -(2**31), -777_777, 12 * 2**20, 2**40], dtype=np.int64)
    ring = to_ring(values, grid, PrivateStream(), noise)
    assert ring.dtype == np.uint32
    whole = np.array([0, 100, 98, -100, 100, 6]) + noise  # clamped, then noised, never the other way round
    assert ring.tolist() == [int(w) % 2**32 for w in whole]


def test_a_sum_is_the_clamped_values_and_all_of_the_noise():
    rng = np.random.default_rng(3)
    grid = noised_grid(sites=5, length=40_000, sensitivity=1.0, limit=20.0, multiplier=1.0)
    values = rng.normal(0, 8, (5, 40_000))
    noise = np.round(rng.normal(0, 2**grid.log2_sigma, (5, 40_000))).astype(np.int64)
    rings = [to_ring(v, grid, PrivateStream(), n) for v, n in zip(values, noise, strict=True)]
    found = from_ring(np.sum(rings, axis=0, dtype=np.uint32), grid)
    wanted = (np.clip(values, -20, 20) + noise * grid.unit).sum(axis=0)
    assert (
        np.abs(found - wanted).max() <= 5 * 2 * grid.unit
    )  # rounded up or down, and the clamp by less than one unit


def test_rounding_keeps_the_mean():
    grid = NoisedGrid(unit=1.0, log2_sigma=8, clamp=1_000)
    ring = to_ring(
        np.full(400_000, 0.3, dtype=np.float32), grid, PrivateStream(), np.zeros(400_000, dtype=np.int64)
    )
    assert set(ring.tolist()) == {0, 1}
    assert abs(ring.mean() - 0.3) < 4.9 * math.sqrt(0.21 / ring.size)  # alarm at 1e-6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_vector_that_is_not_finite_is_refused(bad):
    values = np.zeros(20_000)
    values[17_000] = bad
    with pytest.raises(BadInputError, match="not finite"):
        to_ring(values, NoisedGrid(1.0, 8, 10), PrivateStream(), np.zeros(20_000, dtype=np.int64))


def test_noise_of_another_shape_or_type_is_refused():
    for noise in (np.zeros(1, dtype=np.int64), np.zeros(3), np.zeros((3, 1), dtype=np.int64)):
        with pytest.raises(BadInputError, match="noise is"):
            to_ring(np.zeros(3), NoisedGrid(1.0, 8, 10), PrivateStream(), noise)


def test_slack_covers_every_number_of_a_sum():
    assert SLACK_PER_STEP >= 2 * 2**27 * 2.0**-49
    assert math.exp(-(7.5**2) / 2) + 2**28 * stats.norm.sf(11) < DELTA_PER_STEP
    more, left = with_slack(1e-5, 100, 1.0)
    assert more == 100 * 2.0**-21
    assert left == pytest.approx((1e-5 - 1e-10) * math.exp(-50 * 2.0**-21), rel=1e-12)
    assert with_slack(1e-10, 100, 1.0)[0] == math.inf  # nothing left to claim


@pytest.mark.parametrize("multiplier", [0.1, 0.12, 0.18, 0.25, 0.3, 1.0])
def test_a_consumer_who_moves_a_share_far_pays_for_the_end_of_the_table(multiplier):
    for parts in (1, 2, 5, 20, 400):  # his move in so many equal coordinates
        betrayed = parts * stats.norm.sf(12 - 1 / multiplier / math.sqrt(parts))
        assert delta_per_step(multiplier) >= min(1.0, math.exp(-(7.5**2) / 2) + betrayed)
    assert delta_per_step(1.0) == delta_per_step(0.25) == DELTA_PER_STEP
    assert delta_per_step(0.25, sites=8) == 1.0
    assert delta_per_step(8.0, sites=8) > 4.8e-12  # each of eight roundings can go wrong
