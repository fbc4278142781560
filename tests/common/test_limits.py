"""Limits are kept by item; a loop over coordinates finds the same."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.contribution import UPDATE
from common.limits import ItemCoordinates, UpdateLimits, added_up, mean_update
from common.run import RunPlan, build_config
from common.tasks import TAIL

SITES = {"a": 1_000, "b": 500, "c": 250}
SIZE, ITEMS = 60, 7


def plan() -> RunPlan:
    settings = build_config({}, ["aggregation.weights=population", "aggregation.min_stockists=1"]).public_json()
    return RunPlan("run", settings, tuple(SITES.items()), "{}", SIZE, 1.3, 5.0)


def rows(seed: int) -> ItemCoordinates:
    rng = np.random.default_rng(seed)
    item = rng.integers(-1, ITEMS, SIZE).astype(np.int32)
    item[:2] = (-1, ITEMS - 1)
    return ItemCoordinates(item, {site: rng.random(ITEMS) < 0.7 for site in SITES})


def sites_of(one: int, here: ItemCoordinates) -> list[str]:
    item = here.item_of[one]
    return [site for site in SITES if item < 0 or here.masks[site][item]]


@pytest.mark.parametrize("seed", range(5))
def test_limits_are_those_of_a_loop_over_coordinates(seed: int) -> None:
    public, here = plan(), rows(seed)
    limits = UpdateLimits.of(public, list(SITES), here)
    block = next(block for block in public.blocks("train") if block.name == UPDATE)
    noise, rounding = np.zeros(SIZE), np.zeros(SIZE)
    for one in range(SIZE):
        known = sites_of(one, here)
        weight = sum(public.weight(site) for site in known)
        if weight:
            spread = sum((public.weight(s) * limits.reached[s].noise) ** 2 for s in known)
            noise[one] = math.sqrt(spread) / weight
            rounding[one] = len(SITES) * 2.0**-block.fractional_bits / weight
    places = [here.item_of == item for item in range(-1, ITEMS)]
    sizes = {s: sum(1 for one in range(SIZE) if s in sites_of(one, here) or here.item_of[one] == 0) for s in SITES}
    assert limits.sizes == sizes
    largest = max(reach.usual for reach in limits.reached.values())
    both = noise + rounding
    assert limits.usual.coordinate == pytest.approx(TAIL * both[places[0]].max() + largest)
    for item, place in enumerate(places[1:]):
        length = float(np.linalg.norm(both[place]))
        usual_row = max(reach.usual_row for reach in limits.reached.values())
        assert limits.ordinary_row[item] == pytest.approx(length + 0.13 * usual_row)
        beyond = TAIL * both[place].max(initial=0.0) + 0.4 * usual_row
        assert limits.usual.row[item] == pytest.approx(length + beyond)
    rest = limits.possible.whole - float(np.linalg.norm(rounding))
    parts = (limits.share[s] * (1.001 * limits.reached[s].most(sizes[s])) ** 2 for s in SITES)
    assert rest == pytest.approx(math.sqrt(sum(parts)))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_seen_is_what_the_mean_shows(seed: int) -> None:
    public, here = plan(), rows(seed)
    total = np.random.default_rng(seed).standard_normal(SIZE)
    mean = mean_update(total, list(SITES), public, here)
    for one in range(SIZE):
        weight = sum(public.weight(site) for site in sites_of(one, here))
        assert mean[one] == (total[one] / weight if weight else 0.0)
    for limits, free in (
        (UpdateLimits.of(public, list(SITES), here), here.item_of < 0),
        (UpdateLimits.of(public, list(SITES), None), np.ones(SIZE, dtype=np.bool_)),
    ):
        seen = limits.seen(mean)
        assert seen.whole == pytest.approx(np.linalg.norm(mean))
        assert seen.coordinate == np.abs(mean[free]).max()
        lengths = [np.linalg.norm(mean[here.item_of == item]) for item in range(ITEMS)]
        assert seen.row == pytest.approx([] if free.all() else lengths)


def test_sums_over_the_sites_that_have_a_coordinate() -> None:
    here = ItemCoordinates(np.array([-1, 0, 1], dtype=np.int32), {"a": np.array([True, False])})
    assert added_up({"a": 3.0}, here).tolist() == [3.0, 3.0, 0.0]
    assert added_up({"a": 3.0}, here, power=2).tolist() == [9.0, 9.0, 0.0]
    assert added_up({"a": 3.0, "b": 1.0}, None).tolist() == [4.0]


def test_a_number_that_is_none_is_seen() -> None:
    limits, mean = UpdateLimits.of(plan(), list(SITES), rows(0)), np.zeros(SIZE)
    mean[0] = math.nan
    seen = limits.seen(mean)
    assert math.isnan(seen.whole)
    assert math.isnan(seen.coordinate)
