"""LSTM and GRU on packed rows with a hand-written backward that writes to a tape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

import client.training.dpsgd.gru_kernel as gru_kernel
import client.training.dpsgd.lstm_kernel as lstm_kernel
from client.training.dpsgd.leaves import TapedLeaf
from client.training.dpsgd.records import Outer
from client.training.dpsgd.rows import RowMap
from client.training.dpsgd.tape import Tape
from common.errors import BadInputError


class TapedRNN(TapedLeaf):
    """What LSTM and GRU share: check of the input, loop over layers, dropout between them."""

    mode: str
    num_layers: int
    dropout: float

    def run(self, x: Any, hx: Any) -> PackedSequence:
        """Run all layers over packed rows from a zero state. Raises: BadInputError naming the layer."""
        if not isinstance(x, PackedSequence):
            raise BadInputError(
                f"layer {self.layer!r} was given a padded tensor",
                hint="train on a PackedSequence; padded batches are for the opacus path",
            )
        if hx is not None or x.sorted_indices is not None or x.unsorted_indices is not None:
            raise BadInputError(
                f"layer {self.layer!r} was given an initial state or an unsorted PackedSequence",
                hint="start from the zero state, with consumers sorted by descending length",
            )
        tape, rows = self.tape, x.data
        if x.batch_sizes.tolist() != tape.sizes:
            raise BadInputError(
                f"layer {self.layer!r} was given another packing than the batch",
                hint="pack with the batch's own batch_sizes",
            )
        owners = tape.rows(rows.shape[0], self.layer)
        for number in range(self.num_layers):
            if number and self.dropout and self.training:
                rows = functional.dropout(rows, self.dropout)
            rows = _FUNCTIONS[self.mode].apply(rows, self.layer_weights(number)[0], self, number, owners)
        return PackedSequence(rows, x.batch_sizes)

    def layer_weights(
        self, number: int
    ) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter | None, nn.Parameter | None]:
        """``weight_ih, weight_hh, bias_ih, bias_hh`` of one layer."""
        names = [f"weight_ih_l{number}", f"weight_hh_l{number}", f"bias_ih_l{number}", f"bias_hh_l{number}"]
        return tuple(getattr(self, name, None) for name in names)  # type: ignore[return-value]


class TapedLSTM(nn.LSTM, TapedRNN):
    """``nn.LSTM`` on packed rows. The state it returns is not part of the graph: use the outputs."""

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 - torch's name
        """As ``nn.LSTM``; while the tape is recording: packed input, zero initial state, no final state."""
        if not self.tape.recording:
            return super().forward(input, hx)
        return self.run(input, hx), None


class TapedGRU(nn.GRU, TapedRNN):
    """``nn.GRU`` on packed rows. The state it returns is not part of the graph: use the outputs."""

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 - torch's name
        """As ``nn.GRU``; while the tape is recording: packed input, zero initial state, no final state."""
        if not self.tape.recording:
            return super().forward(input, hx)
        return self.run(input, hx), None


class _LSTMLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, leaf: TapedLSTM, number: int, rows: RowMap) -> Tensor:  # noqa: ARG004
        ctx.saved = lstm_kernel.forward(x, leaf.layer_weights(number), leaf.tape)
        ctx.leaf, ctx.number, ctx.rows = leaf, number, rows
        outputs: Tensor = ctx.saved.outputs.data
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        weights, tape = ctx.leaf.layer_weights(ctx.number), ctx.leaf.tape
        with tape.arena.scratch():
            gates = lstm_kernel.backward(grad, weights[1], ctx.saved, tape)
        biases = tuple(b for b in weights[2:] if b is not None)
        tape.add(Outer(ctx.rows, gates, weights[:2], ctx.saved.inputs, biases))
        return _input_grad(ctx, gates, weights[0], tape), None, None, None, None


class _GRULayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, leaf: TapedGRU, number: int, rows: RowMap) -> Tensor:  # noqa: ARG004
        x = x.contiguous()
        ctx.saved = gru_kernel.forward(x, leaf.layer_weights(number), leaf.tape)
        ctx.x, ctx.leaf, ctx.number, ctx.rows = x, leaf, number, rows
        outputs: Tensor = ctx.saved.outputs.data
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        weights, tape = ctx.leaf.layer_weights(ctx.number), ctx.leaf.tape
        inner, outer = gru_kernel.backward(grad, weights[1], ctx.saved, tape)
        for grads, weight, inputs, bias in (
            (inner, weights[0], ctx.x, weights[2]),
            (outer, weights[1], ctx.saved.previous, weights[3]),
        ):
            tape.add(Outer(ctx.rows, grads, (weight,), inputs, () if bias is None else (bias,)))
        return _input_grad(ctx, inner, weights[0], tape), None, None, None, None


_FUNCTIONS = {"LSTM": _LSTMLayer, "GRU": _GRULayer}


def _input_grad(ctx: Any, gates: Tensor, weight: Tensor, tape: Tape) -> Tensor | None:
    if not ctx.needs_input_grad[0]:
        return None
    return torch.mm(gates, weight, out=tape.take((gates.shape[0], weight.shape[1]), gates))
