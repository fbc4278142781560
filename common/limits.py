"""How far honest sums can be from nothing, by public constants: limits that refuse a sum, and limits that shorten an update.

Both are of the *mean* update, which is what moves the model: few stockists leave a row more noise, and a single one's part is
larger. Whoever holds plan and item masks computes the same, the server before a sum is used and an auditor afterwards; all of it
from public facts, never a count of data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from common.contribution import UPDATE
from common.run import RunPlan
from common.tasks import TAIL, Reach

LENGTH, COORDINATE, ROW = "length of the update", "largest coordinate", "longest row of an item"
SINGLE = 1.001  # what single precision rounds at most, over all steps of a site
_LENGTH = 1.15  # usual: over the predicted length; the root of a sum of squares is not quite its prediction
_OF_ROW = 0.4  # usual: share of the signal that lies in the rows of one item
_IN_MOST = 0.13  # the same as it was measured in most logs

Vector = NDArray[np.float64]
Figure = tuple[float, float]
"""(seen, limit)."""


@dataclass(frozen=True)
class ItemCoordinates:
    """Which coordinates of the parameter vector belong to which item, and which site stocks it.

    Shapes: ``item_of: int32[d]``, -1 where a coordinate belongs to no item; ``masks[site]: bool[items]``.
    """

    item_of: NDArray[np.int32]
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def coordinates_of(self, site: str) -> int:
        """How many coordinates the site's own model has: those of no item, the rows of its mask, and row 0 in any case."""
        if not self.masks:
            return len(self.item_of)
        kept = self.masks[site].copy()
        kept[0] = True
        return int(np.count_nonzero((self.item_of < 0) | kept[self.item_of]))


def mean_update(
    total: NDArray[np.float64], survivors: Sequence[str], plan: RunPlan, rows: ItemCoordinates | None
) -> NDArray[np.float64]:
    """Weighted mean of the survivors' updates from their weighted sum.

    An item's row is divided by the weights of the survivors that stock it: dividing by all of them
    would shrink what few sites know, while every site's noise stays.

    Shapes: ``total: float64[d]`` -> ``float64[d]``.
    """
    weights = {site: plan.weight(site) for site in survivors}
    return divided(total, added_up(weights, len(total), rows))


def added_up(values: Mapping[str, float], size: int, rows: ItemCoordinates | None, power: float = 1.0) -> Vector:
    """For each of ``size`` coordinates the sum of ``values ** power`` over the sites that have it: all, or an item's stockists.

    Shape: ``float64[d]``.
    """
    whole = np.full(size, sum(value**power for value in values.values()))
    if rows is not None and rows.masks:
        stocked = sum((values[s] ** power * rows.masks[s].astype(np.float64) for s in values), np.zeros(1))
        belongs = rows.item_of >= 0
        whole[belongs] = np.asarray(stocked)[rows.item_of[belongs]]
    return whole


def divided(total: NDArray[np.float64], divisor: NDArray[np.float64]) -> NDArray[np.float64]:
    """``total / divisor: float64[d]``; 0 where nobody has the coordinate."""
    return np.divide(total, divisor, out=np.zeros_like(total), where=divisor > 0)


@dataclass(frozen=True)
class Lengths:
    """Limits of a mean update. Shapes: ``coordinate: float64[those of no item]``, ``row: float64[items]``, empty without items."""

    whole: float
    coordinate: Vector
    row: Vector

    def largest(self) -> dict[str, float]:
        """The largest of each kind, by name."""
        kinds = {COORDINATE: self.coordinate, ROW: self.row}
        return {LENGTH: self.whole} | {name: float(limits.max()) for name, limits in kinds.items() if len(limits)}


