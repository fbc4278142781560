"""What a consumer has done so far, as plain counts: the short way from events to the head of purchase intent.

A recurrent encoder must learn to count, from few and noised gradients. Counting needs no learning: every
number here follows from the consumer's own events up to the moment that is asked about and from public constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from common.data import ConsumerSequences

_DAY_US = 86_400e6
_OTHERS = 12
# public divisors that bring every number to about 1: gradients of equal size need less clipping and less noise
_FEW, _MANY, _DAYS = 2.0, 4.0, 5.0
_FEW_DAYS = 3.0


@dataclass(frozen=True)
class Moments:
    """A moments: each after one event of a row, asked about at a time not before it.

    Shapes: ``events: int64[A]`` positions in the sequences' events, ``times: int64[A]``.
    Units: ``times`` in microseconds since 1970, UTC.
    """

    events: NDArray[np.int64]
    times: NDArray[np.int64]


def history_width(event_types: int) -> int:
    """Numbers that ``history`` gives of each moment."""
    return 4 * event_types + _OTHERS


def history(sequences: ConsumerSequences, moments: Moments, event_types: int, gap_us: int) -> NDArray[np.float32]:
    """Counts of a row's past at each moment: ``float32[A, history_width(event_types)]``.

    Counts and days are log(1 + n) over a public constant. Per event type: how often in the row and in the session,
    whether it is the last event, and whether it is so about an item that the row had before. Then events in row and
    session, earlier events about the item, the usual days from session to session and how many of those the last
    event is ago, sessions, whether the item was there before in row and session, whether there was a purchase, and
    the days since the row's first event, its last event and its last purchase.
    Units: ``gap_us`` is the pause in microseconds that begins a new session.
    Guarantee: nothing behind the moment is read, and no other row.
    """
    from common.data import EVENT_TYPES

    at = moments.events
    kind, stamps = sequences.column("event").astype(np.int64), sequences.timestamps
    begin = sequences.offsets[:-1][np.searchsorted(sequences.offsets, at, side="right") - 1]
    session, sessions = _sessions(stamps, sequences.offsets, gap_us)
    earlier, again = _earlier(sequences.column("item").astype(np.int64), sequences.offsets)
    since = session[at]
    totals = [np.concatenate([[0], np.cumsum(kind == name)]) for name in range(1, event_types + 1)]
    bought = _latest(kind == EVENT_TYPES.index("purchase") + 1)[at]
    ever = bought >= begin
    past = Past(
        kinds=np.array([total[at + 1] - total[begin] for total in totals]),
        session_kinds=np.array([total[at + 1] - total[since] for total in totals]),
        kind=kind[at],
        events=at + 1 - begin,
        session_events=at + 1 - since,
        sessions=sessions[at] - sessions[begin] + 1,
        earlier=earlier[at],
        again=again[at] >= since,
        ever=ever,
        first=stamps[begin],
        last=stamps[at],
        bought=stamps[np.where(ever, bought, at)],
    )
    return past.numbers(moments.times)


@dataclass(frozen=True)
class Past:
    """What ``history`` reads of A moments, as sums that can be carried from event to event.

    Shapes: ``kinds``, ``session_kinds: int64[types, A]`` how often each event type occurred in row and session; all else
    ``[A]``: the last event's type, events in row and session, sessions, earlier events about the last item, whether it was
    there before in the session, whether there was a purchase. Units: ``first``, ``last``, ``bought`` microseconds since 1970.
    """

    kinds: NDArray[np.int64]
    session_kinds: NDArray[np.int64]
    kind: NDArray[np.int64]
    events: NDArray[np.int64]
    session_events: NDArray[np.int64]
    sessions: NDArray[np.int64]
    earlier: NDArray[np.int64]
    again: NDArray[np.bool_]
    ever: NDArray[np.bool_]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    bought: NDArray[np.int64]

    def numbers(self, times: NDArray[np.int64]) -> NDArray[np.float32]:
        """The numbers of ``history``, asked at ``times: int64[A]``: ``float32[A, history_width(types)]``."""
        columns = []
        for place, (total, lately) in enumerate(zip(self.kinds, self.session_kinds, strict=True), start=1):
            last = self.kind == place
            columns += [np.log1p(total) / _FEW, np.log1p(lately) / _FEW, last, last & (self.earlier > 0)]
        columns += [np.log1p(self.events) / _MANY, np.log1p(self.session_events) / _FEW]
        columns += [np.log1p(self.earlier) / _FEW]
        pauses = self.sessions - 1
        usual = (self.last - self.first) / _DAY_US / np.maximum(pauses, 1)
        ago = (times - self.last) / _DAY_US
        columns += [
            np.log1p(usual) / _DAYS,
            np.log1p(np.maximum(ago, 0) / (usual + _FEW_DAYS)) * (pauses > 0),
        ]
        columns += [np.log1p(pauses + 1) / _FEW, self.earlier > 0, self.again, self.ever]
        columns += [_log_days(times - self.first), _log_days(times - self.last)]
        columns += [np.where(self.ever, _log_days(times - self.bought), 0.0)]
        return np.stack(columns, axis=1).astype(np.float32)


def _log_days(pause_us: NDArray[np.int64]) -> NDArray[np.float64]:
    days: NDArray[np.float64] = np.log1p(np.maximum(pause_us, 0) / _DAY_US) / _DAYS
    return days


def _sessions(
    stamps: NDArray[np.int64], offsets: NDArray[np.int64], gap_us: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First event of each event's session, and the number of that session among all: ``int64[R]`` each."""
    first = np.ones(len(stamps), dtype=np.bool_)
    first[1:] = np.diff(stamps) > gap_us
    first[offsets[:-1][np.diff(offsets) > 0]] = True
    number = np.cumsum(first) - 1
    return np.flatnonzero(first)[number], number


def _earlier(item: NDArray[np.int64], offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Earlier events of the row about the same known item, and the position of the latest (-1: none)."""
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.argsort(row * (int(item.max(initial=0)) + 1) + item, kind="stable")
    new = np.ones(len(item), dtype=np.bool_)
    new[1:] = (np.diff(item[order]) != 0) | (np.diff(row[order]) != 0)
    place = np.arange(len(item))
    count, latest = np.zeros(len(item), dtype=np.int64), np.full(len(item), -1)
    count[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    latest[order[~new]] = order[np.flatnonzero(~new) - 1]
    return np.where(item > 0, count, 0), np.where(item > 0, latest, -1)


def _latest(there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Position of the latest event that has it, this one included; -1 where there is none: ``int64[R]``."""
    return np.maximum.accumulate(np.where(there, np.arange(len(there)), -1))
