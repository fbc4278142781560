"""What a stretch of a consumer's behaviour looks like: surprise, pace, repetition, and likeness to their past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.anomalies.likelihood import Surprise
from common.data import EVENT_TYPES, ConsumerSequences

WINDOW = 16
FEWEST = 3  # events, below which a stretch says nothing
OWN = ("event", "category", "price", "hour", "gap")
_PRIOR = 5.0  # events' worth of everybody's habits in a consumer's own
_AT_ONCE = 4_096
_FAST_S = (2.0, 15.0)

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Habits:
    """How often everybody does what: the marginal of each feature in ``OWN``, never zero."""

    shares: dict[str, Table]

    def value(self, sequences: ConsumerSequences, name: str) -> NDArray[np.int64]:
        """A feature of all events, what was never seen as one value: ``int64[R]``."""
        return np.minimum(sequences.column(name).astype(np.int64), len(self.shares[name]) - 1)


def habits(sequences: ConsumerSequences) -> Habits:
    """Count the habits of a log."""
    shares = {}
    for name in OWN:
        values = sequences.column(name).astype(np.int64)
        counts = np.bincount(values, minlength=int(values.max(initial=0)) + 2) + 1.0
        shares[name] = counts / counts.sum()
    return Habits(shares)


@dataclass(frozen=True)
class EventWindows:
    """M stretches of at most ``WINDOW`` events; neighbours overlap by half, the last one ends with the row.

    Shapes: ``row, begin, end: int64[M]`` consumer row and event numbers (``begin <= i < end``);
    ``past: int64[M]`` events of the consumer before the window; ``profile: float64[M, K]`` with ``names``;
    ``ratio: float64[M]`` nats per event by which everybody's habits explain the window better than the
    consumer's own past does; ``hidden: float64[M, dim]`` the model's state at its end; ``times: int64[M]`` end.
    """

    row: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    past: NDArray[np.int64]
    times: NDArray[np.int64]
    names: tuple[str, ...]
    profile: Table
    ratio: Table
    hidden: Table

    def __len__(self) -> int:
        return len(self.row)


def cut_windows(sequences: ConsumerSequences, found: Surprise, common: Habits) -> EventWindows:
    """Profile every stretch of every row; rows of fewer than ``FEWEST`` events have none."""
    row, begin, end = _spans(sequences.offsets)
    values = {name: common.value(sequences, name) for name in OWN}
    earlier = {name: _earlier(sequences, value) for name, value in values.items()}
    parts, ratios = [], []
    for start in range(0, len(row), _AT_ONCE):
        piece = slice(start, start + _AT_ONCE)
        at = begin[piece][:, None] + np.arange(WINDOW)  # [m, W]
        inside = at < end[piece][:, None]
        at = np.where(inside, at, begin[piece][:, None])
        past = begin[piece] - sequences.offsets[row[piece]]
        before = {name: earlier[name][at] - _within(values[name][at], inside) for name in OWN}
        own = [_own_habit(common.shares[n], values[n][at], before[n], (inside, past)) for n in OWN]
        parts.append(_profiled(sequences, found, (at, inside), own))
        ratios.append(np.sum(own, axis=0))
    names = profile_names(found.heads)
    return EventWindows(
        row=row,
        begin=begin,
        end=end,
        past=begin - sequences.offsets[row],
        times=sequences.timestamps[np.maximum(end - 1, 0)],
        names=names,
        profile=np.concatenate(parts) if parts else np.zeros((0, len(names))),
        ratio=np.concatenate(ratios) if ratios else np.zeros(0),
        hidden=found.hidden[np.maximum(end - 1, 0)].astype(np.float64),
    )


def profile_names(heads: Sequence[str]) -> tuple[str, ...]:
    """What the columns of a profile are."""
    names = [f"{what}_{head}" for what in ("mean", "max") for head in heads]
    names += ["pause", "pause_spread", "fast", "faster", "repeats", "distinct", "top_item"]
    return (*names, *EVENT_TYPES, "variety", *(f"unlike_own_{name}" for name in OWN))


def profile_stretches(
    sequences: ConsumerSequences,
    found: Surprise,
    common: Habits,
    at: NDArray[np.int64],
    before: Mapping[str, NDArray[np.int64]],
) -> Table:
    """Profiles of stretches of one consumer's newest events: what ``cut_windows`` gives for the same stretch of a whole row.

    Shapes: ``at: int64[m, W]`` event numbers; ``before[feature]: int64[C]`` how often the consumer did what before these
    events; returns ``float64[m, K]``.
    """
    inside = np.ones(at.shape, dtype=np.bool_)
    past = np.full(len(at), int(before[OWN[0]].sum()))
    own = []
    for name in OWN:
        value = common.value(sequences, name)[at]
        own.append(_own_habit(common.shares[name], value, before[name][value], (inside, past)))
    return _profiled(sequences, found, (at, inside), own)


def profile_starts(sequences: ConsumerSequences, found: Surprise, rows: NDArray[np.int64], count: int) -> Table:
    """Profiles of the first ``count`` events of some rows, all long enough: ``float64[m, K]``."""
    at = sequences.offsets[rows][:, None] + np.arange(count)
    return _profiled(sequences, found, (at, np.ones(at.shape, dtype=np.bool_)), [np.zeros(len(rows))] * len(OWN))


def _profiled(
    sequences: ConsumerSequences,
    found: Surprise,
    where: tuple[NDArray[np.int64], NDArray[np.bool_]],
    own: Sequence[Table],
) -> Table:
    at, inside = where
    profile = (*_surprised(found, at, inside), *_pace(sequences, at, inside), *_repeats(sequences, at, inside))
    return np.column_stack([*profile, *_kinds(sequences, at, inside), *own])


def _spans(offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    lengths = np.diff(offsets)
    half = WINDOW // 2
    count = np.where(lengths < FEWEST, 0, 1 + np.maximum(0, -(-(lengths - WINDOW) // half)))
    row = np.repeat(np.arange(len(lengths)), count)
    first = np.concatenate([[0], np.cumsum(count)])[:-1]
    number = np.arange(len(row)) - first[row]
    # counted from the row's end, so that the newest events are always a whole window
    behind = (count[row] - 1 - number) * half
    end = offsets[row + 1] - behind
    return row, np.maximum(end - WINDOW, offsets[row]), end


def _mean(values: Table, inside: NDArray[np.bool_]) -> Table:
    total: Table = (values * inside).sum(1) / np.maximum(inside.sum(1), 1)
    return total


def _surprised(found: Surprise, at: NDArray[np.int64], inside: NDArray[np.bool_]) -> list[Table]:
    nats = found.nats[at].astype(np.float64)  # [m, W, H]
    there = inside[..., None] & np.isfinite(nats)
    nats = np.where(there, nats, 0.0)
    mean = nats.sum(1) / np.maximum(there.sum(1), 1)
    return [*mean.T, *nats.max(1).T]


def _pace(sequences: ConsumerSequences, at: NDArray[np.int64], inside: NDArray[np.bool_]) -> list[Table]:
    both = inside[:, 1:]
    # a clock that jumps back counts as no pause at all
    pause_s = np.maximum(np.diff(sequences.timestamps[at], axis=1) / 1e6, 0.0)
    log_pause = np.log1p(pause_s)
    mean = _mean(log_pause, both)
    spread = np.sqrt(_mean((log_pause - mean[:, None]) ** 2, both))
    return [mean, spread, *(_mean((pause_s <= limit).astype(np.float64), both) for limit in _FAST_S)]


def _repeats(sequences: ConsumerSequences, at: NDArray[np.int64], inside: NDArray[np.bool_]) -> list[Table]:
    item = np.where(inside, sequences.column("item")[at], 0)
    known = item > 0
    again = (item[:, 1:] == item[:, :-1]) & known[:, 1:]
    same = (item[:, :, None] == item[:, None, :]) & known[:, :, None] & known[:, None, :]  # [m, W, W]
    earlier = np.tril(same, -1).any(2)
    count = np.maximum(known.sum(1), 1)
    distinct = (known & ~earlier).sum(1) / count
    return [_mean(again.astype(np.float64), inside[:, 1:]), distinct, same.sum(2).max(1) / count]


def _kinds(sequences: ConsumerSequences, at: NDArray[np.int64], inside: NDArray[np.bool_]) -> list[Table]:
    event = np.where(inside, sequences.column("event")[at], 0)
    total = np.maximum(inside.sum(1), 1)
    shares = [(event == kind).sum(1) / total for kind in range(1, len(EVENT_TYPES) + 1)]
    variety = -sum(share * np.log(np.maximum(share, 1e-12)) for share in shares)
    return [*shares, np.asarray(variety)]


def _earlier(sequences: ConsumerSequences, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each event's value occurred before in its row: ``int64[R]``."""
    row = np.repeat(np.arange(len(sequences)), sequences.lengths)
    key = row * (int(values.max(initial=0)) + 1) + values
    order = np.argsort(key, kind="stable")
    first = np.diff(key[order], prepend=-1) > 0
    number = np.arange(len(order))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = number - np.maximum.accumulate(np.where(first, number, 0))
    return rank


def _within(value: NDArray[np.int64], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How often each event's value occurred before in its window: ``int64[m, W]``."""
    count: NDArray[np.int64] = np.tril((value[:, :, None] == value[:, None, :]) & inside[:, None, :], -1).sum(2)
    return count


def _own_habit(
    shares: Table,
    value: NDArray[np.int64],
    before: NDArray[np.int64],
    where: tuple[NDArray[np.bool_], NDArray[np.int64]],
) -> Table:
    """Mean of ``log p_everybody - log p_own`` over the window of one feature; 0 for a consumer without a past."""
    inside, past = where
    own = (before + _PRIOR * shares[value]) / (past[:, None] + _PRIOR)
    return _mean(np.log(shares[value]) - np.log(np.maximum(own, 1e-12)), inside)
