"""Stock: how many pieces of each item will be sold, when to order again, and how much. From a site's own log, nothing leaves.

A category's forecast is the shared sales model's, an item's level its own past; both are made to add up, and how wide an
item's demand spreads is read off how wrong the forecast has been on the log's last periods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import client.scoring.demand as demand
from client.scoring.forecast import SharedSalesModel, method_values, own_series
from client.tasks.purchases import categories_of
from common.data import EventLog
from common.errors import BadInputError
from common.tasks.sales_series import Floats, SalesSpec, mean_of_four, seasonal_naive

INTERVAL = 0.8
NAMELESS = "(no item named)"
OURS = "this forecast"
MOST_DAYS = 180
SMOOTHINGS = (0.03, 0.05, 0.1, 0.2, 0.3)
_FEWEST, _MOST_ORIGINS = 6, 60
_PRIOR = 4.0  # independent backtests that the spread of all items together weighs, against an item's own
_CLASSES = (0.3, 1.0, 3.0, 10.0, 30.0)  # forecasts of so many pieces spread alike
_CLASS_SIZE = 200


@dataclass(frozen=True)
class StockQuestion:
    """``lead_days``: from an order to its arrival; ``cover_days``: how long one order is to last; ``level``: share of lead
    times without running out; ``on_hand``: pieces of each item, None if nobody knows."""

    lead_days: int = 7
    cover_days: int = 7
    level: float = 0.95
    on_hand: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name, days in (("lead time", self.lead_days), ("cover", self.cover_days)):
            if not 1 <= days <= MOST_DAYS:
                raise BadInputError(
                    f"a {name} of {days} days cannot be planned for", hint=f"1 to {MOST_DAYS} days"
                )
        if not 0.5 <= self.level <= 0.999:
            raise BadInputError(
                f"a service level of {self.level:g} cannot be planned for", hint="0.5 to 0.999, usually 0.95"
            )


@dataclass(frozen=True)
class ItemSales:
    """What was sold of each item. Shapes: ``parent: int64[I]`` its category, -1 for none; ``series: float64[I, T]`` pieces;
    ``returned: float64[I]`` pieces that came back. ``elsewhere``: purchases of items in no category of the model."""

    items: tuple[str, ...]
    parent: NDArray[np.int64]
    series: Floats
    returned: Floats
    returns: int
    elsewhere: int


@dataclass(frozen=True)
class Stock:
    """The plan. Shapes: ``items: [I]``, ``values: [I, steps]`` pieces per period ahead, ``categories: [C, steps]``; they add up.

    ``lead: [I]`` pieces in the lead time, ``low``, ``high`` its 80 % interval, ``reorder`` and ``order`` whole pieces;
    ``trust: [C]`` weight of the items' own levels in their category's forecast, ``smoothing`` of these levels; ``accuracy``: forecaster -> wape, mase of an
    item's pieces in the lead time; ``achieved``: share of lead times in the later half of the backtest without running out.
    """

    sales: ItemSales
    names: tuple[str, ...]
    spec: SalesSpec
    asked: StockQuestion
    steps: tuple[int, int]
    values: Floats
    categories: Floats
    trust: Floats
    smoothing: float
    lead: Floats
    low: Floats
    high: Floats
    reorder: Floats
    order: Floats
    accuracy: dict[str, dict[str, float]]
    achieved: float
    origins: int
    notes: tuple[str, ...] = field(default=())


def plan_stock(shared: SharedSalesModel, log: EventLog, asked: StockQuestion, until: date | None = None) -> Stock:
    """Forecast every item, and say when and how much to order.

    Raises: BadInputError for a log that is too short for the lead time, or that the model knows nothing of.
    """
    log = _one_category_each(log)
    series, spec = own_series(shared, log, until)
    sales = item_sales(log, spec, shared.config.sales.quantity_cap, asked.on_hand or {})
    lead, whole = (-(-days // spec.days) for days in (asked.lead_days, asked.lead_days + asked.cover_days))
    last = spec.periods - 1
    chosen_on, origins = _origins(shared, spec, whole)
    smoothing, trust = _fitted(shared, series, spec, sales, chosen_on, whole)
    own = _own_forecasts(shared, series, spec, origins, whole)  # [C, O, whole]
    now = _own_forecasts(shared, series, spec, np.array([last]), whole)
    levels = demand.tsb(sales.series, np.append(origins, last), smoothing)
    tested = _lead_sums(levels[:, :-1], sales.parent, own, trust, lead)
    shares, met = demand.reconciled(levels[:, -1:], sales.parent, now, trust)
    values = shares * met[sales.parent, 0]
    sold = _ahead(sales.series, origins, lead)
    known = demand.known_at(sales.series, origins)
    spread = _Spread.of(tested, sold, known, lead)
    expected = values[:, :lead].sum(axis=1)
    reorder = _whole(expected + spread.margin(expected, asked.level))
    half = (1 - INTERVAL) / 2
    return Stock(
        sales, spec.categories, spec, asked, (lead, whole), values, met[:, 0], trust, smoothing, expected,
        np.maximum(expected + spread.margin(expected, half), 0.0),
        expected + np.maximum(spread.margin(expected, 1 - half), 0.0),
        reorder, _orders(sales, reorder, values[:, lead:].sum(axis=1), asked.on_hand),
        accuracy(sales.series, origins, lead, spec.season, {OURS: tested}),
        _achieved(tested, sold, known, lead, asked.level), len(origins),
        _notes(sales, spec, asked.on_hand),
    )  # fmt: skip


def _one_category_each(log: EventLog) -> EventLog:
    """The same log with every item in the category that most of its lines name, or the hierarchy would not add up."""
    most = (
        log.frame.filter(pl.col("item").is_not_null() & pl.col("category").is_not_null())
        .group_by("item", "category").len().sort("len", "category", descending=[True, False])
        .unique("item", keep="first").select("item", pl.col("category").alias("usual"))
    )  # fmt: skip
    joined = log.frame.join(most, on="item", how="left", maintain_order="left")
    return EventLog(joined.with_columns(pl.coalesce("usual", "category").alias("category")).drop("usual"))


def item_sales(log: EventLog, spec: SalesSpec, cap: float, stocked: Mapping[str, float]) -> ItemSales:
    """Pieces per item and period, by the rules of the sales series; items ``stocked`` or seen and never sold are rows of zeros.

    Returns are cancellations: they come back to the shelf, demand they are not, so they are counted beside it.
    """
    begin = datetime.combine(spec.start, time())
    frame = log.frame.with_columns(
        pl.Series("cell", categories_of(log.frame, spec)),
        ((pl.col("timestamp") - begin).dt.total_microseconds() // (86_400_000_000 * spec.days)).alias("period"),
        pl.col("item").fill_null(NAMELESS),
        pl.col("quantity").cast(pl.Float64).fill_null(1.0).fill_nan(1.0).clip(0.0, cap),
    ).filter(pl.col("period").is_between(0, spec.periods - 1))
    bought = frame.filter(pl.col("event") == "purchase")
    inside = bought.filter(pl.col("cell") >= 0)
    seen = frame.filter((pl.col("cell") >= 0) & (pl.col("item") != NAMELESS))
    names = [*dict.fromkeys([*inside["item"].unique().sort(), *seen["item"].unique().sort(), *sorted(stocked)])]
    place = {name: row for row, name in enumerate(names)}
    parent = np.full(len(names), -1, dtype=np.int64)  # one that is stocked and was never seen: in no category
    for part in (seen, inside):
        known = part.unique("item", keep="first", maintain_order=True)
        parent[[place[name] for name in known["item"]]] = known["cell"].to_numpy()
    series = np.zeros((len(names), spec.periods))
    np.add.at(series, _cells(inside, place), inside["quantity"].to_numpy())
    back = frame.filter((pl.col("event") == "cancel") & pl.col("item").is_in(names))
    returned = np.zeros(len(names))
    np.add.at(returned, _cells(back, place)[0], back["quantity"].to_numpy())
    return ItemSales(tuple(names), parent, series, returned, back.height, bought.height - inside.height)


def _cells(frame: pl.DataFrame, place: Mapping[str, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = np.array([place[name] for name in frame["item"]], dtype=np.int64)
    return rows, frame["period"].to_numpy().astype(np.int64)


def _origins(shared: SharedSalesModel, spec: SalesSpec, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Last known periods of forecasts in the past: to choose on, in the earlier half of the log, and to measure on.

    At most 60 each, spread evenly. Where the earlier half has too few, they are the same.
    """
    from common.model import first_origin

    first, middle = first_origin(shared.config.sales.window, spec.season), spec.periods // 2
    early, late = np.arange(first, middle - steps), np.arange(max(first, middle), spec.periods - steps)
    if len(late) < _FEWEST:
        raise BadInputError(
            f"{spec.periods} {spec.granularity}s of sales are too few for a lead time and cover of {steps}: "
            f"only {len(late)} forecasts can be checked",
            hint=f"give a longer log, or a shorter --lead-time-days or --cover-days; {_FEWEST} are needed",
        )
    early = early if len(early) >= _FEWEST else late
    chosen, tested = (some[:: -(-len(some) // _MOST_ORIGINS)] for some in (early, late))
    return chosen, tested


def _fitted(
    shared: SharedSalesModel,
    series: Floats,
    spec: SalesSpec,
    sales: ItemSales,
    origins: NDArray[np.int64],
    steps: int,
) -> tuple[float, Floats]:
    """The smoothing of items' levels with the least squared error, and the trust in them: ``[C]``."""
    own, sold, count = (
        _own_forecasts(shared, series, spec, origins, steps),
        _ahead(sales.series, origins, steps),
        len(spec.categories),
    )
    levels = {one: demand.tsb(sales.series, origins, one) for one in SMOOTHINGS}
    wrong = {one: float(((values * steps - sold) ** 2).sum()) for one, values in levels.items()}
    best = min(wrong, key=lambda one: wrong[one])
    parts = demand.summed(levels[best], sales.parent, count) * steps
    return best, demand.trust_in_items(parts, own.sum(axis=-1), demand.summed(sold, sales.parent, count))


def _own_forecasts(
    shared: SharedSalesModel, series: Floats, spec: SalesSpec, origins: NDArray[np.int64], steps: int
) -> Floats:
    """Pieces per category, origin and step: the model as far as it reaches, behind it the mean of the last four."""
    far = np.maximum(mean_of_four(series[0], origins, steps, spec.season), 0.0)
    near = method_values(shared, series, spec, shared.method, origins)[0][..., :steps]
    far[..., : near.shape[-1]] = np.maximum(near, 0.0)
    return np.asarray(far * spec.bounds[0])


def _ahead(series: Floats, origins: NDArray[np.int64], steps: int) -> Floats:
    """What was sold in the periods behind each origin: ``[I, O]``."""
    sums = np.concatenate([np.zeros((len(series), 1)), series.cumsum(axis=1)], axis=1)
    return np.asarray(sums[:, origins + 1 + steps] - sums[:, origins + 1])


def _lead_sums(levels: Floats, parent: NDArray[np.int64], own: Floats, trust: Floats, lead: int) -> Floats:
    shares, met = demand.reconciled(levels, parent, own, trust)
    return np.asarray(shares * met[..., :lead].sum(axis=-1)[parent])


def _whole(pieces: Floats) -> Floats:
    """Up to whole pieces; rounding errors of sums do not cost one."""
    return np.maximum(np.ceil(pieces - 1e-6), 0.0)


def _orders(sales: ItemSales, reorder: Floats, cover: Floats, on_hand: Mapping[str, float] | None) -> Floats:
    """Pieces to order now; where nobody knows what is on hand, what one order should be."""
    named = np.array([name != NAMELESS for name in sales.items])
    if on_hand is None:
        return np.asarray(_whole(cover) * named)
    there = np.array([on_hand.get(name, 0.0) for name in sales.items])
    wanted = named & (reorder > 0) & (there <= reorder)
    return np.where(wanted, _whole(reorder + cover - there), 0.0)


@dataclass(frozen=True)
class _Spread:
    """How far demand strays from its forecast, the variance being proportional to it.

    Shapes: ``ratio: [I]`` variance per piece forecast, an item's own shrunk towards that of all; ``strays``: sorted errors in
    units of their own spread, per class of forecasts.
    """

    ratio: Floats
    strays: tuple[Floats, ...]

    @staticmethod
    def of(tested: Floats, sold: Floats, known: NDArray[np.bool_], lead: int) -> _Spread:
        """From a backtest: ``[I, O]`` each. Neighbouring origins overlap, so they count as fewer."""
        used = known & (tested > 1e-9)
        squares, sums = ((sold - tested) ** 2 * used).sum(axis=1), (tested * used).sum(axis=1)
        everybody = squares.sum() / max(sums.sum(), 1e-9)
        count = np.maximum(used.sum(axis=1), 1)
        mean, independent = sums / count, np.ceil(count / lead)
        ratio = (independent * squares / count + _PRIOR * everybody * mean) / np.maximum(
            (independent + _PRIOR) * mean, 1e-9
        )
        ratio = np.where(mean > 0, ratio, everybody)
        scale = np.sqrt(np.maximum(ratio[:, None] * tested, 1e-9))
        strays, sizes = ((sold - tested) / scale)[used], np.digitize(tested[used], _CLASSES)
        every = np.sort(strays)
        classes = [np.sort(strays[sizes == k]) for k in range(len(_CLASSES) + 1)]
        return _Spread(ratio, tuple(one if len(one) >= _CLASS_SIZE else every for one in classes))

    def margin(self, forecast: Floats, level: float) -> Floats:
        """Pieces above (or below) the forecast that demand does not pass with this chance: ``[I]``."""
        quantiles = np.array([_quantile(one, level) for one in self.strays])
        return np.asarray(quantiles[np.digitize(forecast, _CLASSES)] * np.sqrt(self.ratio * forecast))


def _quantile(strays: Floats, level: float) -> float:
    """The conformal quantile of sorted errors; 0 of none."""
    place = min(math.ceil((len(strays) + 1) * level), len(strays)) - 1
    return float(strays[max(place, 0)]) if len(strays) else 0.0


def _achieved(tested: Floats, sold: Floats, known: NDArray[np.bool_], lead: int, level: float) -> float:
    """Share of lead times without running out, in the later half by what the earlier half says; NaN if none can be told."""
    half = tested.shape[1] // 2
    spread = _Spread.of(tested[:, :half], sold[:, :half], known[:, :half], lead)
    held = [
        (sold[:, k] <= _whole(tested[:, k] + spread.margin(tested[:, k], level)))[known[:, k]]
        for k in range(half, tested.shape[1])
    ]
    every = np.concatenate(held)
    return float(every.mean()) if len(every) else math.nan


def accuracy(
    series: Floats, origins: NDArray[np.int64], steps: int, season: int, others: Mapping[str, Floats]
) -> dict[str, dict[str, float]]:
    """WAPE, MASE and bias of the pieces sold in ``steps`` periods, pooled over all items; trivial forecasts beside.

    An item counts from its first sale on. ``others``: forecaster -> ``[I, O]``. MASE is the sum of the items' mean errors over the
    sum of their mean changes from one such span to the next, before the first origin. NaN where nothing was sold.
    """
    sold, known = _ahead(series, origins, steps), demand.known_at(series, origins)
    early = np.arange(steps - 1, max(int(origins[0]) - steps, steps) + 1)
    early = early[early + steps < series.shape[1]]
    scale = np.abs(_ahead(series, early, steps) - _ahead(series, early - steps, steps)).mean(axis=1)
    found = {
        **others,
        "mean-of-four": mean_of_four(series, origins, steps, season).sum(axis=-1),
        "seasonal-naive": seasonal_naive(series, origins, steps, season).sum(axis=-1),
        "croston": demand.croston(series, origins) * steps,
        "nothing sold": np.zeros_like(sold),
    }
    return {name: _figures(values, sold, known, scale) for name, values in found.items()}


def _figures(values: Floats, sold: Floats, known: NDArray[np.bool_], scale: Floats) -> dict[str, float]:
    wrong, total = np.abs(values - sold) * known, float((sold * known).sum())
    count = known.sum(axis=1)
    able = (scale > 0) & known[:, 0]  # of an item that came later, the change before says nothing
    own = float((wrong.sum(axis=1)[able] / count[able]).sum())
    bias = float(((values - sold) * known).sum())
    return {
        "wape": float(wrong.sum()) / total if total else math.nan,
        "mase": own / float(scale[able].sum()) if able.any() else math.nan,
        "bias": bias / total if total else math.nan,
    }


def _notes(sales: ItemSales, spec: SalesSpec, on_hand: Mapping[str, float] | None) -> tuple[str, ...]:
    """What must be said of the log."""
    never = int((sales.series.sum(axis=1) == 0).sum())
    pieces = float(sales.returned.sum())
    unlisted = sum(name not in on_hand for name in sales.items) if on_hand is not None else 0
    said = [
        f"{never:,} item{'s were' if never > 1 else ' was'} never sold in these {spec.periods} {spec.granularity}s: forecast 0, nothing to order" if never else "",
        f"{sales.returns:,} returns of {pieces:,.0f} pieces: counted beside the demand, not taken off it" if sales.returns else "",
        f"{sales.elsewhere:,} purchases are in no category that the model knows: left out" if sales.elsewhere else "",
        f"{unlisted:,} items are not in the stock file: taken for none on hand" if unlisted else "",
    ]  # fmt: skip
    return tuple(words for words in said if words)


def stock_table(found: Stock) -> dict[str, list[Any]]:
    """One line per item, what is to be ordered most of first."""
    there, sales = found.asked.on_hand, found.sales
    sold = sales.series.sum(axis=1)
    order = np.lexsort((-found.lead, -found.reorder, -found.order))
    last = np.where(sold > 0, found.spec.periods - 1 - (sales.series[:, ::-1] > 0).argmax(axis=1), -1)
    columns: dict[str, list[Any]] = {
        "item": [sales.items[i] for i in order],
        "category": [found.names[sales.parent[i]] if sales.parent[i] >= 0 else "" for i in order],
        "sold": [float(sold[i]) for i in order],
        "returned": [float(sales.returned[i]) for i in order],
        "last_sale": [found.spec.first_day(int(last[i])).isoformat() if last[i] >= 0 else "never" for i in order],
        "forecast": [float(found.lead[i]) for i in order],
        "low80": [float(found.low[i]) for i in order],
        "high80": [float(found.high[i]) for i in order],
        "reorder_point": [int(found.reorder[i]) for i in order],
        "order": [int(found.order[i]) for i in order],
    }
    if there is not None:
        columns["on_hand"] = [float(there.get(sales.items[i], 0.0)) for i in order]
    return columns
