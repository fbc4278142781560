"""``ClippedGradient``: one forward, one backward, and the clipped sum over consumers of a packed batch.

one forward, one backward -> tape -> norm per consumer -> factor per consumer -> one product per weight
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from client.training.dpsgd.arena import Arena
from client.training.dpsgd.norms import squared_norms
from client.training.dpsgd.processor import without_denormals
from client.training.dpsgd.sums import add_weighted
from client.training.dpsgd.tape import Tape
from client.training.dpsgd.taping import make_taped
from common.errors import BadInputError, LocalProtocolError
from common.model import Batch


def clip_factors(squares: Tensor, clip: float) -> Tensor:
    """``min(1, clip / norm)`` per consumer, 0 where the norm is not finite. Shapes: ``[B] -> [B]``.

    Guarantee: ``factor * norm <= clip`` up to the rounding of the norm: factors below 1 are taken a few
    units in the last place low.
    """
    norms = squares.clamp_min(0).sqrt()
    margin = 1 - 8 * torch.finfo(squares.dtype).eps
    factors = (clip * margin / norms.clamp_min(torch.finfo(squares.dtype).tiny)).clamp_max(1.0)
    return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))


class ConsumerLosses(Protocol):
    """A model that gives each consumer of a batch its loss."""

    def losses(self, batch: Batch) -> Tensor:
        """Loss of each consumer: ``[B]``; consumer b's depends on b's rows only."""


@dataclass(frozen=True)
class ClippedBatch:
    """Norms before clipping and losses of one micro-batch, both ``[B]`` in the order of the batch. PRIVATE."""

    norms: Tensor
    losses: Tensor

    def __repr__(self) -> str:
        return "ClippedBatch(private)"


class ClippedGradient:
    """Adds clipped per-consumer gradients of a taped model's batches to given tensors.

    ``begin`` -> ``losses.sum().backward()`` -> ``finish``; ``add`` does all three. Objects that share an ``arena``
    must not have batches under way at the same time.
    Guarantee: every consumer adds a vector of L2 norm at most ``clip`` (to 1e-5 in float32); a consumer
    whose gradient is not finite adds exactly zero and touches no other consumer's part.
    """

    def __init__(self, model: nn.Module, clip: float, arena: Arena | None = None) -> None:
        if not clip > 0:
            raise BadInputError(
                f"clipping norm must be positive, got {clip}", hint="set privacy.clip, for example 1"
            )
        self.model, self.clip = model, clip
        self.tape: Tape = make_taped(model, arena)
        self.names = {id(p): name for name, p in model.named_parameters()}
        self._losses: Tensor | None = None

    def add(self, batch: Batch, gradient: dict[int, Tensor], *, fresh: bool = False) -> ClippedBatch:
        """Add the clipped sum over a packed batch to ``gradient[id(parameter)]``, or overwrite it (``fresh``).

        Raises: BadInputError if a layer is used in a way that has no per-consumer gradient.
        """
        with without_denormals():
            losses = self.begin(batch)
            try:
                if losses.requires_grad:
                    losses.sum().backward()
            except BaseException:
                self.abandon()
                raise
            return self.finish(gradient, fresh=fresh)

    def begin(self, batch: Batch) -> Tensor:
        """Start the tape and return the loss of each consumer: ``[B]``. The caller runs backward on its sum.

        Raises: BadInputError as ``add``; LocalProtocolError if the batch before was not finished.
        """
        consumers = int((batch.lengths > 0).sum())
        if batch.batch_sizes is None or consumers != batch.size:
            raise BadInputError(
                f"batch is padded or has {batch.size - consumers} consumers without steps",
                hint="give packed batches of consumers with at least one step; the others' gradient is zero",
            )
        if self._losses is not None:
            raise LocalProtocolError(
                "the batch before was begun and never finished", hint="call finish or abandon"
            )
        self.tape.start(batch.consumer_of_row, batch.batch_sizes, consumers)
        try:
            self._losses = cast(ConsumerLosses, self.model).losses(batch)
        except BaseException:
            self.tape.stop()
            raise
        return self._losses

    def finish(self, gradient: dict[int, Tensor], *, fresh: bool = False) -> ClippedBatch:
        """Clip what the backward recorded and add it to ``gradient[id(parameter)]``, or overwrite it.

        Raises: LocalProtocolError if there was no backward since the last ``finish``; BadInputError if a
        parameter got a gradient outside its layer.
        """
        losses, self._losses = self._losses, None
        records = self.tape.stop()
        self._refuse_strays()
        if losses is None or (losses.requires_grad and not records):
            raise LocalProtocolError(
                "there is no clipped gradient: no backward since the last step",
                hint="call losses(batch).sum().backward() before every step",
            )
        if not records:
            for view in gradient.values() if fresh else ():
                view.zero_()
            return ClippedBatch(torch.zeros_like(losses), losses.detach())
        with torch.no_grad():
            squares = squared_norms(records, len(losses))
            add_weighted(records, clip_factors(squares, self.clip), gradient, fresh=fresh)
        return ClippedBatch(squares.sqrt_(), losses.detach())

    def abandon(self) -> None:
        """Forget a batch that was begun, for example after an error in its backward."""
        self.tape.stop()
        self._losses = None
        for parameter in self.model.parameters():
            parameter.grad = None

    def _refuse_strays(self) -> None:
        """A gradient that autograd put beside a parameter never passed the tape."""
        strays = [p for p in self.model.parameters() if p.grad is not None]
        for parameter in strays:
            parameter.grad = None
        if strays:
            raise BadInputError(
                f"parameter {self.names[id(strays[0])]!r} is used outside its layer, so it cannot be clipped",
                hint="call the layer itself, or add a rule to client/training/dpsgd",
            )


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
