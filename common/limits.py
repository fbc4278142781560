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


@dataclass(frozen=True, eq=False)
class ItemCoordinates:
    """Which coordinates of the parameter vector belong to which item, and which site stocks it.

    Shapes: ``item_of: int32[d]``, -1 where a coordinate belongs to no item; ``masks[site]: bool[items]``.
    """

    item_of: NDArray[np.int32]
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @cached_property
    def group(self) -> NDArray[np.int32]:
        """Of each coordinate the group whose limits it shares: 0 for those of no item, ``1 + item`` for the others."""
        return np.asarray(self.item_of + 1, dtype=np.int32)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many coordinates each group has: ``int64[1 + items]``."""
        return np.bincount(self.group, minlength=1)

    def coordinates_of(self, site: str) -> int:
        """How many coordinates the site's own model has: those of no item, the rows of its mask, and row 0 in any case."""
        if not self.masks:
            return len(self.item_of)
        kept = np.concatenate([[True], self.masks[site][: len(self.counts) - 1]])
        kept[:2] = True
        return int(self.counts[kept].sum())


def mean_update(
    total: NDArray[np.float64], survivors: Sequence[str], plan: RunPlan, rows: ItemCoordinates | None
) -> NDArray[np.float64]:
    """Weighted mean of the survivors' updates from their weighted sum.

    An item's row is divided by the weights of the survivors that stock it: dividing by all of them
    would shrink what few sites know, while every site's noise stays.

    Shapes: ``total: float64[d]`` -> ``float64[d]``.
    """
    weights = added_up({site: plan.weight(site) for site in survivors}, rows)
    return divided(total, np.broadcast_to(weights, total.shape) if rows is None else weights[rows.group])


def added_up(values: Mapping[str, float], rows: ItemCoordinates | None, power: float = 1.0) -> Vector:
    """For each group of coordinates the sum of ``values ** power`` over the sites that have it: all, or an item's stockists.

    Shape: ``float64[1 + items]``, as ``ItemCoordinates.group`` numbers them.
    """
    items = 0 if rows is None else len(rows.counts) - 1
    whole = np.full(1 + items, sum(value**power for value in values.values()))
    if rows is not None and rows.masks:
        whole[1:] = sum(
            (values[s] ** power * rows.masks[s][:items].astype(np.float64) for s in values), np.zeros(1)
        )
    return whole


def divided(total: NDArray[np.float64], divisor: NDArray[np.float64]) -> NDArray[np.float64]:
    """``total / divisor``, of one shape; 0 where nobody has the coordinate."""
    known = divisor > 0
    if known.all():
        return total / divisor
    return np.divide(total, divisor, out=np.zeros_like(total), where=known)


@dataclass(frozen=True)
class Lengths:
    """Limits of a mean update: of the whole, of a coordinate of no item (none: infinite), of each item's row.

    Shape: ``row: float64[items]``, empty without items.
    """

    whole: float
    coordinate: float
    row: Vector

    def largest(self) -> dict[str, float]:
        """The largest of each kind, by name."""
        found = {LENGTH: self.whole, COORDINATE: self.coordinate}
        return found | ({ROW: float(self.row.max())} if len(self.row) else {})


