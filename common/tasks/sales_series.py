"""Sales series: which cells there are, their calendar, and the trivial forecasts. No torch: the server reads this.

A series is what one site sold in one category, per day or week: quantity and revenue. All that decides its
shape is public: first day, length, categories, bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError

Floats = NDArray[np.float64]
CHANNELS = ("quantity", "revenue")
SEASON = {"day": 7, "week": 1}  # periods after which the same weekday comes again
SEASONS = 4  # how many of them the mean is taken of
OTHER, ALL = "other", "all"
CALENDAR_FEATURES = 18
YEARLY_DAYS = 730
MOST_CATEGORIES = 12
MOST_CELLS = 2_000_000


@dataclass(frozen=True)
class SalesSpec:
    """The public shape of a site's series.

    Units: ``bounds`` are what 1 means in a release, per channel; ``season`` in periods. ``yearly``: the series of the
    run is long enough for month, week and quarter to be learnt.
    """

    granularity: str
    start: date
    periods: int
    categories: tuple[str, ...]
    bounds: tuple[float, float]
    holidays: frozenset[date]
    yearly: bool = False

    @staticmethod
    def of(config: Any) -> SalesSpec:
        """The spec of a run. Raises: ConfigError where dates or length are left to the data, or too short."""
        sales = config.sales
        if not sales.start or not sales.periods:
            raise ConfigError(
                "sales.start and sales.periods are not set",
                hint="they must be public: for example --set sales.start=2024-01-01 --set sales.periods=180",
            )
        if sales.test <= sales.horizon:
            raise ConfigError(
                f"sales.test {sales.test} leaves no forecast of {sales.horizon} {sales.granularity}s to measure",
                hint=f"set sales.test to {sales.horizon + 1} or more, or a shorter sales.horizon",
            )
        needed = shortest(sales.granularity, sales.window, sales.horizon) + sales.test
        if sales.periods < needed:
            raise ConfigError(
                f"{sales.periods} {sales.granularity}s are too short: a window of {sales.window}, a horizon of "
                f"{sales.horizon} and a test of {sales.test} need {needed}",
                hint="lower sales.window, sales.horizon or sales.test, or forecast days instead of weeks",
            )
        spec = SalesSpec(
            sales.granularity,
            date.fromisoformat(sales.start),
            sales.periods,
            sales.categories or (ALL,),
            (sales.quantity_bound, sales.revenue_bound),
            frozenset(date.fromisoformat(text) for text in sales.holidays),
            sales.periods * (7 if sales.granularity == "week" else 1) >= YEARLY_DAYS,
        )
        if spec.cells > MOST_CELLS:
            raise ConfigError(f"{spec.cells:,} cells are more than {MOST_CELLS:,}", hint="name fewer categories")
        return spec

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, categories, periods."""
        return len(CHANNELS), len(self.categories), self.periods

    @property
    def cells(self) -> int:
        """Numbers in a release."""
        channels, categories, periods = self.shape
        return channels * categories * periods

    @property
    def season(self) -> int:
        """Periods after which the same weekday comes again."""
        return SEASON[self.granularity]

    @property
    def days(self) -> int:
        """Days of one period."""
        return 7 if self.granularity == "week" else 1

    def first_day(self, period: int) -> date:
        """The day on which a period begins; periods may lie beyond the series."""
        return self.start + timedelta(days=period * self.days)


def catalogue_categories(names: Sequence[str], item_category: NDArray[np.integer]) -> tuple[str, ...]:
    """The categories of a public catalogue that series are made of: those with most items, the rest are ``other``.

    Shapes: ``item_category``: category of each item from 1, entry 0 for no item; 0 for an item without category.
    """
    if not names:
        return (ALL,)
    items = np.bincount(item_category, minlength=len(names) + 1)[1:]
    largest = sorted(np.argsort(-items, kind="stable")[:MOST_CATEGORIES])
    rest = (OTHER,) if len(names) > MOST_CATEGORIES else ()
    return (*(names[i] for i in largest if names[i] != OTHER), *rest)


def shortest(granularity: str, window: int, horizon: int) -> int:
    """Fewest periods from which one forecast can be made and checked."""
    return window + SEASONS * SEASON[granularity] + horizon


def calendar(spec: SalesSpec, begin: int, end: int) -> NDArray[np.float32]:
    """Public calendar features of periods ``begin`` to ``end``: ``float32[end - begin, CALENDAR_FEATURES]``.

    Weekday (7, zeros for weeks), month, week of the year and day of the month as points on a circle, quarter (4),
    and the share of the period's days that are holidays. Month, week and quarter stay zeros where the series is
    shorter than two years: every one would have been seen once at most, and be learnt by heart.
    """
    rows = np.zeros((max(end - begin, 0), CALENDAR_FEATURES), dtype=np.float32)
    for row, period in zip(rows, range(begin, end), strict=True):
        first = spec.first_day(period)
        middle = first + timedelta(days=spec.days // 2)
        if spec.days == 1:
            row[first.weekday()] = 1.0
        row[11:13] = _circle((middle.day - 1) / 31)
        if spec.yearly:
            row[7:9] = _circle((middle.month - 1) / 12)
            row[9:11] = _circle(middle.isocalendar().week / 53)
            row[13 + (middle.month - 1) // 3] = 1.0
        days = (first + timedelta(days=i) for i in range(spec.days))
        row[17] = sum(day in spec.holidays for day in days) / spec.days
    return rows


def _circle(share: float) -> tuple[float, float]:
    return float(np.sin(2 * np.pi * share)), float(np.cos(2 * np.pi * share))


def seasonal_naive(
    series: Floats, origins: Sequence[int] | NDArray[np.int64], horizon: int, season: int
) -> Floats:
    """The last known same weekday. Shapes: ``series: [..., T]`` -> ``[..., origins, horizon]``.

    An origin is the last period that is known; step k forecasts ``origin + k``.
    """
    return np.asarray(series[..., _lags(origins, horizon, season)])


def mean_of_four(series: Floats, origins: Sequence[int] | NDArray[np.int64], horizon: int, season: int) -> Floats:
    """The mean of the last four known same weekdays (or weeks). Shapes: as ``seasonal_naive``."""
    first = _lags(origins, horizon, season)
    return np.asarray(np.mean([series[..., first - i * season] for i in range(SEASONS)], axis=0))


def _lags(origins: Sequence[int] | NDArray[np.int64], horizon: int, season: int) -> NDArray[np.int64]:
    step = np.arange(1, horizon + 1)
    back = -(-step // season) * season
    return np.asarray(np.asarray(origins)[:, None] + step - back, dtype=np.int64)


def deviations(series: Floats, season: int) -> Floats:
    """Each period minus the mean of the four same weekdays before it; zeros where they are not known.

    Shapes: ``[..., T]`` -> same.
    """
    out = np.zeros_like(series)
    first = SEASONS * season
    length = series.shape[-1]
    before = [series[..., first - i * season : length - i * season] for i in range(1, SEASONS + 1)]
    out[..., first:] = series[..., first:] - np.mean(before, axis=0)
    return out


def trend(series: Floats, season: int) -> Floats:
    """Relative change of the last four seasons against the four before, 0 where nothing was sold: ``[...]``.

    For weeks a season is one period, so this compares four weeks with the four weeks before.
    """
    span = SEASONS * season
    if series.shape[-1] < 2 * span:
        return np.full(series.shape[:-1], np.nan)
    late, early = series[..., -span:].sum(axis=-1), series[..., -2 * span : -span].sum(axis=-1)
    return np.asarray(np.where(early > 0, late / np.where(early > 0, early, 1.0) - 1.0, 0.0))
