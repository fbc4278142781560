"""Squared gradient norm of every consumer from the records, without any consumer's gradient.

Source: Goodfellow 2015 (norms from layer inputs and output gradients), Li et al. 2021 (sequences: the
Gram form), Bu et al. 2023 (choice between Gram and direct form by cost).
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.training.dpsgd.processor import one_blas_thread
from client.training.dpsgd.records import Outer, Picked, Record, Summed
from client.training.dpsgd.rows import RowMap

Stack: TypeAlias = NDArray[Any]

# speeds of a small product (Gram) and of a batched weight gradient (direct), measured: docs/dpsgd.md
_FAST_STEPS, _DIRECT_SPEED, _SQUARE_SPEED = 60, 50.0, 8.0  # steps; multiplications and numbers per ns
_CALL_NS = 8_000.0  # what a batched Gram form saves per consumer in calls
_LARGEST_INPUT = 1e4
_LARGEST = torch.finfo(torch.float32).max
_DIRECT_NUMBERS = 1 << 17  # of weight gradients made at a time: they stay in the L2 cache
_REFINE_BELOW = 1 / 32  # share of the rows' squares under which cancellation is worth doubles


def squared_norms(records: list[Record], consumers: int) -> Tensor:
    """Squared L2 norm of each consumer's whole gradient: ``[B]``; not finite where the gradient is not.

    Guarantee: never below the share of ``sum of squared row norms`` at which the rounding of the clipped
    sum itself would reach 1e-5 of the clipping norm, so that a consumer whose rows cancel is clipped
    rather than let through on a wrong norm.
    """
    like = records[0].grads
    with one_blas_thread(), np.errstate(all="ignore"):  # a warning about one consumer's rows would be seen
        return _squared_norms(records, consumers, like)


def _squared_norms(records: list[Record], consumers: int, like: Tensor) -> Tensor:
    squares, rows = like.new_zeros(consumers), like.new_zeros(consumers)
    for record in records:
        square, row = _SQUARES[type(record)](record)
        squares += square
        rows += row
    for outer, picked in _tied(records):
        squares += 2 * _cross(outer, picked)
    if like.dtype == torch.float32:
        doubtful = (squares < rows * _REFINE_BELOW) | _far_out(records, consumers)
        for b in torch.nonzero(doubtful).flatten().tolist():
            exact = float(_in_doubles(records, b))
            squares[b] = exact if exact <= _LARGEST else math.inf  # such a consumer is dropped
    unit = torch.finfo(like.dtype).eps / 2
    return torch.maximum(squares, rows * (4e5 * unit) ** 2)


def _far_out(records: list[Record], consumers: int) -> Tensor:
    """Consumers with a layer input so large that squares of small gradients would underflow beside it: ``bool[B]``.

    Up to ``_LARGEST_INPUT`` a gradient whose square is lost in float32 adds less than 1e-10 to the norm.
    Only parameters made by somebody hostile get there, and then float64 decides.
    """
    far = torch.zeros(consumers, dtype=torch.bool)
    for record in records:
        if not isinstance(record, Outer) or record.inputs.numel() == 0:
            continue
        low, high = torch.aminmax(record.inputs)
        if float(high) <= _LARGEST_INPUT and float(low) >= -_LARGEST_INPUT:
            continue
        ordinary = (record.inputs.abs() <= _LARGEST_INPUT).all(1)  # NaN is not
        far[record.rows.consumer[~ordinary]] = True
    return far


def _outer_squares(record: Record) -> tuple[Tensor, Tensor]:
    assert isinstance(record, Outer)
    rows = record.rows
    if rows.single:
        square = row_squares(record.grads) * _input_squares(record)
        return square, square
    steps = len(rows) // max(rows.consumers, 1)
    if rows.time_major and record.scale is None and _prefers_gram(steps, record, per_call_ns=_CALL_NS):
        return _batched(record, steps)
    return _by_length(record), rows.total(row_squares(record.grads) * _input_squares(record))


def row_squares(rows: Tensor) -> Tensor:
    """Squared length of each row: ``[R, width] -> [R]``."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms.square_()


def _input_squares(record: Outer) -> Tensor:
    """``scale^2 (|inputs|^2 + number of biases)`` of each row: ``[R]``."""
    total = row_squares(record.inputs).add_(len(record.biases))
    return total if record.scale is None else total * record.scale.square()


def _prefers_gram(steps: int, record: Outer, per_call_ns: float = 0.0) -> bool:
    """Compare nanoseconds: small products run at one multiplication per ns and step, up to ``_FAST_STEPS``."""
    outputs, inputs = record.grads.shape[1], record.inputs.shape[1]
    gram = 2 * steps * steps * (outputs + inputs) / min(steps, _FAST_STEPS)
    return gram < outputs * inputs * (steps / _DIRECT_SPEED + 1 / _SQUARE_SPEED) + per_call_ns


