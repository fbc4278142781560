"""Squared gradient norm of every consumer from the records, without any consumer's gradient.

Source: Goodfellow 2015 (norms from layer inputs and output gradients), Li et al. 2021 (sequences: the
Gram form), Bu et al. 2023 (choice between Gram and direct form by cost).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from client.training.dpsgd.records import Outer, Picked, Record, Summed
from client.training.dpsgd.rows import Group, RowMap

# speeds of a small product (Gram) and of a batched weight gradient (direct), measured: docs/dpsgd.md
_GRAM_COST, _DIRECT_COST, _SQUARE_COST = 3.0, 1.0, 12.0
_DIRECT_NUMBERS = 1 << 19  # numbers of one direct block: 2 MB, so that squaring reads the cache
_LOOP_WIDTH = 1_024  # from this width on one product per consumer is as fast as a batched one
_REFINE_BELOW = 1 / 32  # share of the rows' squares under which cancellation is worth doubles


def squared_norms(records: list[Record], consumers: int) -> Tensor:
    """Squared L2 norm of each consumer's whole gradient: ``[B]``; not finite where the gradient is not.

    Guarantee: never below the share of ``sum of squared row norms`` at which the rounding of the clipped
    sum itself would reach 1e-5 of the clipping norm, so that a consumer whose rows cancel is clipped
    rather than let through on a wrong norm.
    """
    like = records[0].grads
    squares, rows = like.new_zeros(consumers), like.new_zeros(consumers)
    for record in records:
        square, row = _SQUARES[type(record)](record)
        squares += square
        rows += row
    for outer, picked in _tied(records):
        squares += 2 * _cross(outer, picked)
    if like.dtype == torch.float32:
        for b in torch.nonzero(squares < rows * _REFINE_BELOW).flatten().tolist():
            squares[b] = _in_doubles(records, b)
    unit = torch.finfo(like.dtype).eps / 2
    return torch.maximum(squares, rows * (4e5 * unit) ** 2)


def _outer_squares(record: Record) -> tuple[Tensor, Tensor]:
    assert isinstance(record, Outer)
    if record.rows.single:
        square = row_squares(record.grads) * _input_squares(record)
        return square, square
    if record.grads.shape[1] >= _LOOP_WIDTH and record.rows.slices is not None:
        return _looped(record, record.rows.slices), _row_total(record)
    square, rows = record.grads.new_zeros(record.rows.consumers), record.grads.new_zeros(record.rows.consumers)
    for group in record.rows.groups:
        square[group.consumers], rows[group.consumers] = _grouped(record, group)
    return square, rows


def row_squares(rows: Tensor) -> Tensor:
    """Squared length of each row: ``[R, width] -> [R]``."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms.square_()


def _input_squares(record: Outer) -> Tensor:
    """``scale^2 (|inputs|^2 + number of biases)`` of each row: ``[R]``."""
    total = row_squares(record.inputs).add_(len(record.biases))
    return total if record.scale is None else total * record.scale.square()


def _prefers_gram(steps: int, outputs: int, inputs: int) -> bool:
    gram = steps * (outputs + inputs) * _GRAM_COST
    return gram < outputs * inputs * (_DIRECT_COST + _SQUARE_COST / steps)


def _row_total(record: Outer) -> Tensor:
    """Sum of the squares of each consumer's rows: ``[B]``."""
    return record.rows.total(row_squares(record.grads) * _input_squares(record))


