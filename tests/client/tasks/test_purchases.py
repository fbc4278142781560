"""Purchases per consumer and cell: winsorized, and bounded whatever one consumer does."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from client.tasks.purchases import purchases_of
from common.data.events import EventLog
from common.run import build_config
from common.tasks.sales_series import SalesSpec

START = datetime(2024, 1, 1)
CONFIG = build_config(
    {
        "task": "sales",
        "sales": {
            "start": "2024-01-01",
            "periods": 80,
            "window": 14,
            "test": 8,
            "categories": ["a", "b", "other"],
        },
    }
)
SPEC = SalesSpec.of(CONFIG)
Line = tuple[int, float, str, str | None, float | None, float | None]


def log_of(lines: list[Line]) -> EventLog:
    """Lines of (consumer, day, event, category, quantity, price)."""
    columns = list(zip(*lines, strict=True)) if lines else [()] * 6
    frame = pl.DataFrame(
        {
            "consumer": pl.Series(columns[0], dtype=pl.UInt64),
            "timestamp": pl.Series([START + timedelta(days=d) for d in columns[1]], dtype=pl.Datetime("us")),
            "event": pl.Series(columns[2], dtype=pl.String),
            "category": pl.Series(columns[3], dtype=pl.String),
            "quantity": pl.Series(columns[4], dtype=pl.Float64),
            "price": pl.Series(columns[5], dtype=pl.Float64),
        }
    )
    return EventLog.from_frame(frame)


def series_of(lines: list[Line], clip: float = 0.0) -> np.ndarray:
    return purchases_of(log_of(lines), SPEC, (10.0, 50.0)).series(SPEC, clip)


def test_only_purchases_inside_dates_and_categories_count_and_the_rest_is_other() -> None:
    series = series_of(
        [
            (1, 0.2, "purchase", "a", 2.0, 3.0),
            (1, 0.9, "purchase", "a", 1.0, 3.0),
            (2, 3.0, "purchase", "unheard-of", 1.0, 7.0),
            (2, 3.0, "view", "a", 9.0, 9.0),
            (2, -0.1, "purchase", "a", 9.0, 9.0),
            (2, 80.0, "purchase", "a", 9.0, 9.0),
        ]
    )
    assert series[0, 0, 0] * SPEC.bounds[0] == 3.0
    assert series[1, 0, 0] * SPEC.bounds[1] == pytest.approx(9.0)
    assert series[1, 2, 3] * SPEC.bounds[1] == pytest.approx(7.0)
    assert np.count_nonzero(series) == 4


def test_outliers_are_winsorized_and_missing_values_defined() -> None:
    series = series_of(
        [
            (1, 1.0, "purchase", "a", 1e9, 1e9),
            (2, 2.0, "purchase", "a", None, None),
            (3, 3.0, "purchase", "a", float("inf"), float("nan")),
        ]
    )
    quantity, revenue = series[:, 0] * np.array(SPEC.bounds)[:, None]
    assert (quantity[1], revenue[1]) == (10.0, 500.0)
    assert (quantity[2], revenue[2]) == (1.0, 0.0)
    assert (quantity[3], revenue[3]) == (1.0, 0.0)


def test_an_empty_log_gives_an_empty_series() -> None:
    assert not series_of([]).any()
    assert not series_of([(1, 1.0, "view", "a", 1.0, 1.0)], clip=1.0).any()


purchase = st.tuples(
    st.integers(1, 6),
    st.floats(-2, 90, allow_nan=False),
    st.just("purchase"),
    st.sampled_from(["a", "b", "x", None]),
    st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32)),
    st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32)),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(purchase, max_size=12), st.lists(purchase, min_size=1, max_size=30), st.floats(0.01, 10))
def test_one_consumer_changes_the_series_by_at_most_the_clip_whatever_they_do(
    others: list[Line], hostile: list[Line], clip: float
) -> None:
    added = [(99, *line[1:]) for line in hostile]
    change = series_of(others + added, clip) - series_of(others, clip)
    assert np.linalg.norm(change) <= clip * (1 + 1e-9)


def test_a_consumer_above_the_bound_counts_exactly_the_clip() -> None:
    greedy = [(1, float(day), "purchase", "b", 10.0, 50.0) for day in range(60)]
    assert np.linalg.norm(series_of(greedy, 1.0)) == pytest.approx(1.0)
    assert np.linalg.norm(series_of(greedy)) > 20
