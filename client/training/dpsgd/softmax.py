"""Softmax, cross-entropy and their gradients in one pass over the logits, while they are in the cache.

The logits of a batch are the largest tensor of training. Here they are made chunk by chunk and turned
into gradients where they stand; nothing else of their size exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from client.training.dpsgd.leaves import TapedLeaf
from client.training.dpsgd.records import Outer, Picked
from client.training.dpsgd.rows import RowMap
from common.model import Batch, ItemHead, shifted_exp_

_CHUNK_NUMBERS = 1 << 20  # logits of one chunk: 4 MB


class TapedItemHead(ItemHead, TapedLeaf):
    """``ItemHead`` whose loss over packed rows is one fused function; everything else is unchanged."""

    def step_losses(self, hidden: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """As ``ItemHead``; rows are recorded while the tape is recording. Shapes: ``[P]``."""
        if not self.tape.recording:
            return super().step_losses(hidden, target, batch)
        rows = self.tape.rows(hidden.shape[0], self.layer)
        losses: Tensor = _SoftmaxLoss.apply(hidden, self.linear.weight, self, _Question(rows, target, batch))
        return losses


@dataclass(frozen=True)
class _Question:
    """Rows, their targets, and the batch that knows which items were seen."""

    rows: RowMap
    target: Tensor
    batch: Batch


@dataclass(frozen=True)
class _Answer:
    """Everything by row, consumer after consumer: hidden states, and gradients of the loss by the logits,
    which are ``share * grads`` (and ``share * outside``): dividing narrow things saves a pass.
    """

    order: Tensor | None
    rows: RowMap
    hidden: Tensor
    grads: Tensor
    share: Tensor
    outside: Tensor | None
    hidden_grads: Tensor


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, head: TapedItemHead, question: _Question) -> Tensor:
        solve = _full if head.negatives is None else _sampled
        losses, ctx.answer = solve(hidden.contiguous(), weight, head, question)
        ctx.head, ctx.target, ctx.weight = head, question.target, weight
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        answer, linear, tape = ctx.answer, ctx.head.linear, ctx.head.tape
        scale = _in_order(grad, answer.order) * answer.share
        biases = () if linear.bias is None else (linear.bias,)
        columns = None if ctx.head.negatives is None else ctx.head.negatives
        tape.add(Outer(answer.rows, answer.grads, (linear.weight,), answer.hidden, biases, scale, columns))
        if answer.outside is not None:
            own = (answer.outside * scale)[:, None]
            target = _in_order(ctx.target, answer.order)
            tape.add(Picked(answer.rows, answer.hidden * own, linear.weight, target))
            for bias in biases:
                tape.add(Picked(answer.rows, own, bias, target))
        return _back(answer.hidden_grads * scale[:, None], answer.order), None, None, None


def _ordered(rows: RowMap) -> tuple[Tensor | None, RowMap]:
    """The order that puts rows consumer after consumer (None: they are), and the map of the ordered rows."""
    if rows.single:
        return None, rows
    order = rows.by_consumer
    return order, RowMap(rows.consumer[order], rows.consumers)


def _in_order(values: Tensor, order: Tensor | None) -> Tensor:
    return values if order is None else values.index_select(0, order)


def _back(values: Tensor, order: Tensor | None) -> Tensor:
    return values if order is None else torch.empty_like(values).index_copy_(0, order, values)


def _chunks(rows: int, width: int) -> list[slice]:
    step = max(32, _CHUNK_NUMBERS // width)
    return [slice(begin, min(begin + step, rows)) for begin in range(0, rows, step)]


def _full(hidden: Tensor, weight: Tensor, head: TapedItemHead, question: _Question) -> tuple[Tensor, _Answer]:
    """The softmax over all items but 0."""
    order, rows = _ordered(question.rows)
    states, target = _in_order(hidden, order), _in_order(question.target, order)
    count, items = len(rows), weight.shape[0]
    grads = head.tape.take((count, items), hidden)
    seen = _Seen(question.batch, order, count, items) if head.copy_bonus else None
    hidden_grads = head.tape.take(tuple(hidden.shape), hidden)
    loss, total = hidden.new_empty(count), hidden.new_empty(count)
    for part in _chunks(count, items):
        logits = grads[part]
        _product(states[part], weight, head.linear.bias, logits)
        if seen is not None:
            seen.add(logits, part, head.copy_bonus)
        logits[:, 0] = float("-inf")
        _to_gradient(logits, target[part], loss[part], total[part])
        torch.mm(logits, weight, out=hidden_grads[part])
    return _back(loss, order), _Answer(order, rows, states, grads, total.reciprocal_(), None, hidden_grads)


def _product(states: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(states, weight.t(), out=out)
    else:
        torch.addmm(bias, states, weight.t(), out=out)


def _to_gradient(logits: Tensor, target: Tensor, loss: Tensor, total: Tensor) -> None:
    """Turn logits into ``total * (softmax - one hot)`` in place, ``total >= 1``; zeros where the target is 0."""
    place = target[:, None]
    wanted = logits.gather(1, place)[:, 0]
    top = logits.amax(1)
    shifted_exp_(logits, top[:, None])
    logits[:, 0] = 0  # no item: its row of the table is never read
    torch.sum(logits, 1, out=total)
    loss.copy_(total.log() + top - wanted)
    logits.scatter_add_(1, place, -total[:, None])
    unknown = target == 0
    if bool(unknown.any()):
        logits[unknown] = 0
        loss[unknown] = 0


def _place(rows: Tensor, order: Tensor | None) -> Tensor:
    """Where the rows of the batch lie in the order."""
    if order is None:
        return rows
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return place[rows]


class _Seen:
    """Where the copy bonus goes, in rows ordered consumer after consumer."""

    def __init__(self, batch: Batch, order: Tensor | None, rows: int, items: int) -> None:
        row, by_row = _place(batch.seen_rows, order).sort()
        self.flat = row * items + batch.seen_items[by_row]
        self.begin = torch.searchsorted(row, torch.arange(rows + 1)).tolist()
        self.items = items

    def add(self, logits: Tensor, part: slice, bonus: float) -> None:
        """Add the bonus to one chunk of logits. Shapes: ``[part, items]``."""
        flat = self.flat[self.begin[part.start] : self.begin[part.stop]] - part.start * self.items
        logits.view(-1).index_add_(0, flat, logits.new_full((), bonus).expand(len(flat)))


def _sampled(hidden: Tensor, weight: Tensor, head: TapedItemHead, question: _Question) -> tuple[Tensor, _Answer]:
    """The softmax over the public negatives and each row's own target.

    A target that is one of the negatives uses that column; another one gets a column of its own
    (``outside``), so that no row of the table is written from two places of one record.
    """
    assert head.negatives is not None
    order, rows = _ordered(question.rows)
    states, target = _in_order(hidden, order), _in_order(question.target, order)
    negatives, bias = head.negatives, head.linear.bias
    count, table = len(rows), weight.index_select(0, negatives)
    lookup = torch.full((weight.shape[0],), -1)
    lookup[negatives] = torch.arange(len(negatives))
    column = lookup[target]
    inside = column >= 0
    grads = head.tape.take((count, len(negatives)), hidden)
    _product(states, table, None if bias is None else bias[negatives], grads)
    own_rows = weight.index_select(0, target)
    own = torch.linalg.vecdot(states, own_rows)
    if bias is not None:
        own = own + bias[target]
    if head.copy_bonus:
        own = _add_seen(grads, own, question, order, (lookup, head.copy_bonus))
    own.masked_fill_(inside, float("-inf"))
    loss, outside, total = _to_sampled_gradient(grads, own, torch.where(inside, column, 0), inside)
    unknown = target == 0
    grads[unknown], outside[unknown], loss[unknown] = 0, 0, 0
    hidden_grads = torch.mm(grads, table).addcmul_(outside[:, None], own_rows)
    return _back(loss, order), _Answer(order, rows, states, grads, total.reciprocal_(), outside, hidden_grads)


def _add_seen(
    grads: Tensor, own: Tensor, question: _Question, order: Tensor | None, copy: tuple[Tensor, float]
) -> Tensor:
    """Add the copy bonus to the columns of the negatives; return the targets' logits with theirs."""
    lookup, bonus = copy
    batch = question.batch
    row, column = _place(batch.seen_rows, order), lookup[batch.seen_items]
    known = column >= 0
    flat = row[known] * grads.shape[1] + column[known]
    grads.view(-1).index_add_(0, flat, grads.new_full((), bonus).expand(len(flat)))
    hit = row[batch.seen_items == question.target[batch.seen_rows]]
    return own.index_add(0, hit, own.new_full((), bonus).expand(len(hit)))


def _to_sampled_gradient(
    grads: Tensor, own: Tensor, column: Tensor, inside: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``_to_gradient``; returns losses, the gradients of the targets' own column, and ``total``."""
    place = column[:, None]
    wanted = torch.where(inside, grads.gather(1, place)[:, 0], own)
    top = torch.maximum(grads.amax(1), own)
    shifted_exp_(grads, top[:, None])
    own = (own - top).exp_()
    total = grads.sum(1) + own
    one = torch.where(inside, total, torch.zeros_like(total))
    grads.scatter_add_(1, place, -one[:, None])
    return total.log() + top - wanted, own - (total - one), total
