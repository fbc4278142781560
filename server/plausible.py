"""Is a sum one that honest sites can have made? Judged by public constants only, before anything is done with it.

The server sees the sum and nothing else, so it cannot say whose part is false, and nobody is named. Two kinds of limits:
what no honest sites can exceed refuses a sum, and what honest sites of usual logs do not exceed shortens an update. Both look
at the *mean* update, which is what moves the model: few stockists leave a row more noise, and a single one's part is larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
_OF_ROW = 0.4  # usual: share of the signal that lies in the rows of one item; .13 was measured in most logs

Vector = NDArray[np.float64]
Figure = tuple[float, float]
Sums = Mapping[str, Vector]


@dataclass(frozen=True)
class Judgement:
    """What was looked at: name -> (seen, largest that is honest). Made of a noised sum, so it is released.

    ``unusual``: of an update that is to be shortened, name -> (seen, what it is shortened to).
    """

    figures: Mapping[str, Figure]
    unusual: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def why_not(self) -> str:
        """What is impossible, in words; empty if nothing is."""
        return "; ".join(
            f"{name} is {seen:.4g}, honest sites reach {limit:.4g} at most"
            for name, (seen, limit) in self.figures.items()
            if not seen <= limit
        )


def judge(
    plan: RunPlan, kind: str, sums: Sums, survivors: Sequence[str], rows: ItemCoordinates | None
) -> Judgement:
    """Judge the weighted sum of the survivors' contributions.

    Shapes: ``sums[UPDATE]: float64[d]``, the other blocks as their task lays them out.
    """
    figures: dict[str, Figure] = {}
    legal = plan.task.legal(plan, kind, survivors)
    for block in plan.blocks(kind):
        if block.name == UPDATE:
            limits = _Limits.of(plan, survivors, rows, len(sums[UPDATE]))
            mean = mean_update(sums[UPDATE], survivors, plan, rows)
            figures |= limits.figures(mean)
        elif block.name in legal:
            rounding = len(survivors) * 2.0**-block.fractional_bits
            figures |= _of_counts(block.name, sums[block.name], legal[block.name], rounding)
    judged = Judgement(figures)
    if judged.why_not or UPDATE not in sums:
        return judged
    return Judgement(figures, limits.shortened(mean)[1])


def usual_update(
    plan: RunPlan, total: Vector, survivors: Sequence[str], rows: ItemCoordinates | None
) -> NDArray[np.float32]:
    """The mean update of a weighted sum, shortened where ``Judgement.unusual`` says so.

    Shapes: ``total: float64[d]`` -> ``float32[d]``. It is made of a released sum, and costs no epsilon.
    """
    limits = _Limits.of(plan, survivors, rows, len(total))
    return limits.shortened(mean_update(total, survivors, plan, rows))[0].astype(np.float32)


@dataclass(frozen=True)
class _Limits:
    """How far the mean update of these sites can be from nothing.

    Consumers may agree, noise adds up in squares. ``noise``, ``most_noise``: predicted and largest deviation of
    each coordinate; ``item``: whose row it belongs to, -1 for none.
    """

    noise: Vector
    most_noise: Vector
    item: NDArray[np.int32]
    signal: _Signal

    @staticmethod
    def of(plan: RunPlan, survivors: Sequence[str], rows: ItemCoordinates | None, size: int) -> _Limits:
        """From the plan and the public masks, for ``size`` coordinates."""
        weights = {site: plan.weight(site) for site in survivors}
        reached = {site: plan.task.reach(plan, site) for site in survivors}
        divisor = added_up(weights, size, rows)
        block = next(block for block in plan.blocks("train") if block.name == UPDATE)
        rounding = len(survivors) * 2.0**-block.fractional_bits

        def spread(of: Callable[[Reach], float]) -> Vector:
            noises = {site: weights[site] * of(reached[site]) for site in survivors}
            return divided(np.sqrt(added_up(noises, size, rows, power=2)) + rounding, divisor)

        return _Limits(
            spread(lambda reach: reach.noise),
            spread(lambda reach: reach.most_noise),
            np.full(size, -1, dtype=np.int32) if rows is None else rows.item_of,
            _Signal.of(reached, _largest_share(weights, divisor, rows)),
        )

    def figures(self, mean: Vector) -> dict[str, Figure]:
        """What is seen, and what no honest sites exceed: the triangle's inequality, and the tail of the noise."""
        free, signal = self.item < 0, self.signal
        seen = {
            LENGTH: (float(np.linalg.norm(mean)), signal.most + _most_length(self.most_noise)),
            COORDINATE: _nearest(np.abs(mean[free]), TAIL * self.most_noise[free] + signal.most_row),
        }
        if not free.all():
            seen[ROW] = _nearest(self._rows(mean), self._row_noise(self.most_noise) + signal.most_row)
        return seen

    def shortened(self, mean: Vector) -> tuple[Vector, dict[str, Figure]]:
        """The mean update with each coordinate of no item, each item's row, and then the whole, no longer than is usual.

        Returns it and, of each kind of limit that shortened something, what was seen and what it became at the worst place.
        """
        free, signal, factor, unusual = self.item < 0, self.signal, np.ones(len(mean)), {}

        def shorten(name: str, seen: Vector, limits: Vector) -> Vector:
            worst = _nearest(seen, limits)
            if worst[0] > worst[1]:
                unusual[name] = worst
            return np.minimum(1.0, limits / np.maximum(seen, 1e-300))

        factor[free] = shorten(COORDINATE, np.abs(mean[free]), TAIL * self.noise[free] + signal.usual_coordinate)
        if not free.all():
            usual = self._row_noise(self.noise) + _OF_ROW * signal.usual_row
            factor[~free] = shorten(ROW, self._rows(mean), usual)[self.item[~free]]
        longest = _LENGTH * math.hypot(signal.usual, _most_length(self.noise))
        factor *= shorten(LENGTH, np.array([np.linalg.norm(mean * factor)]), np.array([longest]))
        return mean * factor, unusual

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


@dataclass(frozen=True)
class _Signal:
    """The longest signal in the mean update and in one row or coordinate of it: of any consumers, and of those of usual logs.

    All of the longest may lie in one row: a bias that all consumers move is no lie, and neither is a shop that sells one thing.
    """

    most: float
    most_row: float
    usual: float
    usual_row: float
    usual_coordinate: float

    @staticmethod
    def of(reached: Mapping[str, Reach], share: Mapping[str, float]) -> _Signal:
        """Over sites by Jensen's inequality, with each site's largest share in any mean; in a row by the longest of them."""

        def together(of: Callable[[Reach], float]) -> float:
            return math.sqrt(sum(share[site] * of(reach) ** 2 for site, reach in reached.items()))

        return _Signal(
            together(lambda reach: reach.signal),
            max(reach.signal for reach in reached.values()),
            together(lambda reach: reach.usual),
            max(reach.usual_row for reach in reached.values()),
            max(reach.usual for reach in reached.values()),
        )


def _most_length(noise: Vector) -> float:
    """The longest that a Gaussian vector of these deviations is: its expected length and the tail of its largest coordinate."""
    return float(np.linalg.norm(noise)) + TAIL * float(noise.max(initial=0.0))


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
