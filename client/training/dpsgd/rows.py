"""``RowMap``: which consumer each row of a tensor belongs to, and how to bring its rows together."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Index = NDArray[np.int64]


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
    def ordered(self) -> bool:
        """True if the rows lie consumer after consumer."""
        consumer = self.consumer.numpy()
        return bool((consumer[1:] >= consumer[:-1]).all())

    @cached_property
    def by_consumer(self) -> Tensor:
        """Row numbers, consumer after consumer, in the order of the rows: ``int64[R]``."""
        return torch.from_numpy(np.argsort(self.consumer.numpy(), kind="stable"))

    @cached_property
    def slices(self) -> list[tuple[int, int]]:
        """First and last + 1 row of each consumer once the rows lie consumer after consumer."""
        ends = np.cumsum(self.counts)
        return list(zip((ends - self.counts).tolist(), ends.tolist(), strict=True))

    @cached_property
    def runs(self) -> list[tuple[int, int, int, int]]:
        """Neighbouring consumers with equally many rows: first, last + 1, place of their first row in order, rows of each."""
        edges = [0, *(np.flatnonzero(np.diff(self.counts)) + 1).tolist(), self.consumers]
        ends = np.cumsum(self.counts) - self.counts
        return [(a, b, int(ends[a]), int(self.counts[a])) for a, b in pairwise(edges) if a < b]

    @cached_property
    def time_major(self) -> bool:
        """True if row ``t * consumers + b`` is step t of consumer b: all rows are equally long."""
        if self.consumers == 0 or len(self) % self.consumers:
            return False
        return bool((self.consumer.view(-1, self.consumers) == torch.arange(self.consumers)).all())

    def in_order(self, values: Tensor) -> Tensor:
        """Rows brought together consumer after consumer. Shapes: ``[R, ...]`` -> same."""
        return values if self.ordered else values.index_select(0, self.by_consumer)

    def total(self, values: Tensor) -> Tensor:
        """Sum of each consumer's rows. Shapes: ``[R, ...] -> [consumers, ...]``."""
        if self.single:
            return values
        out = values.new_zeros((self.consumers, *values.shape[1:]))
        return out.index_add_(0, self.consumer, values)
