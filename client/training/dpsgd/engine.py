"""``TapeEngine``: the trainer's private ``GradientEngine``, exact clipping at about the price of training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from client.training.dpsgd.arena import Arena
from client.training.dpsgd.clipping import ClippedBatch, ClippedGradient, gradient_views
from client.training.gradients import GradientDiagnostics, Index
from common.model import Batcher, FlatParameters, SequenceModel

_ARENA = Arena()  # one batch at a time in a process: the engines of several simulated sites share its memory


@lru_cache(maxsize=4)
def _total_of(size: int) -> Tensor:
    """And the sum of a batch."""
    return torch.zeros(size, dtype=torch.float64)


class TapeEngine:
    """The ``GradientEngine`` of private training: exact per-consumer clipping on packed rows.

    ``micro_batch`` consumers are in memory at a time; a consumer is never split, so the sum does not
    depend on it.
    """

    def __init__(self, model: SequenceModel, batcher: Batcher, clip: float, micro_batch: int = 256) -> None:
        self.core = ClippedGradient(model, clip, _ARENA)
        self.model, self.batcher, self.clip, self.micro_batch = model, batcher, clip, micro_batch
        self.parameters = FlatParameters(model)
        self.consumers = len(batcher)
        self._views = gradient_views(model, self.parameters.gradient)
        self._total = _total_of(self.parameters.layout.size)

    def clipped_sum(self, rows: Index) -> tuple[Tensor, GradientDiagnostics]:
        """Sum of clipped per-consumer gradients of ``rows: int64[B]``: ``float64[d]``; zeros for B = 0.

        Micro-batches are summed in double precision: in single, a hundred thousand aligned consumers make the sum
        move by 1.04 C when one of them is removed. The result is a buffer of this process, overwritten by the next call.
        """
        self.model.train()
        with_steps = rows[self.batcher.steps[rows] > 0]
        parts = in_parts(with_steps, self.micro_batch)
        done = [self._add(part, first=number == 0) for number, part in enumerate(parts)]
        if not parts:
            self._total.zero_()
        absent = np.zeros(len(rows) - len(with_steps), dtype=np.float32)
        norms = np.concatenate([*(d.norms.numpy() for d in done), absent])
        losses = np.concatenate([*(d.losses.numpy() for d in done), absent])
        return self._total, GradientDiagnostics(norms, losses)

    def _add(self, part: Index, *, first: bool) -> ClippedBatch:
        done = self.core.add(self.batcher.packed(part), self._views, fresh=True)
        gradient = self.parameters.gradient
        _ = self._total.copy_(gradient) if first else self._total.add_(gradient)
        return done


def in_parts(rows: Index, size: int) -> Sequence[Index]:
    """Cut a batch into micro-batches of at most ``size`` consumers."""
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]
