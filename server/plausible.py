"""Is a sum one that honest sites can have made? Judged by public constants only, before anything is done with it.

The server sees the sum and nothing else, so it cannot say whose part is false, and nobody is named. Two kinds of limits:
what no honest sites can exceed refuses a sum, and what honest sites of usual logs do not exceed shortens an update. Both look
at the *mean* update, which is what moves the model: few stockists leave a row more noise, and a single one's part is larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.contribution import UPDATE
from common.run import RunPlan
from common.tasks import TAIL, Legal, Reach
from server.cohort import ItemCoordinates, added_up, divided, mean_update

REFUSED_IN_A_ROW = 2  # then the run stops: somebody does it on purpose

LENGTH, COORDINATE, ROW = "length of the update", "largest coordinate", "longest row of an item"
_LENGTH = 1.15  # usual: over the predicted length; the root of a sum of squares is not quite its prediction
_SINGLE = 1.001  # what single precision rounds at most, over all steps of a site
_OF_ROW = 0.4  # usual: share of the signal that lies in the rows of one item; .13 was measured in most logs

Vector = NDArray[np.float64]
Figure = tuple[float, float]
Sums = Mapping[str, Vector]


@dataclass(frozen=True)
class Judgement:
    """What was looked at: name -> (seen, largest that is honest). Made of a noised sum, so it is released, at no epsilon.

    ``update: float32[d]``: the mean update that may be applied; ``unusual``: of one that was shortened for it, name -> (seen,
    what it became).
    """

    figures: Mapping[str, Figure]
    unusual: Mapping[str, Figure] = field(default_factory=dict)
    update: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    @property
    def why_not(self) -> str:
        """What is impossible, in words; empty if nothing is."""
        return "; ".join(
            f"{name} is {seen:.4g}, honest sites reach {limit:.4g} at most"
            for name, (seen, limit) in self.figures.items()
            if not seen <= limit
        )

    @property
    def shortened(self) -> str:
        """What was shortened, in words; empty if nothing was."""
        return "; ".join(
            f"{name} shortened from {seen:.4g} to {limit:.4g}" for name, (seen, limit) in self.unusual.items()
        )


def judge(
    plan: RunPlan, kind: str, sums: Sums, survivors: Sequence[str], rows: ItemCoordinates | None
) -> Judgement:
    """Judge the weighted sum of the survivors' contributions, and make the mean update of it.

    Shapes: ``sums[UPDATE]: float64[d]``, the other blocks as their task lays them out.
    """
    figures: dict[str, Figure] = {}
    legal = plan.task.legal(plan, kind, survivors)
    for block in plan.blocks(kind):
        if block.name in legal:
            rounding = len(survivors) * 2.0**-block.fractional_bits
            figures |= _of_counts(block.name, sums[block.name], legal[block.name], rounding)
    if UPDATE not in sums:
        return Judgement(figures)
    mean = mean_update(sums[UPDATE], survivors, plan, rows)
    limits = _Limits.of(plan, survivors, rows, len(mean))
    update, unusual = limits.shortened(mean)
    judged = Judgement(limits.figures(mean) | figures, unusual, update.astype(np.float32))
    return Judgement(judged.figures) if judged.why_not else judged


@dataclass(frozen=True)
class _Limits:
    """How far the mean update of these sites can be from nothing.

    ``noise``: predicted deviation of each coordinate, ``rounding``: what fixed point adds to it at most; ``item``: whose
    row it belongs to, -1 for none. ``sizes``: how many coordinates each site's own model has.
    """

    noise: Vector
    rounding: Vector
    item: NDArray[np.int32]
    sizes: Mapping[str, int]
    reached: Mapping[str, Reach]
    share: Mapping[str, float]

    @staticmethod
    def of(plan: RunPlan, survivors: Sequence[str], rows: ItemCoordinates | None, size: int) -> _Limits:
        """From the plan and the public masks, for ``size`` coordinates."""
        weights = {site: plan.weight(site) for site in survivors}
        sizes = {site: size if rows is None else rows.coordinates_of(site) for site in survivors}
        reached = {site: plan.task.reach(plan, site, sizes[site]) for site in survivors}
        divisor = added_up(weights, size, rows)
        block = next(block for block in plan.blocks("train") if block.name == UPDATE)
        noises = {site: weights[site] * reached[site].noise for site in survivors}
        return _Limits(
            divided(np.sqrt(added_up(noises, size, rows, power=2)), divisor),
            divided(np.full(size, len(survivors) * 2.0**-block.fractional_bits), divisor),
            np.full(size, -1, dtype=np.int32) if rows is None else rows.item_of,
            sizes,
            reached,
            _largest_share(weights, divisor, rows),
        )

    def figures(self, mean: Vector) -> dict[str, Figure]:
        """What is seen, and what no honest sites exceed.

        Of a coordinate or a row, which are weighted means over sites, the longest of any site; of the whole, where each row
        has weights of its own, Jensen's inequality.
        """
        free = self.item < 0
        longest = {site: (_SINGLE * reach.most(self.sizes[site])) for site, reach in self.reached.items()}
        whole = math.sqrt(sum(self.share[site] * length**2 for site, length in longest.items()))
        coordinate = self._most(1) + self.rounding[free]
        seen = {
            LENGTH: (float(np.linalg.norm(mean)), whole + float(np.linalg.norm(self.rounding))),
            COORDINATE: _nearest(np.abs(mean[free]), coordinate),
        }
        if not free.all():
            counts = np.bincount(self.item[~free])
            of_count = {int(count): self._most(int(count)) for count in np.unique(counts)}
            rows = np.array([of_count[int(count)] for count in counts])
            seen[ROW] = _nearest(self._rows(mean), rows + self._rows(self.rounding))
        return seen

    def shortened(self, mean: Vector) -> tuple[Vector, dict[str, Figure]]:
        """The mean update with each coordinate of no item, each item's row, and then the whole, no longer than is usual.

        Returns it and, of each kind of limit that shortened something, what was seen and what it became at the worst place.
        """
        free, factor, unusual = self.item < 0, np.ones(len(mean)), {}
        noise, reached = self.noise + self.rounding, self.reached.values()

        def shorten(name: str, seen: Vector, limits: Vector) -> Vector:
            worst = _nearest(seen, limits)
            if worst[0] > worst[1]:
                unusual[name] = worst
            return np.minimum(1.0, limits / np.maximum(seen, 1e-300))

        coordinate = TAIL * noise[free] + max(reach.usual for reach in reached)
        factor[free] = shorten(COORDINATE, np.abs(mean[free]), coordinate)
        if not free.all():
            usual = self._row_noise(noise) + _OF_ROW * max(reach.usual_row for reach in reached)
            factor[~free] = shorten(ROW, self._rows(mean), usual)[self.item[~free]]
        signal = math.sqrt(sum(self.share[site] * reach.usual**2 for site, reach in self.reached.items()))
        longest = _LENGTH * math.hypot(signal, float(np.linalg.norm(noise)) + TAIL * float(noise.max(initial=0.0)))
        factor *= shorten(LENGTH, np.array([np.linalg.norm(mean * factor)]), np.array([longest]))
        return mean * factor, unusual

    def _most(self, coordinates: int) -> float:
        """The longest that so many coordinates are at any site, and so in a mean over sites."""
        return _SINGLE * max(reach.most(coordinates) for reach in self.reached.values())

    def _rows(self, values: Vector) -> Vector:
        """Length of each item's row: ``[items]``."""
        belongs = self.item >= 0
        return np.sqrt(np.bincount(self.item[belongs], weights=values[belongs] ** 2))

    def _row_noise(self, noise: Vector) -> Vector:
        """The longest that noise of these deviations is in each item's row."""
        belongs = self.item >= 0
        largest = np.zeros(int(self.item.max(initial=-1)) + 1)
        np.maximum.at(largest, self.item[belongs], noise[belongs])
        return self._rows(noise) + TAIL * largest


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


def _nearest(seen: Vector, limits: Vector) -> Figure:
    """The one that is nearest to its limit, or beyond it; what is no number comes first."""
    if not len(seen):
        return 0.0, math.inf
    part = np.nan_to_num(seen / np.maximum(limits, 1e-30), nan=np.inf, posinf=np.inf)
    worst = int(np.argmax(part))
    return float(seen[worst]), float(limits[worst])


def _of_counts(block: str, sums: NDArray[np.float64], legal: Legal, rounding: float) -> dict[str, Figure]:
    """The first number, which counts consumers or sites, and the largest and smallest of the others."""
    first, others, (low, high) = float(sums[0]), sums[1:], legal.first
    figures = {
        f"first number of the {block}": (first, high + rounding),
        f"first number of the {block}, below zero": (-first, rounding - low),
    }
    if len(others):
        most = min(legal.high, first + legal.beyond_first)
        figures[f"largest number of the {block}"] = (float(others.max()), most + 2 * rounding)
        figures[f"smallest number of the {block}, below zero"] = (-float(others.min()), rounding - legal.low)
    return figures
