"""``TapeEngine``: the clipped gradient sum of a model and a site's consumers, at about the price of training.

one forward, one backward -> tape -> norm per consumer -> factor per consumer -> one product per weight
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from client.training.dpsgd.norms import squared_norms
from client.training.dpsgd.sums import add_weighted
from client.training.dpsgd.tape import Tape
from client.training.dpsgd.taping import make_taped
from client.training.gradients import GradientDiagnostics, Index
from common.errors import BadInputError, LocalProtocolError
from common.model.batch import Batch, Batcher
from common.model.network import SequenceModel
from common.model.parameters import FlatParameters


def factors_of(squares: Tensor, clip: float) -> Tensor:
    """``min(1, clip / norm)`` per consumer, 0 where the norm is not finite. Shapes: ``[B] -> [B]``.

    Guarantee: ``factor * norm <= clip`` up to the rounding of the norm: factors below 1 are taken a few
    units in the last place low.
    """
    norms = squares.clamp_min(0).sqrt()
    margin = 1 - 8 * torch.finfo(squares.dtype).eps
    factors = (clip * margin / norms.clamp_min(torch.finfo(squares.dtype).tiny)).clamp_max(1.0)
    return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))


@dataclass(frozen=True)
class ClippedBatch:
    """Norms before clipping and losses of one micro-batch, both ``[B]`` in the order of the batch. PRIVATE."""

    norms: Tensor
    losses: Tensor

    def __repr__(self) -> str:
        return "ClippedBatch(private)"


class ClippedGradient:
    """Adds clipped per-consumer gradients of a taped model's batches into given tensors.

    Guarantee: every consumer adds a vector of L2 norm at most ``clip`` (to 1e-5 in float32); a consumer
    whose gradient is not finite adds exactly zero and touches no other consumer's part.
    """

    def __init__(self, model: SequenceModel, clip: float) -> None:
        if not clip > 0:
            raise BadInputError(
                f"clipping norm must be positive, got {clip}", hint="set privacy.clip, for example 1"
            )
        self.model, self.clip = model, clip
        self.tape: Tape = make_taped(model)
        self.names = {id(p): name for name, p in model.named_parameters()}

    def add(self, batch: Batch, gradient: dict[int, Tensor]) -> ClippedBatch:
        """Add the clipped sum over a packed batch to ``gradient[id(parameter)]``.

        Raises: BadInputError if a layer is used in a way that has no per-consumer gradient.
        """
        consumers = int((batch.lengths > 0).sum())
        if batch.batch_sizes is None or consumers != batch.size:
            raise BadInputError(
                f"batch is padded or has {batch.size - consumers} consumers without steps",
                hint="give packed batches of consumers with at least one step; the others' gradient is zero",
            )
        self.tape.start(batch.consumer_of_row, batch.batch_sizes, consumers)
        try:
            losses = self.model.losses(batch)
            if losses.requires_grad:
                losses.sum().backward()
        finally:
            records = self.tape.stop()
        self._refuse_strays()
        if not records:
            return ClippedBatch(torch.zeros(consumers), losses.detach())
        with torch.no_grad():
            squares = squared_norms(records, consumers)
            add_weighted(records, factors_of(squares, self.clip), gradient)
        return ClippedBatch(squares.sqrt_(), losses.detach())

    def _refuse_strays(self) -> None:
        """A gradient that autograd put beside a parameter never passed the tape."""
        strays = [p for p in self.model.parameters() if p.grad is not None]
        for parameter in strays:
            parameter.grad = None
        if strays:
            name = self.names[id(strays[0])]
            raise BadInputError(
                f"parameter {name!r} is used outside its layer, so its gradient cannot be clipped",
                hint="call the layer itself, or add a rule to client/training/dpsgd",
            )


class TapeEngine:
    """The ``GradientEngine`` of private training: exact per-consumer clipping on packed rows.

    ``micro_batch`` consumers are in memory at a time; a consumer is never split, so the sum does not
    depend on it.
    """

    def __init__(self, model: SequenceModel, batcher: Batcher, clip: float, micro_batch: int = 256) -> None:
        self.core = ClippedGradient(model, clip)
        self.model, self.batcher, self.clip, self.micro_batch = model, batcher, clip, micro_batch
        self.parameters = FlatParameters(model)
        self.consumers = len(batcher)
        self._views = gradient_views(model, self.parameters.gradient)

    def clipped_sum(self, rows: Index) -> tuple[Tensor, GradientDiagnostics]:
        """Sum of clipped per-consumer gradients of ``rows: int64[B]``: ``float32[d]``; zeros for B = 0.

        The result is the engine's own buffer: it is overwritten by the next call.
        """
        self.model.train()
        self.parameters.gradient.zero_()
        with_steps = rows[self.batcher.steps[rows] > 0]
        done = [
            self.core.add(self.batcher.packed(part), self._views)
            for part in in_parts(with_steps, self.micro_batch)
        ]
        absent = np.zeros(len(rows) - len(with_steps), dtype=np.float32)
        norms = np.concatenate([*(d.norms.numpy() for d in done), absent])
        losses = np.concatenate([*(d.losses.numpy() for d in done), absent])
        return self.parameters.gradient, GradientDiagnostics(norms, losses)


def gradient_views(model: nn.Module, flat: Tensor) -> dict[int, Tensor]:
    """Cut a flat gradient into one view per parameter, and detach autograd's own.

    Shapes: ``flat: [d]`` in the order of ``model.parameters()``.
    """
    views, offset = {}, 0
    for parameter in model.parameters():
        views[id(parameter)] = flat[offset : offset + parameter.numel()].view(parameter.shape)
        offset += parameter.numel()
        parameter.grad = None
    if offset != flat.numel():
        raise LocalProtocolError(f"flat gradient has {flat.numel()} numbers, the model has {offset}")
    return views


def in_parts(rows: Index, size: int) -> Sequence[Index]:
    """Cut a batch into micro-batches of at most ``size`` consumers."""
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]