def _grouped(record: Outer, group: Group) -> tuple[Tensor, Tensor]:
    """Squared norms of one group's consumers, and the sums of their rows' squares: ``[k]`` both."""
    _, steps = group.shape
    outputs, inputs = record.grads.shape[1], record.inputs.shape[1]
    if _prefers_gram(steps, outputs, inputs):
        return _gram(record, group)
    size = max(1, _DIRECT_NUMBERS // (outputs * inputs))
    square = torch.cat([_direct(record, part) for part in group.split(size)])
    return square, _row_total(record)[group.consumers]


def _gram(record: Outer, group: Group) -> tuple[Tensor, Tensor]:
    products = self_products(group.gather(record.grads))  # [k, T, T]
    products.mul_(self_products(group.gather(record.inputs)).add_(len(record.biases)))
    weight = _step_weights(record, group)
    if weight is not None:
        products.mul_(weight[:, :, None]).mul_(weight[:, None, :])
    return products.sum((1, 2)), products.diagonal(dim1=1, dim2=2).sum(1)


def self_products(rows: Tensor) -> Tensor:
    """``rows @ rows^T`` of each consumer: ``[k, T, width] -> [k, T, T]``.

    numpy makes this half a product (syrk), and its BLAS is twice as fast as torch's on small ones.
    """
    array = rows.numpy()
    with np.errstate(all="ignore"):  # a warning about one consumer's rows would be seen
        return torch.from_numpy(np.matmul(array, array.transpose(0, 2, 1)))


def _step_weights(record: Outer, group: Group) -> Tensor | None:
    """Factor of each gathered step, 0 for an absent one: ``[k, T]``, or None for all ones."""
    weight = None if record.scale is None else group.gather(record.scale[:, None])[..., 0]
    if group.present is None:
        return weight
    present = group.present.to(record.grads.dtype)
    return present if weight is None else weight * present


def _direct(record: Outer, group: Group) -> Tensor:
    grads = group.gather(record.grads)  # [k, T, o]
    weight = _step_weights(record, group)
    if weight is not None:
        grads = grads * weight[..., None]
    products = torch.bmm(grads.transpose(1, 2), group.gather(record.inputs))  # [k, o, i]
    square = row_squares(products.flatten(1))
    return square.add_(grads.sum(1).square_().sum(1), alpha=len(record.biases))


def _looped(record: Outer, slices: list[tuple[int, int]]) -> Tensor:
    """Squared norms with one product per consumer, for wide layers: no gathered copy of ``grads``."""
    square = record.grads.new_zeros(record.rows.consumers)
    scaled = record.scaled_inputs
    ones = square.new_ones(len(record.rows)) if record.scale is None else record.scale
    for b, (begin, end) in enumerate(slices):
        if begin == end:
            continue
        grads, inputs, one = record.grads[begin:end], scaled[begin:end], ones[begin:end]
        if _prefers_gram(end - begin, grads.shape[1], inputs.shape[1]):
            similar = self_products(inputs[None])[0].addr_(one, one, alpha=len(record.biases))
            square[b] = self_products(grads[None])[0].mul_(similar).sum()
        else:
            total = torch.mm(grads.t(), inputs).flatten().square_().sum()
            square[b] = total.add_(torch.mv(grads.t(), one).square_().sum(), alpha=len(record.biases))
    return square


def _picked_squares(record: Record) -> tuple[Tensor, Tensor]:
    assert isinstance(record, Picked)
    rows = record.rows.total(row_squares(record.grads))
    square = torch.zeros_like(rows)
    square.index_add_(0, record.segment_consumer, row_squares(record.segment_grads))
    return square, rows


def _summed_squares(record: Record) -> tuple[Tensor, Tensor]:
    assert isinstance(record, Summed)
    return row_squares(record.totals), record.rows.total(row_squares(record.grads))


_SQUARES = {Outer: _outer_squares, Picked: _picked_squares, Summed: _summed_squares}


def _tied(records: list[Record]) -> list[tuple[Outer, Picked]]:
    """Pairs that write to the same table: an output layer tied to an embedding.

    A bias is written by an ``Outer`` and a ``Picked`` of one sampled softmax only, at disjoint places.
    """
    outers = [r for r in records if isinstance(r, Outer)]
    picked = [r for r in records if isinstance(r, Picked)]
    return [(o, p) for o in outers for p in picked if any(w is p.table for w in o.weights)]


def _cross(outer: Outer, picked: Picked) -> Tensor:
    """Inner product of each consumer's two gradients of a tied table: ``[B]``."""
    place = _columns_of(outer, picked)
    known = torch.nonzero(place >= 0).flatten()
    segments = RowMap(picked.segment_consumer[known], picked.rows.consumers)
    vectors, place = picked.segment_grads[known], place[known]
    out = vectors.new_zeros(picked.rows.consumers)
    inputs = outer.scaled_inputs
    width = outer.grads.shape[1]
    flat = outer.grads.reshape(-1)
    for group in outer.rows.groups:
        ids, present = segments.padded(group.consumers)  # [k, S]
        if ids.shape[1] == 0:
            continue
        products = torch.bmm(group.gather(inputs), vectors[ids].transpose(1, 2))  # [k, T, S]
        products.mul_(flat[group.index[:, :, None] * width + place[ids][:, None, :]])
        products.mul_(present[:, None, :])
        if group.present is not None:
            products.mul_(group.present[:, :, None])
        out[group.consumers] = products.sum((1, 2))
    return out


def _columns_of(outer: Outer, picked: Picked) -> Tensor:
    """Column of ``outer.grads`` that belongs to each segment's table row, -1 for none: ``int64[S]``."""
    if outer.columns is None:
        return picked.segment_id
    lookup = torch.full((picked.table.shape[0],), -1)
    lookup[outer.columns] = torch.arange(len(outer.columns))
    return lookup[picked.segment_id]


def _in_doubles(records: list[Record], consumer: int) -> float:
    """Squared norm of one consumer from its gradient itself, in float64."""
    return sum(float(g.square().sum()) for g in consumer_gradient(records, consumer).values())


def consumer_gradient(records: list[Record], consumer: int) -> dict[int, Tensor]:
    """One consumer's gradient by parameter ``id``, dense and in float64. Slow; for rare and small cases."""
    gradient: dict[int, Tensor] = {}
    for record in records:
        for parameter in record.parameters:
            if id(parameter) not in gradient:
                gradient[id(parameter)] = torch.zeros(parameter.shape, dtype=torch.float64)
        mine = torch.nonzero(record.rows.consumer == consumer).flatten()
        grads = record.grads[mine].double()
        if isinstance(record, Picked):
            table = gradient[id(record.table)]
            table.view(len(table), -1).index_add_(0, record.ids[mine], grads)
        elif isinstance(record, Summed):
            gradient[id(record.vector)] += grads.sum(0).view(record.vector.shape)
        else:
            _add_outer(gradient, record, grads, mine)
    return gradient


def _add_outer(gradient: dict[int, Tensor], record: Outer, grads: Tensor, mine: Tensor) -> None:
    if record.scale is not None:
        grads = grads * record.scale[mine].double()[:, None]
    columns = torch.arange(grads.shape[1]) if record.columns is None else record.columns
    product = grads.t() @ record.inputs[mine].double()
    for weight, part in zip(record.weights, product.split(record.widths, dim=1), strict=True):
        gradient[id(weight)].index_add_(0, columns, part)
    for bias in record.biases:
        gradient[id(bias)].index_add_(0, columns, grads.sum(0))
