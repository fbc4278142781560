"""Is a sum one that honest sites can have made? Judged by public constants only, before anything is done with it.

The server sees the sum and nothing else, so it cannot say whose part is false, and nobody is named. What no honest sites can
exceed refuses a sum; what honest sites of usual logs do not exceed shortens an update (``common.limits``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.contribution import UPDATE
from common.limits import (
    COORDINATE,
    LENGTH,
    ROW,
    Figure,
    ItemCoordinates,
    Lengths,
    UpdateLimits,
    Vector,
    count_limits,
    mean_update,
)
from common.run import RunPlan, Shortened

REFUSED_IN_A_ROW = 2  # then the run stops: somebody does it on purpose

Sums = Mapping[str, Vector]


@dataclass(frozen=True)
class Judgement:
    """What was looked at: name -> (seen, largest that is honest). Made of a noised sum, so it is released, at no epsilon.

    ``update: float32[d]``: the mean update that may be applied; ``shortened``: what was shortened for it.
    """

    figures: Mapping[str, Figure]
    shortened: Mapping[str, Shortened] = field(default_factory=dict)
    update: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

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
    """Judge the weighted sum of the survivors' contributions, and make the mean update of it.

    Shapes: ``sums[UPDATE]: float64[d]``, the other blocks as their task lays them out.
    """
    figures = _of_counts(plan, kind, sums, survivors)
    if UPDATE not in sums:
        return Judgement(figures)
    limits, mean = UpdateLimits.of(plan, survivors, rows), mean_update(sums[UPDATE], survivors, plan, rows)
    seen = limits.seen(mean)
    judged = Judgement(limits.figures(seen) | figures)
    return judged if judged.why_not else Judgement(judged.figures, *_shortened(limits, mean, seen))


def _shortened(
    limits: UpdateLimits, mean: Vector, seen: Lengths
) -> tuple[dict[str, Shortened], NDArray[np.float32]]:
    """The mean update with each coordinate of no item, each item's row, and then the whole, no longer than is usual.

    An unusual row becomes as long as rows are in most logs, the others as long as is usual at most.
    """
    usual, done = limits.usual, dict[str, Shortened]()
    if seen.coordinate > usual.coordinate:
        size, longest = np.abs(mean[limits.free]), np.float64(usual.coordinate)
        mean = mean.copy()
        mean[limits.free] *= _factors(done, COORDINATE, size, longest, longest)
    if limits.group is not None and (seen.row > usual.row).any():
        factors = _factors(done, ROW, seen.row, usual.row, limits.ordinary_row)
        mean = mean * np.concatenate([[1.0], factors])[limits.group]
    whole = limits.seen(mean).whole if done else seen.whole
    if whole > usual.whole:
        longest = np.float64(usual.whole)
        mean = mean * _factors(done, LENGTH, np.array([whole]), longest, longest)
    return done, mean.astype(np.float32)


def _factors(
    done: dict[str, Shortened], name: str, seen: Vector, longest: Vector | np.float64, becomes: Vector | np.float64
) -> Vector:
    """What each length ``seen`` is multiplied by; ``done`` is told what was longest, against its limit, and how many there were."""
    beyond = seen > longest
    worst = int(np.argmax(np.where(beyond, seen / np.maximum(longest, 1e-300), 0.0)))
    becomes = np.broadcast_to(becomes, seen.shape)
    done[name] = Shortened(float(seen[worst]), float(becomes[worst]), int(beyond.sum()))
    return np.where(beyond, becomes / np.maximum(seen, 1e-300), 1.0)


def _of_counts(plan: RunPlan, kind: str, sums: Sums, survivors: Sequence[str]) -> dict[str, Figure]:
    """Of each block beside the update the first number, and the largest and smallest of the others, with their limits."""
    limits = count_limits(plan, kind, survivors, {name: float(numbers[0]) for name, numbers in sums.items()})
    seen: dict[str, float] = {}
    for name, numbers in sums.items():
        seen[f"first number of the {name}"] = float(numbers[0])
        seen[f"first number of the {name}, below zero"] = -float(numbers[0])
        if len(numbers) > 1:
            seen[f"largest number of the {name}"] = float(numbers[1:].max())
            seen[f"smallest number of the {name}, below zero"] = -float(numbers[1:].min())
    return {name: (seen[name], limit) for name, limit in limits.items()}
