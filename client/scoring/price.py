"""The coming mean price of each category, with an interval, against the last price. A site's own log, nothing leaves.

A mean price is revenue over pieces, so it is weighed by what is sold; a period without a sale has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from client.scoring.forecast import LEVELS, TOTAL, Forecast, SharedSalesModel, method_values
from common.data import EventLog
from common.errors import BadInputError
from common.tasks.sales_series import Floats, SalesSpec

LAST, BY_MODEL = "last price", "revenue over pieces"
_SPANS = (2, 4, 8)  # seasons after which a sale weighs 1/e in a smoothed price
_FEWEST = 6


@dataclass(frozen=True)
class PriceForecast:
    """Mean price of the whole horizon, per category and of all together.

    Shapes: ``last, coming: [C + 1]``, NaN for a category never sold; ``bands: [levels, 2, C + 1]``; ``history: [C + 1, T]`` with NaN
    where nothing was sold. ``ways``: how each was forecast, the one that did best on the earlier half of the backtest; ``error``
    and ``naive``: mean absolute error on the later half, of it and of the last price; ``inside``: share of the later half's values
    in the 80 % interval that the rest of that half gives.
    """

    categories: tuple[str, ...]
    last: Floats
    coming: Floats
    bands: Floats
    history: Floats
    ways: tuple[str, ...]
    error: Floats
    naive: Floats
    inside: float
    horizon: int
    origins: int


def with_prices(log: EventLog) -> EventLog:
    """The same log with no piece in a purchase without a price: as one at nothing it would lower the mean.

    Raises: BadInputError if no purchase has a price.
    """
    bought, priced = pl.col("event") == "purchase", pl.col("price").is_not_null()
    if not len(log.frame.filter(bought & priced)) and len(log.frame.filter(bought)):
        raise BadInputError(
            "no purchase has a price",
            hint="map the column that holds it, see docs/data.md; fedcart data check FILE",
        )
    pieces = pl.when(bought & ~priced).then(0.0).otherwise(pl.col("quantity")).cast(log.frame["quantity"].dtype)
    return EventLog(log.frame.with_columns(pieces.alias("quantity")))


def forecast_price(shared: SharedSalesModel, series: Floats, spec: SalesSpec) -> PriceForecast:
    """Forecast the mean price of the next ``sales.horizon`` periods. Raises: BadInputError for a log that is too short."""
    from common.model import first_origin

    sales = shared.config.sales
    known = np.arange(first_origin(sales.window, spec.season), spec.periods - sales.horizon)
    if len(known) < 2 * _FEWEST:
        raise BadInputError(
            f"{spec.periods} {spec.granularity}s of sales are too few to choose and measure a price on: "
            f"{len(known)} forecasts can be checked",
            hint=f"give a longer log: {2 * _FEWEST - len(known)} {spec.granularity}s more",
        )
    money = _with_total(series * np.array(spec.bounds)[:, None, None])
    history = _ratio(money[1], money[0])
    truth = _truth(money, known, sales.horizon)
    half = len(known) // 2
    tested = _candidates(shared, series, money, spec, known)
    ways = [_best(tested, truth[:, :half], row) for row in range(len(money[0]))]
    now = _candidates(shared, series, money, spec, np.array([spec.periods - 1]))
    rows = range(len(ways))
    chosen = np.stack([tested[way][row] for row, way in zip(rows, ways, strict=True)])
    coming = np.array([now[way][row, 0] for row, way in zip(rows, ways, strict=True)])
    errors = np.abs(truth - chosen)[:, half:]
    return PriceForecast(
        (*spec.categories, TOTAL), now[LAST][:, 0], coming, _bands(coming, chosen[:, half:], errors), history, tuple(ways),
        _mean(errors), _mean(np.abs(truth - tested[LAST])[:, half:]), _inside(chosen[:, half:], errors),
        sales.horizon, len(known) - half,
    )  # fmt: skip


def _with_total(money: Floats) -> Floats:
    return np.concatenate([money, money.sum(axis=1, keepdims=True)], axis=1)


def _ratio(revenue: Floats, pieces: Floats) -> Floats:
    return np.where(pieces > 1e-9, revenue / np.where(pieces > 1e-9, pieces, 1.0), math.nan)


def _truth(money: Floats, origins: NDArray[np.int64], horizon: int) -> Floats:
    """Mean price of the periods behind each origin: ``[C + 1, O]``."""
    ahead = origins[:, None] + np.arange(1, horizon + 1)
    return _ratio(*money[::-1][..., ahead].sum(axis=-1))


def _candidates(
    shared: SharedSalesModel, series: Floats, money: Floats, spec: SalesSpec, origins: NDArray[np.int64]
) -> dict[str, Floats]:
    """Each way's price behind each origin, from what was known then: ``[C + 1, O]``; the last price where a way has none."""
    history = _ratio(money[1], money[0])
    place = np.where(np.isfinite(history), np.arange(history.shape[1]), 0)
    seen = np.maximum.accumulate(place, axis=1)
    last = np.take_along_axis(history, seen, axis=1)[:, origins]
    found = {LAST: last}
    for seasons in _SPANS:
        weight = math.exp(-1 / (seasons * spec.season))
        known, sums = np.zeros((*money.shape[:2], len(origins))), np.zeros(money.shape[:2])
        for period in range(int(origins[-1]) + 1):
            sums = weight * sums + money[:, :, period]
            known[..., origins == period] = sums[..., None]
        found[f"mean of about {seasons} {'week' if seasons == 1 else 'weeks'}"] = _ratio(known[1], known[0])
    bounds = np.array(spec.bounds)[:, None, None]
    ahead = method_values(shared, series, spec, shared.method, origins).sum(axis=-1) * bounds
    found[BY_MODEL] = _ratio(*_with_total(ahead)[::-1])
    return {name: np.where(np.isfinite(values), values, last) for name, values in found.items()}


