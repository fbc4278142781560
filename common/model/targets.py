"""What a head must predict, and how a row is cut so that the answer is not in the question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.model.head_names import INTENT, ROW_HEADS, STEP_HEADS

if TYPE_CHECKING:
    from common.config import RunConfig
    from common.data.sequences import ConsumerSequences

__all__ = ["INTENT", "ROW_HEADS", "STEP_HEADS", "RowTargets", "row_targets"]


@dataclass(frozen=True)
class RowTargets:
    """Targets that hold for a whole row, with the part of the row that may be read.

    Shapes: ``lengths: int64[N]`` events of each consumer that are input; ``values[head]: float[N]``,
    NaN where there is no answer (such a consumer adds nothing to that head's loss).
    """

    lengths: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]


def row_targets(config: RunConfig, sequences: ConsumerSequences) -> RowTargets | None:
    """The one map from a run's task to what whole rows must answer; None where every target is a step.

    Guarantee: no event that the answer depends on is in the input.
    """
    if INTENT not in config.model.heads:
        return None
    from common.data.formats import EVENT_TYPES

    intent, events = config.intent, sequences.column("event").astype(np.int64)
    purchase = EVENT_TYPES.index("purchase") + 1
    if intent.ask == "events":
        return purchase_intent(events, sequences.offsets, purchase, intent.horizon)
    bought = events == purchase
    if intent.ask == "session":
        gap_us = int(intent.session_gap_minutes * 60e6)
        return session_intent(bought, sequences.timestamps, sequences.offsets, (intent.after, gap_us))
    cut_us, horizon_us = intent.cut_us or 0, intent.horizon * 86_400_000_000
    return dated_intent(bought, sequences.timestamps, sequences.offsets, (cut_us, horizon_us))


def whole_rows(sequences: ConsumerSequences) -> RowTargets:
    """Every event is input and nothing is asked: for predictions."""
    return RowTargets(sequences.lengths, {})


def session_intent(
    bought: NDArray[np.bool_],
    timestamps: NDArray[np.int64],
    offsets: NDArray[np.int64],
    asked: tuple[int, int],
) -> RowTargets:
    """Ask after the first ``asked[0]`` events of a row's last session that has so many: does the rest buy?

    Shapes: ``bought: bool[R]``, ``timestamps: int64[R]``. Units: ``asked[1]`` is the pause in microseconds
    that begins a new session.
    Guarantee: where the row is cut does not depend on purchases, nor on how long the session goes on. Rows
    without such a session have no answer and keep all events.
    """
    after, gap_us = asked
    counts = np.diff(offsets)
    row = np.repeat(np.arange(len(counts)), counts)
    first = np.ones(len(row), dtype=np.bool_)
    first[1:] = (np.diff(timestamps) > gap_us) | (row[1:] != row[:-1])
    begin = np.flatnonzero(first)
    end = np.append(begin[1:], len(row))
    long = np.flatnonzero(end - begin >= after)
    last = np.full(len(counts), -1)
    last[row[begin[long]]] = long  # sessions are in order: the last long one stays
    lengths, label = counts.copy(), np.full(len(counts), np.nan)
    known = np.flatnonzero(last >= 0)
    cut, stop = begin[last[known]] + after, end[last[known]]
    total = np.concatenate([[0], np.cumsum(bought)])
    lengths[known] = cut - offsets[known]
    label[known] = total[stop] > total[cut]
    return RowTargets(lengths.astype(np.int64), {INTENT: label})


def dated_intent(
    bought: NDArray[np.bool_],
    timestamps: NDArray[np.int64],
    offsets: NDArray[np.int64],
    asked: tuple[int, int],
) -> RowTargets:
    """Ask at one public moment whether each consumer known by then buys within the horizon.

    Shapes: ``bought: bool[R]``, ``timestamps: int64[R]``. Units: ``asked`` = (moment, horizon), microseconds.
    Guarantee: the input ends before the moment. Consumers without an earlier event have no answer.
    """
    cut_us, horizon_us = asked
    lengths = _count(timestamps < cut_us, offsets)
    inside = bought & (timestamps >= cut_us) & (timestamps < cut_us + horizon_us)
    label = np.where(lengths > 0, (_count(inside, offsets) > 0).astype(np.float64), np.nan)
    return RowTargets(lengths, {INTENT: label})


def _count(mask: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    total = np.concatenate([[0], np.cumsum(mask)]).astype(np.int64)
    counted: NDArray[np.int64] = total[offsets[1:]] - total[offsets[:-1]]
    return counted


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
    return RowTargets(lengths.astype(np.int64), {INTENT: label})
