"""What a leaf writes down in one backward: enough for norms and for a weighted sum, nothing per parameter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from client.training.dpsgd.rows import RowMap


@dataclass(frozen=True)
class Outer:
    """A weight whose gradient is, per consumer, the sum over its rows r of ``scale[r] * grads[r] inputs[r]^T``.

    Several weights may share one ``grads`` (an LSTM's input and recurrent weight): ``inputs`` are then
    theirs side by side. The gradient of every bias is the sum of ``scale[r] * grads[r]``.

    Shapes: ``grads: [R, o]``, ``inputs: [R, sum of i_j]`` for ``weights[j]: [o, i_j]``, ``biases: [o]`` each,
    ``scale: [R]`` or None for ones; ``columns: int64[o]`` = the weight's row of each column of ``grads``,
    or None for all rows.
    """

    rows: RowMap
    grads: Tensor
    weights: tuple[Parameter, ...]
    inputs: Tensor
    biases: tuple[Parameter, ...] = ()
    scale: Tensor | None = None
    columns: Tensor | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Weights, then biases."""
        return self.weights + self.biases

    @property
    def widths(self) -> list[int]:
        """Columns of ``inputs`` that belong to each weight."""
        return [w.shape[1] for w in self.weights]

    @cached_property
    def scaled_inputs(self) -> Tensor:
        """``scale * inputs``: the factor is put on the narrow side."""
        return self.inputs if self.scale is None else self.inputs * self.scale[:, None]


@dataclass(frozen=True)
class Picked:
    """A table whose gradient is, per consumer, ``grads[r]`` added to row ``ids[r]``: an embedding.

    Shapes: ``ids: int64[R]``, ``grads: [R, width]``, ``table: [V, width]`` (a vector has width 1).
    """

    rows: RowMap
    grads: Tensor
    table: Parameter
    ids: Tensor

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The table."""
        return (self.table,)

    @cached_property
    def _segments(self) -> tuple[Tensor, Tensor, Tensor]:
        height = self.table.shape[0]
        keys = self.rows.consumer.numpy() * height + self.ids.numpy()
        unique, inverse = np.unique(keys, return_inverse=True)
        consumer, item = np.divmod(unique, height)
        return torch.from_numpy(consumer), torch.from_numpy(item), torch.from_numpy(inverse)

    @property
    def segment_consumer(self) -> Tensor:
        """Consumer of each distinct (consumer, id) pair: ``int64[S]``, ascending."""
        return self._segments[0]

    @property
    def segment_id(self) -> Tensor:
        """Table row of each pair: ``int64[S]``."""
        return self._segments[1]

    @cached_property
    def segment_grads(self) -> Tensor:
        """Gradient of each pair, repeats added up: ``[S, width]``."""
        consumer, _, inverse = self._segments
        out = self.grads.new_zeros((len(consumer), self.grads.shape[1]))
        return out.index_add_(0, inverse, self.grads)


@dataclass(frozen=True)
class Summed:
    """A vector whose gradient is, per consumer, the sum of its rows: the scale or shift of a LayerNorm.

    Shapes: ``grads: [R, width]``, ``vector``: ``width`` numbers in any shape.
    """

    rows: RowMap
    grads: Tensor
    vector: Parameter

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The vector."""
        return (self.vector,)

    @cached_property
    def totals(self) -> Tensor:
        """Gradient of each consumer: ``[B, width]``."""
        return self.rows.total(self.grads)


Record = Outer | Picked | Summed


def merge(records: list[Record]) -> list[Record]:
    """Join records that write to the same parameters in the same way (a layer that was called twice)."""
    kept: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        kept.setdefault(_kind(record), []).append(record)
    return [same[0] if len(same) == 1 else _join(same) for same in kept.values()]


def _kind(record: Record) -> tuple[object, ...]:
    columns = id(record.columns) if isinstance(record, Outer) and record.columns is not None else 0
    return (type(record), columns, *(id(p) for p in record.parameters))


def _join(same: list[Record]) -> Record:
    first = same[0]
    rows = RowMap(torch.cat([r.rows.consumer for r in same]), first.rows.consumers)
    grads = torch.cat([r.grads for r in same])
    if isinstance(first, Picked):
        return Picked(rows, grads, first.table, torch.cat([r.ids for r in same if isinstance(r, Picked)]))
    if isinstance(first, Summed):
        return Summed(rows, grads, first.vector)
    outers = [r for r in same if isinstance(r, Outer)]
    scale = None
    if any(r.scale is not None for r in outers):
        scale = torch.cat([grads.new_ones(len(r.rows)) if r.scale is None else r.scale for r in outers])
    inputs = torch.cat([r.inputs for r in outers])
    return Outer(rows, grads, first.weights, inputs, first.biases, scale, first.columns)
