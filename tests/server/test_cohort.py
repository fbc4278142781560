"""Cohorts and divisors, from public facts only."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import ConfigError
from common.limits import ItemCoordinates, mean_update
from common.run import RunPlan, build_config
from server.cohort import choose_cohort


def _plan(populations: dict[str, int], *overrides: str) -> RunPlan:
    config = build_config({}, overrides)
    return RunPlan("run", config.public_json(), tuple(populations.items()), "{}", 4, 1.0, 1.0)


def test_everybody_is_invited_up_to_the_largest_cohort() -> None:
    sites = {f"s{i}": 100 for i in range(130)}
    plan = _plan(sites)
    assert choose_cohort(list(sites)[:100], 1, plan) == tuple(list(sites)[:100])
    chosen = choose_cohort(list(sites), 1, plan)
    assert len(set(chosen)) == 100
    assert chosen == choose_cohort(list(sites), 1, plan)
    assert chosen != choose_cohort(list(sites), 2, plan)


def test_a_secure_cohort_over_100_is_sampled_down_and_a_plain_one_is_not() -> None:
    sites = {f"s{i}": 100 for i in range(150)}
    assert len(choose_cohort(list(sites), 1, _plan(sites, "aggregation.max_cohort=150"))) == 100
    plain = _plan(sites, "aggregation.max_cohort=150", "aggregation.mode=plain")
    assert len(choose_cohort(list(sites), 1, plain)) == 150


def test_a_cohort_over_200_is_refused() -> None:
    with pytest.raises(ConfigError):
        _plan({"a": 1}, "aggregation.max_cohort=201")


def test_the_mean_is_weighted_by_declared_populations() -> None:
    plan = _plan({"a": 200, "b": 100})
    update_a, update_b = np.array([1.0, 2.0]), np.array([4.0, 8.0])
    total = 1.0 * update_a + 0.5 * update_b  # sites multiply by their weight before the sum
    assert np.allclose(mean_update(total, ("a", "b"), plan, None), (2 * update_a + update_b) / 3)


def test_an_item_row_is_divided_by_the_sites_that_stock_it() -> None:
    plan = _plan({"a": 100, "b": 100, "c": 100})
    masks = {"a": [False, True, True], "b": [False, True, False], "c": [False, False, False]}
    rows = ItemCoordinates(
        item_of=np.array([1, 2, 0, -1], dtype=np.int32),
        masks={site: np.array(mask) for site, mask in masks.items()},
    )
    total = np.array([2.0, 1.0, 0.0, 3.0])
    assert np.allclose(mean_update(total, ("a", "b", "c"), plan, rows), [1.0, 1.0, 0.0, 1.0])
    assert np.allclose(mean_update(total, ("b", "c"), plan, rows), [2.0, 0.0, 0.0, 1.5])


def test_a_row_nobody_stocks_stays_where_it_is() -> None:
    plan = _plan({"a": 100})
    rows = ItemCoordinates(np.array([0, 1, 1, -1], dtype=np.int32), {"a": np.array([False, False])})
    assert np.array_equal(mean_update(np.ones(4), ("a",), plan, rows), [0, 0, 0, 1])
