"""Sales forecasts of a site's own log with a released sales model. Nothing leaves the site, nothing is charged.

The own series is exact here: the model was learnt from noised ones. What is particular to the site (how far it
trusts the shared correction, its own bias) is fitted on the site's last periods, intervals on a rolling backtest.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from client.tasks.purchases import purchases_of
from common.data import EventLog
from common.errors import BadInputError, ConfigError
from common.model import (
    FlatParameters,
    OwnPart,
    SalesModel,
    SeriesWindows,
    build_sales_model,
    check_layout,
    corrections,
    first_origin,
    forecasts,
    layout_of,
    load_model,
    make_windows,
    own_part,
)
from common.run import METADATA_FILE, WEIGHTS_FILE, RunConfig, RunFolder, RunPlan
from common.tasks.sales_accuracy import MEAN_OF_FOUR, MODEL, NO_SCALE, SEASONAL_NAIVE
from common.tasks.sales_series import CHANNELS, Floats, SalesSpec, mean_of_four, seasonal_naive, shortest, trend

LEVELS = (0.8, 0.95)
TOTAL = "all together"
_LONG_PAUSE_DAYS = 28
_EMPTY_DAYS = 7


@dataclass(frozen=True)
class SharedSalesModel:
    """A released sales model with the public settings it was trained under. ``market``: released trends, if known.

    ``method``: the model, or the simple forecast that a site found to be better on its own past.
    """

    model: SalesModel
    config: RunConfig
    spec: SalesSpec
    market: dict[str, float]
    method: str = MODEL


@dataclass(frozen=True)
class Forecast:
    """Forecasts of a site's own series, in pieces and money; the last category is all of them together.

    Shapes: ``values: [channels, categories + 1, horizon]``; ``bands: [levels, 2, channels, categories + 1, horizon]``
    (low, high); ``sums`` and ``sum_bands`` likewise for the whole horizon; ``history: [channels, categories + 1, T]``;
    ``accuracy``: forecaster -> category -> wape, rmse, mase of the quantity on the rolling backtest of ``origins``
    forecasts; ``coverage``: share of backtest values inside the bands of the other half, per level.
    """

    categories: tuple[str, ...]
    periods: tuple[date, ...]
    values: Floats
    bands: Floats
    sums: Floats
    sum_bands: Floats
    history: Floats
    first: date
    trends: Floats
    accuracy: dict[str, dict[str, dict[str, float]]]
    origins: int

    def prices(self) -> Floats:
        """Mean price of each category and period ahead, NaN where nothing is forecast to be sold."""
        quantity, revenue = self.values
        return np.where(quantity > 1e-9, revenue / np.where(quantity > 1e-9, quantity, 1.0), math.nan)


def open_sales_model(path: Path) -> SharedSalesModel:
    """Open a run folder, or one of the model's two files. Raises: BadInputError if it does not forecast sales."""
    folder = path.parent if path.name in (WEIGHTS_FILE, METADATA_FILE) or path.suffix == ".safetensors" else path
    if not folder.is_dir():
        raise BadInputError(f"no such model: {path}", hint="name a run folder, or its model.safetensors")
    vector, layout, metadata = load_model(folder)
    try:
        plan = RunPlan.from_json(json.dumps(metadata["plan"], allow_nan=False))
    except (KeyError, ValueError, ConfigError) as error:
        raise BadInputError(
            f"{folder / METADATA_FILE} is of another version: {error}",
            hint="use the version that trained the model",
        ) from None
    if plan.task.network != "sales":
        raise BadInputError(
            f"this model was trained for {plan.config.task}, it does not forecast sales",
            hint="train one with `fedcart simulate sales`, or use `fedcart predict`",
        )
    config = plan.config
    model = build_sales_model(config.model, config.sales.horizon, config.seed)
    check_layout(layout, layout_of(model))
    FlatParameters(model).load(vector.copy())
    model.eval()
    return SharedSalesModel(model, config, SalesSpec.of(config), _market_trends(folder))


def _market_trends(folder: Path) -> dict[str, float]:
    try:
        trends = RunFolder(folder).market().get("trend", {}).get(CHANNELS[0], {})
        return {name: float(value) for name, value in trends.items() if value is not None}
    except (BadInputError, ValueError, AttributeError, TypeError):
        return {}


