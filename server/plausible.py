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
from common.tasks.task import TAIL, Legal
from server.cohort import ItemCoordinates

REFUSED_IN_A_ROW = 2  # then the run stops: somebody does it on purpose

_LENGTH = 1.15  # over the predicted length: the root of a sum of squares is not quite its prediction
_OF_COORDINATE = 0.6  # of the peak: most that lies in one coordinate, .36 was measured
_OF_ROW = 0.4  # in the rows of one item, .13 was measured

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
    """Length, largest coordinate and longest row of an item. Consumers may agree, noise adds up in squares."""
    reached = [(plan.weight(site), plan.task.reach(plan, site)) for site in survivors]
    signal = sum(weight * reach.signal for weight, reach in reached)
    peak = sum(weight * reach.peak for weight, reach in reached)
    noise = math.sqrt(sum((weight * reach.noise) ** 2 for weight, reach in reached)) + rounding
    size = len(total)
    figures = {
        "length of the update": (
            float(np.linalg.norm(total)),
            _LENGTH * math.hypot(signal, noise * (math.sqrt(size) + TAIL)),
        ),
        "largest coordinate": (float(np.abs(total).max(initial=0.0)), TAIL * noise + _OF_COORDINATE * peak),
    }
    if rows is not None:
        squares = np.bincount(rows.item_of[rows.item_of >= 0], weights=total[rows.item_of >= 0] ** 2)
        width = np.bincount(rows.item_of[rows.item_of >= 0]).max(initial=0)
        limit = noise * (math.sqrt(width) + TAIL) + _OF_ROW * peak
        figures["longest row of an item"] = (float(np.sqrt(squares.max(initial=0.0))), limit)
    return figures


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
