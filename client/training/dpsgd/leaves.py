"""Embedding, Linear and LayerNorm that write to a tape. Same parameters and ``state_dict`` as torch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from client.training.dpsgd.records import Outer, Picked, Summed
from client.training.dpsgd.rows import RowMap
from client.training.dpsgd.tape import Tape
from common.errors import BadInputError


class TapedLeaf(nn.Module):
    """What every taped layer has: its tape and its name in the model (set by ``make_taped``)."""

    tape: Tape
    layer: str


def flat_rows(leaf: TapedLeaf, x: Tensor) -> tuple[Tensor, RowMap]:
    """Check that ``x`` is ``[rows, width]`` and find the owners of its rows."""
    if x.dim() != 2:
        raise BadInputError(
            f"layer {leaf.layer!r} was given a tensor of shape {tuple(x.shape)}",
            hint="train on packed rows [rows, width]; padded batches are for the opacus path",
        )
    return x, leaf.tape.rows(x.shape[0], leaf.layer)


class TapedLinear(nn.Linear, TapedLeaf):
    """``nn.Linear`` on packed rows."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """As ``nn.Linear``; rows are recorded while the tape is recording."""
        if not self.tape.recording:
            return super().forward(input)
        x, rows = flat_rows(self, input)
        out: Tensor = _Linear.apply(x, self.weight, self.bias, self, rows)
        return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, leaf: TapedLinear, rows: RowMap
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.leaf, ctx.rows = leaf, rows
        out = leaf.tape.take((x.shape[0], weight.shape[0]), x)
        if bias is None:
            return torch.mm(x, weight.t(), out=out)
        return torch.addmm(bias, x, weight.t(), out=out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        (x,), leaf = ctx.saved_tensors, ctx.leaf
        grad = grad.contiguous()
        biases = () if leaf.bias is None else (leaf.bias,)
        leaf.tape.add(Outer(ctx.rows, grad, (leaf.weight,), x, biases))
        return (grad @ leaf.weight if ctx.needs_input_grad[0] else None), None, None, None, None


class TapedEmbedding(nn.Embedding, TapedLeaf):
    """``nn.Embedding`` on packed rows."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """As ``nn.Embedding``; rows are recorded while the tape is recording."""
        if not self.tape.recording:
            return super().forward(input)
        if input.dim() != 1:
            raise BadInputError(
                f"layer {self.layer!r} was given ids of shape {tuple(input.shape)}",
                hint="train on packed rows [rows]; padded batches are for the opacus path",
            )
        out: Tensor = _Embedding.apply(self.weight, input, self, self.tape.rows(len(input), self.layer))
        return out


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, leaf: TapedEmbedding, rows: RowMap) -> Tensor:
        ctx.leaf, ctx.rows, ctx.ids = leaf, rows, ids
        out = leaf.tape.take((len(ids), weight.shape[1]), weight)
        return torch.index_select(weight, 0, ids, out=out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, None]:
        leaf, grad = ctx.leaf, grad.contiguous()
        if leaf.padding_idx is not None:
            grad = grad.masked_fill((ctx.ids == leaf.padding_idx)[:, None], 0)
        leaf.tape.add(Picked(ctx.rows, grad, leaf.weight, ctx.ids))
        return None, None, None, None


class TapedLayerNorm(nn.LayerNorm, TapedLeaf):
    """``nn.LayerNorm`` over the width of packed rows."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """As ``nn.LayerNorm``; rows are recorded while the tape is recording."""
        if not self.tape.recording:
            return super().forward(input)
        x, rows = flat_rows(self, input)
        plain = nn.functional.layer_norm(x, self.normalized_shape, None, None, self.eps)
        out: Tensor = _Scale.apply(plain, self.weight, self.bias, self, rows)
        return out


class _Scale(torch.autograd.Function):
    """``x * weight + bias`` per row."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, leaf: TapedLayerNorm, rows: RowMap
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.leaf, ctx.rows = leaf, rows
        return x * weight if bias is None else torch.addcmul(bias, x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (x,), leaf = ctx.saved_tensors, ctx.leaf
        leaf.tape.add(Summed(ctx.rows, grad * x, leaf.weight))
        if leaf.bias is not None:
            leaf.tape.add(Summed(ctx.rows, grad.contiguous(), leaf.bias))
        return grad * leaf.weight, None, None, None, None
