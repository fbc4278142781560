"""Is a sum one that honest sites can have made? Judged by public constants only, before anything is done with it.

The server sees the sum and nothing else, so it cannot say whose part is false, and nobody is named. With noise the honest
length of an update is public almost to the percent, which leaves an attacker little more than the room of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.contribution import UPDATE
from common.run import RunPlan
from common.tasks import TAIL, Legal
from server.cohort import ItemCoordinates, added_up, divided

REFUSED_IN_A_ROW = 2  # then the run stops: somebody does it on purpose

_LENGTH = 1.15  # over the predicted length: the root of a sum of squares is not quite its prediction
_OF_ROW = 0.4  # of the peak: most that lies in the rows of one item, .13 was measured

Figure = tuple[float, float]
Sums = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Judgement:
    """What was looked at: name -> (seen, largest that is honest). Made of a noised sum, so it is released."""

    figures: Mapping[str, Figure]

    @property
    def why_not(self) -> str:
        """What is implausible, in words; empty if nothing is."""
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
        rounding = len(survivors) * 2.0**-block.fractional_bits
        if block.name == UPDATE:
            figures |= _of_update(plan, sums[UPDATE], survivors, rows, rounding)
        elif block.name in legal:
            figures |= _of_counts(block.name, sums[block.name], legal[block.name], rounding)
    return Judgement(figures)


def _of_update(
    plan: RunPlan,
    total: NDArray[np.float64],
    survivors: Sequence[str],
    rows: ItemCoordinates | None,
    rounding: float,
) -> dict[str, Figure]:
    """Length, largest coordinate and longest row of an item of the mean update, which is what moves the model.

    Consumers may agree, noise adds up in squares. The mean of a row is over its stockists only, so few of them
    leave it more noise, and a single one's part of it is larger. A coordinate that belongs to no item may hold all of the
    signal: a bias that all consumers move is no lie.
    """
    weights, size = {site: plan.weight(site) for site in survivors}, len(total)
    reached = {site: plan.task.reach(plan, site) for site in survivors}
    divisor = added_up(weights, size, rows)
    noises = {site: weights[site] * reached[site].noise for site in survivors}
    noise = divided(np.sqrt(added_up(noises, size, rows, power=2)) + rounding, divisor)
    mean = divided(total, divisor)
    share = _largest_share(weights, divisor, rows)
    signal = math.sqrt(sum(share[site] * reached[site].signal ** 2 for site in survivors))
    spread = float(np.linalg.norm(noise)) + TAIL * float(noise.max(initial=0.0))
    figures = {"length of the update": (float(np.linalg.norm(mean)), _LENGTH * math.hypot(signal, spread))}
    free = np.ones(size, dtype=np.bool_) if rows is None else rows.item_of < 0
    longest = max(reach.signal for reach in reached.values())
    figures["largest coordinate"] = _nearest(np.abs(mean[free]), TAIL * noise[free] + longest)
    if rows is not None:
        peak = max(reach.peak for reach in reached.values())
        figures["longest row of an item"] = _of_rows(mean[~free], noise[~free], rows.item_of[~free], peak)
    return figures


def _largest_share(
    weights: Mapping[str, float], divisor: NDArray[np.float64], rows: ItemCoordinates | None
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


def _of_rows(
    mean: NDArray[np.float64], noise: NDArray[np.float64], item: NDArray[np.int32], peak: float
) -> Figure:
    """The row of an item that is nearest to its limit; the noise of a row's coordinates is equal."""
    lengths = np.sqrt(np.bincount(item, weights=mean**2))
    spread = np.sqrt(np.bincount(item, weights=noise**2))
    largest = np.zeros_like(lengths)
    np.maximum.at(largest, item, noise)
    return _nearest(lengths, spread + TAIL * largest + _OF_ROW * peak)


def _nearest(seen: NDArray[np.float64], limits: NDArray[np.float64]) -> Figure:
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
