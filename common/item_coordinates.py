"""What each coordinate of a sum of updates is divided by, and whose row it is.

All of it from public facts: declared populations and public item masks, never a count of data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.run import RunPlan

Vector = NDArray[np.float64]


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
