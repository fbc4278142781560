"""``GradientEngine``: one clipped gradient sum over consumers. The seam between the trainer and its engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.model import Batcher, FlatParameters, SequenceModel

Index = NDArray[np.int64]


@dataclass(frozen=True)
class GradientDiagnostics:
    """What one batch looked like. PRIVATE: for the site's own log, never part of a message.

    Shapes: ``norms: float[B]`` gradient norm of each consumer before clipping, ``losses: float[B]``.
    """

    norms: NDArray[np.float32]
    losses: NDArray[np.float32]

    def __repr__(self) -> str:
        return "GradientDiagnostics(private)"


class GradientEngine(Protocol):
    """A model, a site's training consumers, and a way to sum their clipped gradients.

    Guarantee (private engines): adding or removing one consumer of ``rows`` changes the sum by at most
    the clipping norm in L2, whatever the consumer's data, NaN and infinite gradients included; up to rounding, for
    which the mechanism has a slack (``trainer.rounding_slack``).
    """

    @property
    def parameters(self) -> FlatParameters:
        """The model's parameters; changing ``parameters.vector`` in place moves the model."""

    @property
    def consumers(self) -> int:
        """Number of training consumers (private)."""

    @property
    def clip(self) -> float:
        """Clipping norm; infinite for an engine that does not clip."""

    def clipped_sum(self, rows: Index) -> tuple[Tensor, GradientDiagnostics]:
        """Sum of clipped per-consumer gradients of ``rows: int64[B]``: ``float[d]``, double precision where it is private;
        zeros for B = 0."""


class PlainEngine:
    """Ordinary training on packed rows, without clipping. For runs without privacy.

    Guarantee: none. The same rows give the same bits on one thread.
    """

    clip = float("inf")

    def __init__(self, model: SequenceModel, batcher: Batcher, micro_batch: int = 256) -> None:
        self.model, self.batcher, self.micro_batch = model, batcher, micro_batch
        self.parameters = FlatParameters(model)
        self.consumers = len(batcher)

    def clipped_sum(self, rows: Index) -> tuple[Tensor, GradientDiagnostics]:
        """Sum of per-consumer gradients, unclipped; the norms are not known and left empty."""
        self.model.train()
        self.parameters.gradient.zero_()
        losses = []
        for start in range(0, len(rows), self.micro_batch):
            loss = self.model.losses(self.batcher.packed(rows[start : start + self.micro_batch]))
            if loss.requires_grad:
                loss.sum().backward()
            losses.append(loss.detach().numpy())
        gradient = torch.nan_to_num(self.parameters.gradient, nan=0.0, posinf=0.0, neginf=0.0)
        return gradient, GradientDiagnostics(empty(), np.concatenate(losses) if losses else empty())


def empty() -> NDArray[np.float32]:
    """No numbers: ``float32[0]``."""
    return np.zeros(0, dtype=np.float32)