@dataclass(frozen=True)
class UpdateLimits:
    """How far the mean update of these sites can be from nothing.

    ``noise``: predicted deviation of each coordinate, ``rounding``: what fixed point adds to it at most; ``item``: whose
    row it belongs to, -1 for none. ``sizes``: how many coordinates each site's answer has, ``reached``: how far it goes,
    ``share``: its largest part in a coordinate of the mean. ``foreign``: for each item, by how much more than a weighted mean
    its row is: sites that share the noise of a sum noise every row, and only its stockists divide it.
    """

    noise: Vector
    rounding: Vector
    item: NDArray[np.int32]
    sizes: Mapping[str, int]
    reached: Mapping[str, Reach]
    share: Mapping[str, float]
    foreign: Vector

    @staticmethod
    def of(plan: RunPlan, survivors: Sequence[str], rows: ItemCoordinates | None) -> UpdateLimits:
        """From the plan and the public masks. Raises: KeyError for a site without a mask."""
        size, weights = plan.parameters, {site: plan.weight(site) for site in survivors}
        theirs = None if plan.quorum else rows  # whose noise is where
        sizes = {site: size if theirs is None else theirs.coordinates_of(site) for site in survivors}
        reached = {site: plan.task.reach(plan, site, sizes[site]) for site in survivors}
        divisor = added_up(weights, size, rows)
        block = next(block for block in plan.blocks("train") if block.name == UPDATE)
        noises = {site: weights[site] * reached[site].noise for site in survivors}
        item = np.full(size, -1, dtype=np.int32) if rows is None else rows.item_of
        return UpdateLimits(
            divided(np.sqrt(added_up(noises, size, theirs, power=2)), divisor),
            divided(np.full(size, len(survivors) * block.step), divisor),
            item,
            sizes,
            reached,
            _largest_share(weights, divisor, rows),
            _foreign(item, divided(added_up(weights, size, theirs), divisor)),
        )

    @cached_property
    def free(self) -> NDArray[np.bool_]:
        """Which coordinates belong to no item."""
        return self.item < 0

    @cached_property
    def possible(self) -> Lengths:
        """What no honest sites exceed, whoever their consumers are.

        Of a coordinate or a row, which are weighted means over sites, the longest of any site; of the whole, where each row
        has weights of its own, Jensen's inequality.
        """
        longest = {site: SINGLE * reach.most(self.sizes[site]) for site, reach in self.reached.items()}
        whole = math.sqrt(sum(self.share[site] * length**2 for site, length in longest.items()))
        whole *= float(self.foreign.max(initial=1.0))
        counts = np.bincount(self.item[~self.free])
        of_count = {count: self._most(count) for count in np.unique(counts).tolist()}
        rows = np.array([of_count[count] for count in counts.tolist()], dtype=np.float64) * self.foreign
        return Lengths(
            whole + float(np.linalg.norm(self.rounding)),
            self._most(1) + self.rounding[self.free],
            rows + self.rows(self.rounding),
        )

    @cached_property
    def usual(self) -> Lengths:
        """What honest sites of usual logs do not exceed."""
        noise, reached = self.noise + self.rounding, self.reached.values()
        signal = math.sqrt(sum(self.share[site] * reach.usual**2 for site, reach in self.reached.items()))
        whole = math.hypot(signal, float(np.linalg.norm(noise)) + TAIL * float(noise.max(initial=0.0)))
        largest = np.zeros(int(self.item.max(initial=-1)) + 1)
        np.maximum.at(largest, self.item[~self.free], noise[~self.free])
        return Lengths(
            _LENGTH * whole,
            TAIL * noise[self.free] + max(reach.usual for reach in reached),
            self.rows(noise) + TAIL * largest + _OF_ROW * max(reach.usual_row for reach in reached),
        )

    @cached_property
    def ordinary_row(self) -> Vector:
        """How long the rows of items are in most logs, which is what an unusual one becomes: ``float64[items]``.

        Not as long as is usual at most: then a push that is loud would bring as much as the best that is not.
        """
        return self.rows(self.noise + self.rounding) + _IN_MOST * max(
            reach.usual_row for reach in self.reached.values()
        )

    @property
    def becomes(self) -> dict[str, float]:
        """The most that each kind of what is not usual becomes, by name."""
        usual = self.usual.largest()
        return usual | ({ROW: float(self.ordinary_row.max())} if ROW in usual else {})

    def figures(self, mean: Vector) -> dict[str, Figure]:
        """What is seen of a mean update ``float64[d]``, and the limit of what is possible, where they are nearest."""
        seen = {
            LENGTH: (float(np.linalg.norm(mean)), self.possible.whole),
            COORDINATE: nearest(np.abs(mean[self.free]), self.possible.coordinate),
        }
        rows = self.rows(mean)
        return seen | ({ROW: nearest(rows, self.possible.row)} if len(rows) else {})

    def rows(self, values: Vector) -> Vector:
        """Length of each item's row: ``float64[items]``."""
        return np.sqrt(np.bincount(self.item[~self.free], weights=values[~self.free] ** 2))

    def _most(self, coordinates: int) -> float:
        """The longest that so many coordinates are at any site, and so in a mean over sites."""
        return SINGLE * max(reach.most(coordinates) for reach in self.reached.values())


def _foreign(item: NDArray[np.int32], ratio: Vector) -> Vector:
    """The largest ratio in the row of each item, at least 1: ``float64[items]``."""
    largest, belongs = np.ones(int(item.max(initial=-1)) + 1), item >= 0
    np.maximum.at(largest, item[belongs], ratio[belongs])
    return largest


def _largest_share(
    weights: Mapping[str, float], divisor: Vector, rows: ItemCoordinates | None
) -> dict[str, float]:
    """The largest part that each site's value has in the mean of any coordinate that it answers for.

    A mean of vectors is no longer than ``sqrt(sum(share * length^2))``, by Jensen's inequality in every coordinate.
    """
    least = {site: sum(weights.values()) for site in weights}
    if rows is not None and rows.masks:
        belongs = rows.item_of >= 0
        for site in weights:
            own = divisor[belongs][rows.masks[site][rows.item_of[belongs]]]
            least[site] = float(own.min(initial=least[site]))
    return {site: weights[site] / least[site] for site in weights}


def nearest(seen: Vector, limits: Vector) -> Figure:
    """The one that is nearest to its limit, or beyond it; what is no number comes first."""
    if not len(seen):
        return 0.0, math.inf
    part = np.nan_to_num(seen / np.maximum(limits, 1e-30), nan=np.inf, posinf=np.inf)
    worst = int(np.argmax(part if part.any() else np.nan_to_num(seen)))
    return float(seen[worst]), float(limits[worst])


def count_limits(
    plan: RunPlan, kind: str, survivors: Sequence[str], first: Mapping[str, float]
) -> dict[str, float]:
    """Limits of the other numbers of an answer, by name; ``first``: block -> its first number in the sum, which counts
    consumers or sites.
    """
    limits, legal = {}, plan.task.legal(plan, kind, survivors)
    for block in plan.blocks(kind):
        if block.name not in legal:
            continue
        allowed, rounding = legal[block.name], len(survivors) * block.step
        low, high = allowed.first
        limits[f"first number of the {block.name}"] = high + rounding
        limits[f"first number of the {block.name}, below zero"] = rounding - low
        if block.length > 1:
            most = min(allowed.high, first.get(block.name, math.inf) + allowed.beyond_first)
            limits[f"largest number of the {block.name}"] = most + 2 * rounding
            limits[f"smallest number of the {block.name}, below zero"] = rounding - allowed.low
    return limits