@dataclass(frozen=True)
class UpdateLimits:
    """How far the mean update of these sites can be from nothing.

    All coordinates of one item have the same figures, and all of no item: what is kept is one number for each such group.
    Shapes: ``noise: float64[1 + items]``: predicted deviation of each coordinate, ``rounding``: what fixed point adds to it at
    most; ``counts``: coordinates of each group; ``group: int32[d]``, None where there is but one. ``sizes``: how many coordinates
    each site's answer has, ``reached``: how far it goes, ``share``: its largest part in a coordinate of the mean. ``foreign:
    float64[items]``: by how much more than a weighted mean a row is, as sites that share the noise of a sum noise every row and
    only its stockists divide it.
    """

    noise: Vector
    rounding: Vector
    counts: NDArray[np.int64]
    group: NDArray[np.int32] | None
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
        divisor = added_up(weights, rows)
        block = next(block for block in plan.blocks("train") if block.name == UPDATE)
        noises = {site: weights[site] * reached[site].noise for site in survivors}
        whole_weight = np.full(len(divisor), sum(weights.values()))
        shared = np.sqrt(added_up(noises, theirs, power=2))
        return UpdateLimits(
            divided(np.broadcast_to(shared, divisor.shape) if plan.quorum else shared, divisor),
            divided(np.full(len(divisor), len(survivors) * block.step), divisor),
            np.array([size]) if rows is None else rows.counts,
            None if rows is None else rows.group,
            sizes,
            reached,
            _largest_share(weights, divisor, rows),
            np.maximum(divided(whole_weight, divisor), 1.0)[1:] if plan.quorum else np.ones(len(divisor) - 1),
        )

    @cached_property
    def free(self) -> NDArray[np.bool_]:
        """Which coordinates belong to no item."""
        return np.ones(int(self.counts[0]), dtype=np.bool_) if self.group is None else self.group == 0

    @cached_property
    def possible(self) -> Lengths:
        """What no honest sites exceed, whoever their consumers are.

        Of a coordinate or a row, which are weighted means over sites, the longest of any site; of the whole, where each row
        has weights of its own, Jensen's inequality.
        """
        longest = {site: SINGLE * reach.most(self.sizes[site]) for site, reach in self.reached.items()}
        whole = math.sqrt(sum(self.share[site] * length**2 for site, length in longest.items()))
        whole *= float(self.foreign.max(initial=1.0))
        of_count = {count: self._most(count) for count in {1, *self.counts[1:].tolist()}}
        rows = np.array([of_count[count] for count in self.counts[1:].tolist()], dtype=np.float64) * self.foreign
        return Lengths(
            whole + self._length(self.rounding),
            self._coordinate(of_count[1] + float(self.rounding[0])),
            rows + self._rows(self.rounding),
        )

    @cached_property
    def usual(self) -> Lengths:
        """What honest sites of usual logs do not exceed."""
        noise, reached = np.where(self.counts > 0, self.noise + self.rounding, 0.0), self.reached.values()
        signal = math.sqrt(sum(self.share[site] * reach.usual**2 for site, reach in self.reached.items()))
        return Lengths(
            _LENGTH * math.hypot(signal, self._length(noise) + TAIL * float(noise.max())),
            self._coordinate(TAIL * float(noise[0]) + max(reach.usual for reach in reached)),
            self._rows(noise) + TAIL * noise[1:] + _OF_ROW * max(reach.usual_row for reach in reached),
        )

    @cached_property
    def ordinary_row(self) -> Vector:
        """How long the rows of items are in most logs, which is what an unusual one becomes: ``float64[items]``.

        Not as long as is usual at most: then a push that is loud would bring as much as the best that is not.
        """
        return self._rows(self.noise + self.rounding) + _IN_MOST * max(
            reach.usual_row for reach in self.reached.values()
        )

    @property
    def becomes(self) -> dict[str, float]:
        """The most that each kind of what is not usual becomes, by name."""
        usual = self.usual.largest()
        return usual | ({ROW: float(self.ordinary_row.max())} if ROW in usual else {})

    def seen(self, mean: Vector) -> Lengths:
        """What is seen of a mean update ``float64[d]``: its length, its largest coordinate of no item, its rows."""
        squares = np.square(mean)
        if self.group is None:
            return Lengths(math.sqrt(squares.sum()), math.sqrt(squares.max()), np.zeros(0))
        added = np.bincount(self.group, weights=squares, minlength=len(self.counts))
        largest = squares.max(initial=0.0, where=self.free) if self.counts[0] else 0.0
        return Lengths(math.sqrt(added.sum()), math.sqrt(largest), np.sqrt(added[1:]))

    def figures(self, seen: Lengths) -> dict[str, Figure]:
        """What is ``seen`` of a mean update, and the limit of what is possible, where they are nearest."""
        found = {
            LENGTH: (seen.whole, self.possible.whole),
            COORDINATE: (seen.coordinate, self.possible.coordinate),
        }
        return found | ({ROW: nearest(seen.row, self.possible.row)} if len(seen.row) else {})

    def _coordinate(self, limit: float) -> float:
        return limit if self.counts[0] else math.inf

    def _length(self, values: Vector) -> float:
        """Length of a vector that has these values in its groups."""
        return math.sqrt(float(np.sum(self.counts * values**2)))

    def _rows(self, values: Vector) -> Vector:
        """Length of each item's row in such a vector: ``float64[items]``."""
        return np.sqrt(self.counts * values**2)[1:]

    def _most(self, coordinates: int) -> float:
        """The longest that so many coordinates are at any site, and so in a mean over sites."""
        return SINGLE * max(reach.most(coordinates) for reach in self.reached.values())


def _largest_share(
    weights: Mapping[str, float], divisor: Vector, rows: ItemCoordinates | None
) -> dict[str, float]:
    """The largest part that each site's value has in the mean of any coordinate that it answers for.

    A mean of vectors is no longer than ``sqrt(sum(share * length^2))``, by Jensen's inequality in every coordinate.
    """
    least = {site: sum(weights.values()) for site in weights}
    if rows is not None and rows.masks:
        there = rows.counts[1:] > 0
        for site in weights:
            own = divisor[1:][there & rows.masks[site][: len(there)]]
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
