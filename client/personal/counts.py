"""What a site's own consumers did next, counted: exact, without noise, and therefore never to leave the site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from common.data import ConsumerSequences
from common.model import STEP_HEADS
from common.model.baselines import cosine

Floats = NDArray[np.float32]
Index = NDArray[np.int64]
BACKOFF = 3.0  # pseudo-counts of popularity in each row of transitions
AHEAD = (1.0, 0.5, 0.25)  # weight of the next event, the one after, and the third
SURE = 5.0  # consumers whose buying again an item's own rate is drawn to that of all items by
AGES = (1.0, 0.5, 0.25)  # weight of the latest item, the one before, and the third, where likeness is asked
LIKENESS, TRANSITIONS = "likeness", "transitions"


@dataclass(frozen=True)
class OwnCounts:
    """Counts over C classes of one feature.

    Shapes: ``popularity: float32[C]`` share of each class, 0 for class 0; ``transitions: csr[C, C]`` class -> how often
    what came soon after; ``likeness: csr[C, C]`` cosine of two items' consumers, ``again: float32[C]`` how often who had an
    item had it once more; None for features that are no items.
    """

    popularity: Floats
    transitions: sparse.csr_matrix
    likeness: sparse.csr_matrix | None = None
    again: Floats | None = None

    def after(self, last: Index) -> Floats:
        """Probability of each class behind the latest one: ``int64[P] -> float32[P, C]``; popularity where nothing is known."""
        rows = self.transitions[last]
        table: Floats = np.asarray(rows.todense(), dtype=np.float32)
        total = table.sum(axis=1, keepdims=True)
        table += BACKOFF * self.popularity
        table /= total + BACKOFF
        return table

    def alike(self, recent: Index) -> Floats:
        """Probability of each item by likeness to the latest ones: ``int64[P, A] -> float32[P, C]``."""
        if self.likeness is None:
            return self.after(recent[:, 0])
        table = np.zeros((len(recent), len(self.popularity)), dtype=np.float32)
        for age, weight in enumerate(AGES):
            table += weight * np.asarray(self.likeness[recent[:, age]].todense(), dtype=np.float32)
        total = table.sum(axis=1, keepdims=True)
        table += np.float32(1e-3) * self.popularity
        table /= total + np.float32(1e-3)
        return table

    def once_more(self, seen: tuple[Index, Index], rows: int) -> Floats:
        """Probability of each item by how often those that were there come again: ``float32[rows, C]``.

        ``seen``: rows and items, ``int64[K]`` each, no pair twice.
        """
        table = np.zeros((rows, len(self.popularity)), dtype=np.float32)
        if self.again is not None:
            table[seen] = self.again[seen[1]]
        total = table.sum(axis=1, keepdims=True)
        table += np.float32(1e-3) * self.popularity
        table /= total + np.float32(1e-3)
        return table


def count(train: ConsumerSequences, head: str, classes: int) -> OwnCounts:
    """Count one feature of training rows. ``head``: the step head that it is for."""
    values = train.column(STEP_HEADS[head]).astype(np.int64)
    row = np.repeat(np.arange(len(train)), train.lengths)
    known = np.flatnonzero(values > 0)
    pairs = sparse.csr_matrix((classes, classes), dtype=np.float32)
    for distance, weight in enumerate(AHEAD if head == "next-item" else AHEAD[:1], start=1):
        first, then = known[:-distance], known[distance:]
        same = row[first] == row[then]
        weights = np.full(int(same.sum()), weight, dtype=np.float32)
        pairs = pairs + sparse.csr_matrix((weights, (values[first[same]], values[then[same]])), shape=pairs.shape)
    popularity = np.bincount(values[known], minlength=classes).astype(np.float32) + np.float32(0.1)
    popularity[0] = 0.0
    likeness = cosine(row[known], values[known], len(train), classes) if head == "next-item" else None
    again = _again(row[known], values[known], classes) if head == "next-item" else None
    return OwnCounts(popularity / popularity.sum(), pairs.tocsr(), likeness, again)


def _again(row: Index, item: Index, items: int) -> Floats:
    """How many times more an item comes back to who had it, few consumers drawn to the mean: ``float32[items]``."""
    pairs, times = np.unique(row * items + item, return_counts=True)
    had = np.bincount(pairs % items, minlength=items)
    more = np.bincount(pairs % items, weights=times - 1, minlength=items)
    usual = more.sum() / max(had.sum(), 1)
    return np.asarray((more + SURE * usual) / (had + SURE), dtype=np.float32)


def to_tensors(counts: OwnCounts, name: str) -> dict[str, NDArray[np.generic]]:
    """As named arrays, for a file."""
    tables = {TRANSITIONS: counts.transitions, LIKENESS: counts.likeness}
    arrays: dict[str, NDArray[np.generic]] = {f"{name}.popularity": counts.popularity}
    if counts.again is not None:
        arrays[f"{name}.again"] = counts.again
    for what, table in tables.items():
        if table is not None:
            arrays |= {
                f"{name}.{what}.data": table.data.astype(np.float32),
                f"{name}.{what}.indices": table.indices.astype(np.int32),
                f"{name}.{what}.indptr": table.indptr.astype(np.int64),
            }
    return arrays


def from_tensors(arrays: Mapping[str, NDArray[np.generic]], name: str) -> OwnCounts:
    """Inverse of ``to_tensors``. Raises: KeyError, ValueError for arrays that are none."""
    popularity = np.asarray(arrays[f"{name}.popularity"], dtype=np.float32)

    def table(what: str) -> sparse.csr_matrix | None:
        if f"{name}.{what}.data" not in arrays:
            return None
        parts = tuple(arrays[f"{name}.{what}.{part}"] for part in ("data", "indices", "indptr"))
        made = sparse.csr_matrix(parts, shape=(len(popularity), len(popularity)))
        made.check_format(full_check=True)
        return made

    transitions = table(TRANSITIONS)
    if transitions is None:
        raise KeyError(f"{name}.{TRANSITIONS}")
    again = arrays.get(f"{name}.again")
    if again is not None and again.shape != popularity.shape:
        raise ValueError("rates of other items")
    return OwnCounts(
        popularity, transitions, table(LIKENESS), None if again is None else np.asarray(again, dtype=np.float32)
    )
