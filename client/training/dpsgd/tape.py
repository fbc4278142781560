"""``Tape``: what the leaves of one model write down between a forward and the clipped sum."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from client.training.dpsgd.arena import Arena
from client.training.dpsgd.records import Record, merge
from client.training.dpsgd.rows import RowMap
from common.errors import BadInputError


@dataclass
class Tape:
    """Records of one micro-batch, and the memory that they live in.

    Guarantee: while ``recording``, a leaf's parameters get no gradient from autograd; what they would
    have got, per consumer, follows from ``records``.
    """

    arena: Arena = field(default_factory=Arena)
    records: list[Record] = field(default_factory=list)
    steps: RowMap | None = None
    sizes: list[int] = field(default_factory=list)
    consumers: RowMap | None = None

    @property
    def recording(self) -> bool:
        """True between ``start`` and ``stop`` where gradients are on."""
        return self.steps is not None and torch.is_grad_enabled()

    def start(self, consumer_of_row: Tensor, batch_sizes: Tensor, consumers: int) -> None:
        """Begin a micro-batch of packed rows. Every consumer has at least one row.

        Shapes: ``consumer_of_row: int64[P]``, ``batch_sizes: int64[T]``.
        """
        self.arena.reset()
        self.records = []
        self.steps = RowMap(consumer_of_row, consumers, single=len(consumer_of_row) == consumers)
        self.sizes = batch_sizes.tolist()
        self.consumers = RowMap.one_each(consumers)

    def stop(self) -> list[Record]:
        """End the micro-batch and return its records, joined where a layer was called more than once."""
        records, self.records = merge(self.records), []
        self.steps = self.consumers = None
        return records

    def rows(self, count: int, layer: str) -> RowMap:
        """The map of a tensor with ``count`` rows. Raises: BadInputError naming the layer."""
        assert self.steps is not None
        assert self.consumers is not None
        if count == len(self.steps):
            return self.steps
        if count == len(self.consumers):
            return self.consumers
        raise BadInputError(
            f"layer {layer!r} was given {count} rows, the batch has {len(self.steps)} steps"
            f" of {len(self.consumers)} consumers",
            hint="give a layer one row per step or one row per consumer, so that each row has one owner",
        )

    def add(self, record: Record) -> None:
        """Write down what a leaf's backward saw."""
        self.records.append(record)

    def take(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uninitialised memory of the micro-batch."""
        return self.arena.take(shape, like.dtype)