def _batched(record: Outer, steps: int) -> tuple[Tensor, Tensor]:
    """Gram form where all consumers have ``steps`` rows in time order: no row is copied."""
    products = [
        x.view(steps, record.rows.consumers, -1).transpose(0, 1).numpy() for x in (record.grads, record.inputs)
    ]
    grads, inputs = (torch.from_numpy(np.matmul(x, x.transpose(0, 2, 1))) for x in products)  # [B, T, T]
    grads.mul_(inputs.add_(len(record.biases)))
    return grads.sum((1, 2)), grads.diagonal(dim1=1, dim2=2).sum(1)


def _by_length(record: Outer) -> Tensor:
    """Squared norms of consumers of one number of rows at a time, each in its cheaper form. numpy: it makes ``x @ x.T``
    half a product (syrk), for each matrix of a stack.
    """
    rows, square = record.rows, np.zeros(record.rows.consumers, record.grads.numpy().dtype)
    scale = None if record.scale is None else rows.in_order(record.scale).numpy()
    x, a = rows.in_order(record.grads).numpy(), rows.in_order(record.scaled_inputs).numpy()
    for first, last, begin, steps in rows.runs:
        if steps == 0:
            continue
        part, end = (last - first, steps, -1), begin + (last - first) * steps
        one = None if scale is None else scale[begin:end].reshape(part[:2])
        form = _gram_squares if _prefers_gram(steps, record) else _direct_squares
        square[first:last] = form(x[begin:end].reshape(part), a[begin:end].reshape(part), one, len(record.biases))
    return torch.from_numpy(square)


def _gram_squares(x: Stack, a: Stack, one: Stack | None, biases: int) -> Stack:
    """``|x^T a|^2`` from products of rows with rows: ``[n, T, .] -> [n]``; ``one``: what the biases' rows are scaled by."""
    gram, other = np.matmul(x, x.transpose(0, 2, 1)), np.matmul(a, a.transpose(0, 2, 1))
    if biases:
        other += biases if one is None else biases * (one[:, :, None] * one[:, None, :])
    return _dots(gram, other)


def _direct_squares(x: Stack, a: Stack, one: Stack | None, biases: int) -> Stack:
    """The same from the weights' gradients themselves, a few consumers at a time."""
    found = np.empty(len(x), x.dtype)
    step = max(1, _DIRECT_NUMBERS // (x.shape[2] * a.shape[2]))
    for begin in range(0, len(x), step):
        some = slice(begin, begin + step)
        weight = np.matmul(x[some].transpose(0, 2, 1), a[some])
        found[some] = _dots(weight, weight)
    if biases:
        shift = x.sum(1) if one is None else np.matmul(one[:, None, :], x)[:, 0]
        found += biases * _dots(shift, shift)
    return found


def _dots(x: Stack, y: Stack) -> Stack:
    """Inner product of each pair of a stack, by BLAS: as exact as ``vdot``. Shapes: ``[n, ...] -> [n]``."""
    found: Stack = np.matmul(x.reshape(len(x), 1, -1), y.reshape(len(y), -1, 1))[:, 0, 0]
    return found


def consumer_views(rows: RowMap, values: Tensor) -> list[NDArray[Any]]:
    """The rows of each consumer: ``[R, width]`` -> B times ``[T_b, width]``; views where all are equally long."""
    if rows.time_major:
        return list(values.numpy().reshape(-1, rows.consumers, values.shape[1]).transpose(1, 0, 2))
    ordered = rows.in_order(values).numpy()
    return [ordered[begin:end] for begin, end in rows.slices]


def _picked_squares(record: Record) -> tuple[Tensor, Tensor]:
    assert isinstance(record, Picked)
    square = record.grads.new_zeros(record.rows.consumers)
    square.index_add_(0, record.segment_consumer, row_squares(record.segment_grads))
    return square, square  # the clipped sum adds up the same totals: nothing cancels unseen


def _summed_squares(record: Record) -> tuple[Tensor, Tensor]:
    assert isinstance(record, Summed)
    square = row_squares(record.totals)
    return square, square


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
    column = _columns_of(outer, picked)
    known = torch.nonzero(column >= 0).flatten()
    vectors, place = picked.segment_grads[known].numpy(), column[known].numpy()
    ends = np.searchsorted(picked.segment_consumer[known].numpy(), np.arange(outer.rows.consumers), side="right")
    grads, inputs = consumer_views(outer.rows, outer.grads), consumer_views(outer.rows, outer.scaled_inputs)
    out, start = [0.0] * outer.rows.consumers, 0
    for b, stop in enumerate(ends.tolist()):
        if len(grads[b]) and start < stop:
            products = inputs[b] @ vectors[start:stop].T  # [T, S]
            out[b] = float(np.vdot(products, grads[b][:, place[start:stop]]))
        start = stop
    return outer.grads.new_tensor(out)


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