def own_series(shared: SharedSalesModel, log: EventLog, until: date | None = None) -> tuple[Floats, SalesSpec]:
    """A log's exact series in units of the bounds, from its first to its last whole period (or ``until``).

    Raises: BadInputError for a log without purchases, without the model's categories, or too short.
    """
    config, granularity = shared.config, shared.spec.granularity
    times = log.frame.filter(pl.col("event") == "purchase")["timestamp"]
    if not len(times):
        raise BadInputError("the log has no purchase", hint="a forecast needs events of the type purchase")
    first, last = times.min().date(), until or times.max().date()  # type: ignore[union-attr]
    if granularity == "week":
        first += timedelta(days=-first.weekday() % 7)
    periods = ((last - first).days + 1) // shared.spec.days
    needed = shortest(granularity, config.sales.window, config.sales.horizon)
    if periods < needed:
        raise BadInputError(
            f"{max(periods, 0)} {granularity}s of sales are too few: the model needs {needed}",
            hint="give a longer log",
        )
    spec = replace(shared.spec, start=first, periods=periods)
    purchases = purchases_of(log, spec, (config.sales.quantity_cap, config.sales.price_cap))
    if not len(purchases.cell):
        raise BadInputError(
            f"no purchase is in a category that the model knows: {', '.join(spec.categories[:8])}",
            hint="map your categories to those names, see docs/data.md",
        )
    return purchases.series(spec), spec


def method_values(
    shared: SharedSalesModel, series: Floats, spec: SalesSpec, method: str, origins: NDArray[np.int64]
) -> Floats:
    """Forecasts behind some periods of the past: ``float64[channels, categories, origins, horizon]``.

    ``method``: the model with the site's own part, fitted on what was known before the first of them; a simple forecast; or
    anything else: the shared correction as it is.
    """
    sales = shared.config.sales
    if method == MEAN_OF_FOUR:
        return np.maximum(mean_of_four(series, origins, sales.horizon, spec.season), 0.0)
    if method == SEASONAL_NAIVE:
        return np.maximum(seasonal_naive(series, origins, sales.horizon, spec.season), 0.0)
    before = np.arange(first_origin(sales.window, spec.season), max(int(origins[0]) - sales.horizon + 1, 0))
    fitted = before[-max(sales.test, 2 * sales.horizon) :] if method == MODEL else before[:0]
    windows = make_windows(series, spec, shared.config, origins)
    return forecasts(windows, corrections(shared.model, windows), _fit(shared, series, spec, fitted))


