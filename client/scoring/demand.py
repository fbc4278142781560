"""Demand of single items, of which most sell on few days: forecasts of one level per item, from what was known then.

Everything is a recursion over periods, all items at once; a level is in pieces per period. An item is unknown before its
first sale: what lies before it is no demand of zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Origins = NDArray[np.int64]
SMOOTHING = 0.1
"""Weight of a new sale, once so many are known that it weighs less than in a plain mean."""


def known_at(series: Floats, origins: Origins) -> NDArray[np.bool_]:
    """Whether an item had been sold by then. Shapes: ``[items, T]`` -> ``[items, origins]``."""
    first = np.where((series > 0).any(axis=1), (series > 0).argmax(axis=1), series.shape[1])
    return np.asarray(first[:, None] <= origins)


def tsb(series: Floats, origins: Origins, smoothing: float = SMOOTHING) -> Floats:
    """Chance of a sale times its size, both smoothed; the chance falls in every period without a sale.

    So what is sold no more fades out, which Croston's level never does. Both begin as plain means.
    Shapes: ``series: [items, T]``, origins ascending -> ``[items, origins]``.
    Source: Teunter, Syntetos, Babai 2011, "Intermittent demand: linking forecasting to inventory obsolescence".
    """
    items, levels = len(series), np.zeros((len(series), len(origins)))
    chance, size, age, sales = (np.zeros(items) for _ in range(4))
    place = 0
    for period in range(int(origins[-1]) + 1):
        now = series[:, period]
        sold, begun = now > 0, age > 0
        age += begun  # the first sale says nothing of how often
        gain = np.maximum(smoothing, 1.0 / (age + 1.0))
        chance = np.where(begun, chance + gain * (sold - chance), np.where(sold, 0.5, 0.0))
        sales += sold
        size += np.where(sold, np.maximum(smoothing, 1.0 / np.maximum(sales, 1.0)) * (now - size), 0.0)
        age = np.where(begun, age, sold.astype(np.float64))
        while place < len(origins) and origins[place] == period:
            levels[:, place] = chance * size
            place += 1
    return levels


def croston(series: Floats, origins: Origins, smoothing: float = SMOOTHING, *, unbiased: bool = False) -> Floats:
    """Mean size of a sale over the mean number of periods between two; both change at a sale only.

    ``unbiased``: times ``1 - smoothing / 2`` (SBA). Shapes: as ``tsb``.
    Source: Croston 1972; Syntetos, Boylan 2005, "The accuracy of intermittent demand estimates".
    """
    items, levels = len(series), np.zeros((len(series), len(origins)))
    size, pause = np.zeros(items), np.zeros(items)
    since = np.zeros(items)
    place = 0
    for period in range(int(origins[-1]) + 1):
        now = series[:, period]
        since += 1
        sold, first = now > 0, size == 0
        gain = np.where(first, 1.0, smoothing)
        size += np.where(sold, gain * (now - size), 0.0)
        pause += np.where(sold, gain * (since - pause), 0.0)
        since = np.where(sold, 0.0, since)
        while place < len(origins) and origins[place] == period:
            levels[:, place] = np.where(pause > 0, size / np.maximum(pause, 1.0), 0.0)
            place += 1
    return levels * (1 - smoothing / 2) if unbiased else levels


def reconciled(
    levels: Floats, parent: NDArray[np.int64], categories: Floats, trust: Floats
) -> tuple[Floats, Floats]:
    """Shares of the items and forecasts of the categories: share times category adds up exactly, item to category to site.

    A category has two forecasts, its own and the sum of its items' levels; ``trust`` weighs the second (0: top-down, 1:
    bottom-up), and the items share the result by their levels. With a weight by the inverse of both errors this is the
    minimum-trace reconciliation whose error covariance is diagonal, an item's variance being proportional to its level: it
    needs no covariance of thousands of series that hardly sell, and nothing becomes negative.

    Shapes: ``levels: [I, O]``, ``parent: int64[I]`` category of each, ``categories: [C, O, H]``, ``trust: [C]``
    -> ``[I, O]``, ``[C, O, H]``.
    Source: Wickramasuriya, Athanasopoulos, Hyndman 2019, "Optimal forecast reconciliation"; Athanasopoulos, Ahmed,
    Hyndman 2009 (top-down by forecast proportions).
    """
    sums = summed(levels, parent, len(categories))
    mean = categories.mean(axis=-1)
    target = trust[:, None] * sums + (1 - trust[:, None]) * mean
    target = np.where(sums > 0, target, 0.0)  # no item has been sold: nobody to share it among
    shape = np.where(mean[..., None] > 0, categories / np.where(mean > 0, mean, 1.0)[..., None], 1.0)
    shared = sums[parent]
    return np.where(shared > 0, levels / np.where(shared > 0, shared, 1.0), 0.0), target[..., None] * shape


def summed(levels: Floats, parent: NDArray[np.int64], count: int) -> Floats:
    """Sums of each category's items. Shapes: ``[I, O]`` -> ``[count, O]``."""
    sums = np.zeros((count, *levels.shape[1:]))
    np.add.at(sums, parent, levels)
    return sums


def trust_in_items(item_sums: Floats, categories: Floats, truth: Floats) -> Floats:
    """How much the sum of the items' levels is to be trusted against the category's own forecast, by the inverse squared error.

    Shapes: ``[C, origins]`` each, sums over the horizon -> ``[C]`` in 0 to 1; where both are exact: 0.
    """
    items, own = ((found - truth) ** 2 for found in (item_sums, categories))
    wrong, right = own.mean(axis=1), items.mean(axis=1)
    both = wrong + right
    return np.asarray(np.where(both > 0, wrong / np.where(both > 0, both, 1.0), 0.0))
