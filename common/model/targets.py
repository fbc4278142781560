"""What a head must predict, and how a row is cut so that the answer is not in the question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.model.history import Moments, history
from common.tasks import INTENT, ROW_HEADS, STEP_HEADS

if TYPE_CHECKING:
    from common.data import ConsumerSequences
    from common.run import RunConfig

__all__ = ["INTENT", "ROW_HEADS", "STEP_HEADS", "Asks", "RowTargets", "row_targets"]

_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Asks:
    """Moments at which the rows are asked; the last column is the one that is judged, the others teach.

    Shapes: ``steps: int64[N, M]`` last event of the row that may be read (-1: not asked), ``values: float64[N, M]``
    NaN where there is no answer, ``history: float32[N, M, K]``.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    history: NDArray[np.float32]


@dataclass(frozen=True)
class RowTargets:
    """Targets that hold for a whole row, with the part of the row that may be read.

    Shapes: ``lengths: int64[N]`` events of each consumer that are input; ``values[head]: float[N]``,
    NaN where there is no answer (such a consumer adds nothing to that head's loss). ``asks`` is of purchase
    intent; its last column of values is ``values["purchase-intent"]``.
    """

    lengths: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]
    asks: Asks | None = None

    def moments(self) -> list[RowTargets]:
        """The same rows asked at each of their moments, earlier ones first, the judged one last; itself without any.

        Rows that are not asked at a moment have no answer there, and nothing of them is read.
        """
        asks = self.asks
        if asks is None:
            return [self]
        found = []
        for m in range(asks.steps.shape[1]):
            at = Asks(asks.steps[:, m : m + 1], asks.values[:, m : m + 1], asks.history[:, m : m + 1])
            found.append(RowTargets(asks.steps[:, m] + 1, {INTENT: asks.values[:, m]}, at))
        return found


def row_targets(config: RunConfig, sequences: ConsumerSequences) -> RowTargets | None:
    """The one map from a run's task to what whole rows must answer; None where every target is a step.

    Guarantee: no event that an answer depends on is in the input of that answer.
    """
    if INTENT not in config.model.heads:
        return None
    # from the moment that is judged back to earlier ones
    asked = [_asked(config, sequences, back) for back in range(config.intent.asks)][::-1]
    last = asked[-1][0]
    steps = [np.where(np.isfinite(t.values[INTENT]), t.lengths - 1, -1) for t, _ in asked]
    steps[-1] = last.lengths - 1  # the judged moment is also where a row without an answer is predicted
    history = [history_at(config, sequences, s, t) for s, (_, t) in zip(steps, asked, strict=True)]
    values = np.stack([t.values[INTENT] for t, _ in asked], axis=1)
    asks = Asks(np.stack(steps, axis=1), values, np.stack(history, axis=1))
    return RowTargets(last.lengths, last.values, asks)


def asked_now(config: RunConfig, sequences: ConsumerSequences, now_us: int | None = None) -> RowTargets:
    """Every event is input, and purchase intent is asked behind the last one: for predictions.

    Units: ``now_us`` in microseconds since 1970: the moment of a question about days, the latest event if left out.
    """
    if INTENT not in config.model.heads:
        return whole_rows(sequences)
    steps = sequences.lengths - 1
    now = int(sequences.timestamps.max(initial=0)) if now_us is None else now_us
    history = history_at(config, sequences, steps, now if config.intent.ask == "days" else None)
    unknown = np.full((len(steps), 1), np.nan)
    return RowTargets(sequences.lengths, {}, Asks(steps[:, None], unknown, history[:, None]))


def history_at(
    config: RunConfig, sequences: ConsumerSequences, steps: NDArray[np.int64], time_us: int | None
) -> NDArray[np.float32]:
    """History of each row behind its event ``steps: int64[N]``, zeros where that is -1: ``float32[N, K]``.

    Units: ``time_us`` is when all are asked, None where each is asked at its own event.
    """
    from common.data import EVENT_TYPES

    asked = np.flatnonzero(steps >= 0)
    events = sequences.offsets[:-1][asked] + steps[asked]
    times = sequences.timestamps[events] if time_us is None else np.full(len(events), time_us)
    gap_us = int(config.intent.session_gap_minutes * 60e6)
    known = history(sequences, Moments(events, times), len(EVENT_TYPES), gap_us)
    counts = np.zeros((len(steps), known.shape[1]), dtype=np.float32)
    counts[asked] = known
    return counts


def _asked(config: RunConfig, sequences: ConsumerSequences, back: int) -> tuple[RowTargets, int | None]:
    """Cut and answer of the moment that lies ``back`` before the judged one, and its time if all share it."""
    from common.data import EVENT_TYPES

    intent, events = config.intent, sequences.column("event").astype(np.int64)
    purchase = EVENT_TYPES.index("purchase") + 1
    if intent.ask == "events":
        return purchase_intent(events, sequences.offsets, purchase, (intent.horizon, back)), None
    bought = events == purchase
    if intent.ask == "session":
        gap_us = int(intent.session_gap_minutes * 60e6)
        return session_intent(bought, sequences.timestamps, sequences.offsets, (intent.after, gap_us), back), None
    cut_us, horizon_us = (intent.cut_us or 0) - back * intent.horizon * _DAY_US, intent.horizon * _DAY_US
    return dated_intent(bought, sequences.timestamps, sequences.offsets, (cut_us, horizon_us)), cut_us


def whole_rows(sequences: ConsumerSequences) -> RowTargets:
    """Every event is input and nothing is asked: for predictions."""
    return RowTargets(sequences.lengths, {})


def session_intent(
    bought: NDArray[np.bool_],
    timestamps: NDArray[np.int64],
    offsets: NDArray[np.int64],
    asked: tuple[int, int],
    back: int = 0,
) -> RowTargets:
    """Ask after the first ``asked[0]`` events of a row's last session that has so many: does the rest buy?

    With ``back`` the session that lies so many such sessions before it.
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
    ends = np.cumsum(np.bincount(row[begin[long]], minlength=len(counts)))  # sessions lie row after row
    wanted = ends - 1 - back
    known = np.flatnonzero(wanted >= np.concatenate([[0], ends[:-1]]))
    lengths, label = counts.copy(), np.full(len(counts), np.nan)
    chosen = long[wanted[known]]
    cut, stop = begin[chosen] + after, end[chosen]
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
    events: NDArray[np.integer], offsets: NDArray[np.int64], purchase: int, asked: tuple[int, int]
) -> RowTargets:
    """Cut the last ``asked[0]`` events (the horizon) off each row and ask whether one of them is a purchase.

    Shapes: ``events: int[R]`` event type of every event, ``offsets: int64[N+1]``; ``asked[1]`` horizons more are
    cut off, whatever is in them.
    Guarantee: no event of the horizon is in the input. Rows that are not longer have no answer.
    """
    horizon, back = asked
    counts = np.diff(offsets)
    lengths = np.maximum(counts - horizon * (back + 1), 0)
    bought = np.concatenate([[0], np.cumsum(np.asarray(events) == purchase)])
    in_horizon = bought[offsets[:-1] + np.minimum(lengths + horizon, counts)] - bought[offsets[:-1] + lengths]
    label = np.where(lengths > 0, (in_horizon > 0).astype(np.float64), np.nan)
    return RowTargets(lengths.astype(np.int64), {INTENT: label})
