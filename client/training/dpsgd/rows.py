"""``RowMap``: which consumer each row of a tensor belongs to, and how to bring its rows together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Index = NDArray[np.int64]
_FULL_ENOUGH = 0.8  # consumers share a padded group while the shortest has this share of the longest


@dataclass(frozen=True)
class Group:
    """Consumers of similar length whose rows are brought together as ``[k, T, width]``.

    Shapes: ``consumers: int64[k]``; ``index: int64[k, T]`` row numbers, an absent step repeats a row of
    the same consumer; ``present: bool[k, T]``, or None if every step exists. ``time_major``: the
    group is everything, and row ``t * k + j`` is step t of consumer j, so that no copy is needed.
    """

    consumers: Tensor
    index: Tensor
    present: Tensor | None
    time_major: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Consumers and steps: ``(k, T)``."""
        return self.index.shape[0], self.index.shape[1]

    def gather(self, rows: Tensor) -> Tensor:
        """Bring rows together. Shapes: ``[R, width] -> [k, T, width]``; absent steps repeat a row."""
        k, t = self.shape
        if self.time_major:
            return rows.view(t, k, -1).transpose(0, 1)
        return rows.index_select(0, self.index.reshape(-1)).view(k, t, -1)

    def split(self, consumers: int) -> Iterator[Group]:
        """Cut into groups of at most ``consumers`` consumers."""
        if consumers >= self.shape[0]:
            yield self
            return
        for begin in range(0, self.shape[0], consumers):
            part = slice(begin, begin + consumers)
            present = None if self.present is None else self.present[part]
            yield Group(self.consumers[part], self.index[part], present)


class RowMap:
    """The consumer of each of R rows: ``consumer: int64[R]`` in ``[0, consumers)``.

    ``single`` says that row b belongs to consumer b and to nobody else.
    """

    def __init__(self, consumer: Tensor, consumers: int, *, single: bool = False) -> None:
        self.consumer = consumer
        self.consumers = consumers
        self.single = single

    @classmethod
    def one_each(cls, consumers: int) -> RowMap:
        """The map of tensors that hold one row per consumer."""
        return cls(torch.arange(consumers), consumers, single=True)

    def __len__(self) -> int:
        return int(self.consumer.shape[0])

    @cached_property
    def counts(self) -> Index:
        """Rows of each consumer: ``int64[consumers]``."""
        return np.bincount(self.consumer.numpy(), minlength=self.consumers)

    @cached_property
    def by_consumer(self) -> Tensor:
        """Row numbers, consumer after consumer, in the order of the rows: ``int64[R]``."""
        return torch.from_numpy(np.argsort(self.consumer.numpy(), kind="stable"))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Every consumer that has rows, in groups of similar length."""
        order = np.argsort(-self.counts, kind="stable")
        counts = self.counts[order]
        starts = (np.cumsum(self.counts) - self.counts)[order]
        groups, begin, there = [], 0, int(np.count_nonzero(counts))
        while begin < there:
            longest = int(counts[begin])
            # counts is descending: the group ends before the first consumer that is too short
            end = int(np.searchsorted(-counts[:there], -_FULL_ENOUGH * longest, side="right"))
            groups.append(self._group(order[begin:end], starts[begin:end], counts[begin:end]))
            begin = end
        return tuple(groups)

    def _group(self, consumers: Index, starts: Index, counts: Index) -> Group:
        longest, k = int(counts[0]), len(consumers)
        steps = np.arange(longest)
        full = int(counts[-1]) == longest
        if full and k == self.consumers and bool((self.consumer.view(longest, k) == torch.arange(k)).all()):
            index = torch.arange(longest * k).view(longest, k).t()
            return Group(torch.arange(k), index, None, time_major=True)
        place = starts[:, None] + np.minimum(steps, counts[:, None] - 1)
        index = self.by_consumer[torch.from_numpy(place)]
        present = None if full else torch.from_numpy(steps < counts[:, None])
        return Group(torch.from_numpy(consumers), index, present)

    @cached_property
    def slices(self) -> list[tuple[int, int]] | None:
        """First and last + 1 row of each consumer where rows lie consumer after consumer, else None."""
        if len(self) and bool((self.consumer[1:] < self.consumer[:-1]).any()):
            return None
        ends = np.cumsum(self.counts)
        return list(zip((ends - self.counts).tolist(), ends.tolist(), strict=True))

    def padded(self, consumers: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of some consumers, as row numbers ``int64[k, T]`` and ``bool[k, T]`` for those that exist."""
        counts = self.counts[consumers.numpy()]
        starts = (np.cumsum(self.counts) - self.counts)[consumers.numpy()]
        steps = np.arange(int(counts.max(initial=0)))
        present = steps < counts[:, None]
        place = np.where(present, starts[:, None] + steps, 0)
        return self.by_consumer[torch.from_numpy(place)], torch.from_numpy(present)

    def total(self, values: Tensor) -> Tensor:
        """Sum of each consumer's rows. Shapes: ``[R, ...] -> [consumers, ...]``."""
        if self.single:
            return values
        out = values.new_zeros((self.consumers, *values.shape[1:]))
        return out.index_add_(0, self.consumer, values)
