"""What a head must predict, and how a row is cut so that the answer is not in the question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEP_HEADS: Mapping[str, str] = {"next-item": "item", "next-event": "event", "next-category": "category"}
"""Heads that answer at every step -> the feature of the next event they predict."""

ROW_HEADS = ("purchase-intent", "sales")
"""Heads that answer once for a whole row: a probability, a number."""


@dataclass(frozen=True)
class RowTargets:
    """Targets that hold for a whole row, with the part of the row that may be read.

    Shapes: ``lengths: int64[N]`` events of each consumer that are input; ``values[head]: float[N]``,
    NaN where there is no answer (such a consumer adds nothing to that head's loss).
    """

    lengths: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]


def purchase_intent(
    events: NDArray[np.integer], offsets: NDArray[np.int64], purchase: int, horizon: int
) -> RowTargets:
    """Cut the last ``horizon`` events off each row and ask whether one of them is a purchase.

    Shapes: ``events: int[R]`` event type of every event, ``offsets: int64[N+1]``.
    Guarantee: no event of the horizon is in the input. Rows of at most ``horizon`` events have no answer.
    """
    counts = np.diff(offsets)
    lengths = np.maximum(counts - horizon, 0)
    bought = np.concatenate([[0], np.cumsum(np.asarray(events) == purchase)])
    in_horizon = bought[offsets[1:]] - bought[offsets[:-1] + lengths]
    label = np.where(lengths > 0, (in_horizon > 0).astype(np.float64), np.nan)
    return RowTargets(lengths.astype(np.int64), {"purchase-intent": label})