def gap_remark(log: EventLog) -> str:
    """What must be said of a long time without a sale just before the last ones; "" if there is none.

    A mistyped date or a placeholder at the end of a log would let a forecast begin far from the last real sale.
    """
    bought = log.frame.filter(pl.col("event") == "purchase")["timestamp"].dt.date()
    days = bought.unique().sort()
    if len(days) < 3:
        return ""
    pauses = days.diff().dt.total_days().drop_nulls()
    usual = float(pauses.quantile(0.9) or 1.0)
    recent = pauses.tail(max(1, len(pauses) // 20))
    longest = int(recent.max() or 0)  # type: ignore[arg-type]
    if longest < max(_LONG_PAUSE_DAYS, 5 * usual):
        return ""
    place = len(pauses) - len(recent) + int(recent.arg_max() or 0)
    behind = int((bought > days[place]).sum())
    return (
        f"no sale for {longest} days, from {days[place]} to {days[place + 1]}, and {behind:,} behind: "
        "are these dates right? the forecast begins after the last one"
    )


def ending_remark(log: EventLog, until: date | None) -> str:
    """What must be said of a log that ends in days without a sale; "" if it does not.

    Sales that are missing look like a collapse: the log goes on with other events, or ``until`` lies behind the last sale.
    """
    times = log.frame.filter(pl.col("event") == "purchase")["timestamp"]
    if not len(times):
        return ""
    sold: Any = times.max()
    latest: Any = log.frame["timestamp"].max()
    empty = ((until or latest.date()) - sold.date()).days
    if empty < _EMPTY_DAYS:
        return ""
    if until:
        return f"no sale in the {empty} days up to {until}: they count as days without sales; left out without --until"
    return (
        f"the log goes on for {empty} days without a sale, until {latest.date()}: taken for sales that are missing, not for a "
        f"collapse; the forecast begins after {sold.date()}, --until {latest.date()} counts these days"
    )


def forecast(shared: SharedSalesModel, series: Floats, spec: SalesSpec) -> Forecast:
    """Forecast the next periods with intervals, and measure the forecast on the last periods of the series.

    By the method that a personal choice names, else by the model.
    """
    sales, last = shared.config.sales, spec.periods - 1
    known = np.arange(first_origin(sales.window, spec.season), last - sales.horizon + 1)
    tested = known[-max(len(known) // 2, 1) :][-sales.test :]
    before = known[known < tested[0]][-max(sales.test, 2 * sales.horizon) :]
    windows = {
        name: make_windows(series, spec, shared.config, at)
        for name, at in (("t", tested), ("now", np.array([last])))
    }
    own = _fit(shared, series, spec, before)
    tests = forecasts(windows["t"], corrections(shared.model, windows["t"]), own)
    own_now = _fit(shared, series, spec, known[-max(sales.test, 2 * sales.horizon) :])
    now = forecasts(windows["now"], corrections(shared.model, windows["now"]), own_now)[:, :, 0]
    by_model = tests
    if shared.method in (MEAN_OF_FOUR, SEASONAL_NAIVE):
        tests = method_values(shared, series, spec, shared.method, tested)
        now = method_values(shared, series, spec, shared.method, np.array([last]))[:, :, 0]
    truth = series[..., tested[:, None] + np.arange(1, sales.horizon + 1)]
    unit = np.array(spec.bounds)[:, None, None]
    values, errors = _with_total(now) * unit, _with_total(truth - tests) * unit[..., None]
    history = _with_total(series) * unit
    return Forecast(
        categories=(*spec.categories, TOTAL),
        periods=tuple(spec.first_day(last + 1 + i) for i in range(sales.horizon)),
        values=values,
        bands=_bands(values, _spread(errors)),
        sums=values.sum(axis=-1),
        sum_bands=_bands(values.sum(axis=-1), _spread(errors.sum(axis=-1, keepdims=True))[..., 0]),
        history=history,
        first=spec.start,
        trends=trend(history[0], spec.season),
        accuracy=_accuracy(history, by_model, tested, spec, sales.horizon),
        origins=len(tested),
    )


def _fit(shared: SharedSalesModel, series: Floats, spec: SalesSpec, origins: NDArray[np.int64]) -> OwnPart:
    """The site's own part; with nothing to fit it on, the shared correction as it is."""
    if not len(origins):
        channels, categories = series.shape[:2]
        return OwnPart(np.ones(channels, dtype=np.float32), np.zeros((categories, channels), dtype=np.float32))
    windows: SeriesWindows = make_windows(series, spec, shared.config, origins)
    return own_part(windows, corrections(shared.model, windows), shared.config.sales.horizon)


def _with_total(values: Floats) -> Floats:
    """Append the sum over categories (axis 1)."""
    return np.concatenate([values, values.sum(axis=1, keepdims=True)], axis=1)


def _spread(errors: Floats) -> Floats:
    """Half widths of the intervals: conformal quantiles of the backtest's absolute errors, steps pooled.

    Shapes: ``[channels, categories, origins, steps]`` -> ``[levels, channels, categories, 1]``.
    Source: Lei et al. 2018, "Distribution-free predictive inference for regression" (split conformal); for errors
    that follow each other in time the coverage is approximate.
    """
    scores = np.sort(np.abs(errors).reshape(*errors.shape[:2], -1), axis=-1)
    count = scores.shape[-1]
    places = [min(math.ceil((count + 1) * level), count) - 1 for level in LEVELS]
    return np.moveaxis(scores[..., places], -1, 0)[..., None]


def _bands(values: Floats, spread: Floats) -> Floats:
    """Low and high around the forecast, low at least 0: ``[levels, 2, ...]``."""
    return np.stack([np.maximum(values - spread, 0.0), values + spread], axis=1)


def _accuracy(
    history: Floats, tests: Floats, origins: NDArray[np.int64], spec: SalesSpec, horizon: int
) -> dict[str, dict[str, dict[str, float]]]:
    """WAPE, RMSE and MASE of the quantity, of the model and of both trivial forecasts."""
    quantity = history[0]
    truth = quantity[:, origins[:, None] + np.arange(1, horizon + 1)]
    before = quantity[:, : int(origins[0]) + 1]
    scale = np.abs(before[:, spec.season :] - before[:, : -spec.season]).mean(axis=1)
    figures = {
        MODEL: _with_total(tests)[0] * spec.bounds[0],
        MEAN_OF_FOUR: mean_of_four(quantity, origins, horizon, spec.season),
        SEASONAL_NAIVE: seasonal_naive(quantity, origins, horizon, spec.season),
    }
    names = (*spec.categories, TOTAL)
    return {
        who: {name: _figures(values[i], truth[i], float(scale[i])) for i, name in enumerate(names)}
        for who, values in figures.items()
    }


def _figures(values: Floats, truth: Floats, scale: float) -> dict[str, float]:
    wrong = np.abs(values - truth)
    sold = float(np.abs(truth).sum())
    return {
        "wape": float(wrong.sum()) / sold if sold else math.nan,
        "rmse": float(np.sqrt((wrong**2).mean())),
        "mase": float(wrong.mean()) / scale if scale > NO_SCALE * sold / truth.size else math.nan,
    }


def forecast_table(found: Forecast, category: str = "") -> dict[str, list[Any]]:
    """The forecast as a table, one line per category and period."""
    prices = found.prices()
    names = ["category", "begins", "mean_price"]
    for channel in ("quantity", "revenue"):
        names += [channel, *(f"{channel}_{end}{level}" for level in (80, 95) for end in ("low", "high"))]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for place, name in enumerate(found.categories):
        if category not in ("", name):
            continue
        for step, day in enumerate(found.periods):
            row: list[Any] = [name, day.isoformat(), float(prices[place, step])]
            for values, bands in zip(found.values, np.moveaxis(found.bands, 2, 0), strict=True):
                row += [float(values[place, step]), *map(float, bands[:, :, place, step].ravel())]
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return columns
