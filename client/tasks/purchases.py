"""Purchases as a sales series needs them: per consumer and cell (category, period), how much and for how much.

Quantities and prices are winsorized at public caps before anything is summed; a purchase without a quantity
counts as one piece, one without a price adds no revenue.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.data import EventLog
from common.tasks.sales_series import CHANNELS, OTHER, Floats, SalesSpec


@dataclass(frozen=True)
class Purchases:
    """What each consumer bought, one line per consumer and cell, sorted by consumer. PRIVATE.

    Shapes: ``consumer, cell: int64[R]``, a cell is ``category * periods + period``; ``amounts: float64[R, channels]``
    quantity and revenue, winsorized, in pieces and in money.
    """

    consumer: NDArray[np.int64]
    cell: NDArray[np.int64]
    amounts: Floats

    def scaled(self, spec: SalesSpec) -> Floats:
        """Amounts in units of the public bounds."""
        return np.asarray(self.amounts / np.array(spec.bounds))

    def norms(self, spec: SalesSpec) -> Floats:
        """L2 norm of each line's consumer over all cells and channels, in units of the bounds: ``float64[R]``."""
        squares = (self.scaled(spec) ** 2).sum(axis=1)
        return np.asarray(np.sqrt(np.bincount(self.consumer, weights=squares)[self.consumer]))

    def series(self, spec: SalesSpec, clip: float = 0.0) -> Floats:
        """The sum over consumers: ``float64[channels, categories, periods]`` in units of the bounds.

        Guarantee: with ``clip``, adding or removing one consumer changes the result by at most ``clip`` in L2 norm.
        """
        values: Floats = self.scaled(spec)
        if clip:
            values = values * np.minimum(1.0, clip / np.maximum(self.norms(spec), 1e-300))[:, None]
        cells = spec.cells // len(CHANNELS)
        sums = [np.bincount(self.cell, weights=column, minlength=cells) for column in values.T]
        return np.asarray(np.stack(sums).reshape(spec.shape), dtype=np.float64)


def joined_purchases(parts: Iterable[Purchases]) -> Purchases:
    """Purchases of a log in pieces, of which each has other consumers than those before it; none of no piece."""
    consumers, cells, amounts, people = [], [], [], 0
    for part in parts:
        consumers.append(part.consumer + people)
        cells.append(part.cell)
        amounts.append(part.amounts)
        people += int(part.consumer.max(initial=-1)) + 1
    if not cells:
        nothing = np.zeros(0, dtype=np.int64)
        return Purchases(nothing, nothing, np.zeros((0, len(CHANNELS))))
    return Purchases(np.concatenate(consumers), np.concatenate(cells), np.concatenate(amounts))


def purchases_of(log: EventLog, spec: SalesSpec, caps: tuple[float, float]) -> Purchases:
    """Sum a log's purchases per consumer and cell. Purchases outside dates and categories are left out.

    ``caps``: public largest quantity and largest price of one purchase.
    """
    frame = log.frame.filter(pl.col("event") == "purchase")
    days = (frame["timestamp"] - datetime.combine(spec.start, time())).dt.total_microseconds().to_numpy()
    period = days // (86_400_000_000 * spec.days)
    category = categories_of(frame, spec)
    quantity = np.clip(np.nan_to_num(_floats(frame["quantity"]), nan=1.0), 0.0, caps[0])
    price = np.clip(np.nan_to_num(_floats(frame["price"]), nan=0.0), 0.0, caps[1])
    there = (period >= 0) & (period < spec.periods) & (category >= 0)
    consumer = np.unique(frame["consumer"].to_numpy()[there], return_inverse=True)[1]
    places = spec.cells // len(CHANNELS)
    keys, line = np.unique(
        consumer.astype(np.int64) * places + category[there] * spec.periods + period[there], return_inverse=True
    )
    amounts = [
        np.bincount(line, weights=values[there], minlength=len(keys)) for values in (quantity, quantity * price)
    ]
    return Purchases(keys // places, keys % places, np.stack(amounts, axis=1))


def _floats(column: pl.Series) -> Floats:
    """Missing values as NaN; infinities count as missing."""
    floats = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(floats), floats, np.nan)


def categories_of(frame: pl.DataFrame, spec: SalesSpec) -> NDArray[np.int64]:
    """Index of each purchase's category, -1 for one that is not in the list."""
    if len(spec.categories) == 1 and spec.categories[0] == "all":
        return np.zeros(frame.height, dtype=np.int64)
    rest = spec.categories.index(OTHER) if OTHER in spec.categories else -1
    numbers = pl.Series(np.arange(len(spec.categories), dtype=np.int64))
    indices = frame["category"].replace_strict(
        pl.Series(spec.categories, dtype=pl.String), numbers, default=rest, return_dtype=pl.Int64
    )
    return indices.fill_null(rest).to_numpy()
