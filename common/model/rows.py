"""Columns of ragged rows: what followed, what was last known, what came first. Nothing is carried over from row to row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Column = NDArray[np.int32]


def following(values: Column, offsets: NDArray[np.int64]) -> Column:
    """The value after each event; zero after the last event of a row: ``int32[R]``."""
    following = np.zeros_like(values)
    following[:-1] = values[1:]
    ends = np.asarray(offsets[1:])[np.diff(offsets) > 0] - 1
    following[ends] = 0
    return following


def last_known(values: Column, offsets: NDArray[np.int64]) -> Column:
    """The latest value above 0 up to each event of a row, 0 if there was none: ``int32[R]``."""
    known = np.asarray(values > 0)
    known[np.asarray(offsets[:-1])[np.diff(offsets) > 0]] = True  # nothing is carried over from the row before
    place: Index = np.where(known, np.arange(len(values)), 0)
    return values[np.maximum.accumulate(place)]


RECENT = 3


def recent_items(items: Column, offsets: NDArray[np.int64]) -> Column:
    """The last ``RECENT`` known items up to and including each event of its row, the newest first: ``int32[R, RECENT]``."""
    count = len(items)
    found = np.zeros((count, RECENT), dtype=np.int32)
    begin = np.repeat(np.asarray(offsets[:-1]), np.diff(offsets))
    place = np.maximum.accumulate(np.where(items > 0, np.arange(count), -1)) if count else np.zeros(0, np.int64)
    before = np.concatenate([[-1], place[:-1]]) if count else place
    at = place
    for age in range(RECENT):
        there = at >= begin
        found[there, age] = items[at[there]]
        at = np.where(there, before[np.maximum(at, 0)], -1)
    return found


def first_occurrence(items: Column, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True where a known item appears in its row for the first time."""
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    first = np.zeros(len(items), dtype=bool)
    if len(items):
        _, index = np.unique(row * (int(items.max()) + 1) + items, return_index=True)
        first[index] = True
    return first & (items > 0)