def _best(tested: Mapping[str, Floats], truth: Floats, row: int) -> str:
    """The way with the least absolute error; the last price where nothing tells."""
    half = truth.shape[1]
    wrong = {
        name: _mean(np.abs(values[row : row + 1, :half] - truth[row : row + 1]))[0]
        for name, values in tested.items()
    }
    able = {name: value for name, value in wrong.items() if math.isfinite(value)}
    return min(able, key=lambda name: able[name]) if able else LAST


def _mean(errors: Floats) -> Floats:
    """Mean over origins of what is known; NaN of none: ``[C, O] -> [C]``."""
    there = np.isfinite(errors)
    count = there.sum(axis=1)
    return np.asarray(
        np.where(count > 0, np.where(there, errors, 0.0).sum(axis=1) / np.maximum(count, 1), math.nan)
    )


def _width(errors: Floats, level: float) -> float:
    """The conformal quantile of absolute errors; NaN of none."""
    kept = np.sort(errors[np.isfinite(errors)])
    return float(kept[min(math.ceil((len(kept) + 1) * level), len(kept)) - 1]) if len(kept) else math.nan


def _bands(coming: Floats, chosen: Floats, errors: Floats) -> Floats:
    """Low and high, the error being proportional to the price: ``[levels, 2, C + 1]``."""
    relative = errors / np.where(chosen > 0, chosen, math.nan)
    width = np.array([[_width(row, level) for row in relative] for level in LEVELS]) * coming
    return np.stack([np.maximum(coming - width, 0.0), coming + width], axis=1)


def _inside(chosen: Floats, errors: Floats) -> float:
    """Share of every second value in the 80 % interval that the others give, in turn."""
    relative, hits = errors / np.where(chosen > 0, chosen, math.nan), []
    for start in (0, 1):
        for row in relative:
            width, asked = _width(row[1 - start :: 2], LEVELS[0]), row[start::2]
            hits += list(asked[np.isfinite(asked)] <= width) if math.isfinite(width) else []
    return float(np.mean(hits)) if hits else math.nan


def price_table(found: PriceForecast, category: str = "") -> dict[str, list[Any]]:
    """One line per category."""
    shown = found.categories if category or len(found.categories) > 2 else found.categories[:1]
    rows = [row for row, name in enumerate(shown) if category in ("", name)]
    numbers = {"last_price": found.last, "mean_price": found.coming}
    for place, level in enumerate((80, 95)):
        numbers |= {f"low{level}": found.bands[place, 0], f"high{level}": found.bands[place, 1]}
    numbers |= {"error": found.error, "error_of_last_price": found.naive}
    columns: dict[str, list[Any]] = {"category": [found.categories[row] for row in rows]}
    columns |= {name: [float(values[row]) for row in rows] for name, values in numbers.items()}
    return columns | {"forecast_by": [found.ways[row] for row in rows]}


def as_drawn(found: PriceForecast, like: Forecast) -> Forecast:
    """The same as a forecast that the picture can draw: one level for all periods ahead, the last price where nothing was sold."""
    place = np.where(np.isfinite(found.history), np.arange(found.history.shape[1]), 0)
    past = np.nan_to_num(np.take_along_axis(found.history, np.maximum.accumulate(place, axis=1), axis=1))
    steps = np.ones(found.horizon)
    values = np.nan_to_num(found.coming)[:, None] * steps
    bands = np.nan_to_num(found.bands)[:, :, None, :, None] * steps
    return replace(
        like, values=np.stack([values, values]), bands=np.repeat(bands, 2, axis=2), history=np.stack([past, past])
    )
