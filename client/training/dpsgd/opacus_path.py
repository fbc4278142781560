"""Per-consumer gradients with stock Opacus hooks on padded rows: slow, plain, and the oracle of the fast engine."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.layers import DPGRU, DPLSTM
from torch import Tensor

from client.training.dpsgd.clipping import clip_factors
from client.training.gradients import GradientDiagnostics, Index, empty
from common.errors import ConfigError
from common.model import Batcher, FlatParameters, ItemHead, SequenceModel

_ENCODERS = {"lstm": DPLSTM, "gru": DPGRU}
_LARGEST_GRAD_SAMPLE = 1 << 26  # numbers; one micro-batch holds [consumers, parameters] of them


class OpacusEngine:
    """Clipped gradient sums from ``opacus.GradSampleModule``.

    A batch is split into physical micro-batches; clipping is per consumer, so the split changes nothing.
    Guarantee: see ``GradientEngine``.
    """

    def __init__(self, model: SequenceModel, batcher: Batcher, clip: float, micro_batch: int = 256) -> None:
        self.parameters = FlatParameters(model)
        self.consumers, self.clip, self.batcher = len(batcher), clip, batcher
        self.micro_batch = max(1, min(micro_batch, _LARGEST_GRAD_SAMPLE // self.parameters.layout.size))
        twin = _with_opacus_encoder(model)
        self._share_storage(twin)
        self._named = dict(twin.named_parameters())
        self._hooked = GradSampleModule(twin, batch_first=True, loss_reduction="sum")
        self._twin = twin

    def _share_storage(self, twin: SequenceModel) -> None:
        """Let the twin's tensors be views of the same flat vector, so that one step moves both models."""
        views = {
            name: self.parameters.vector[offset : offset + math.prod(shape)].view(shape)
            for name, (offset, shape) in self.parameters.layout.entries.items()
        }
        for name, parameter in twin.named_parameters():
            parameter.data = views[name]

    def clipped_sum(self, rows: Index) -> tuple[Tensor, GradientDiagnostics]:
        """Sum of clipped per-consumer gradients: ``float64[d]``."""
        total = torch.zeros(self.parameters.layout.size, dtype=torch.float64)
        norms, losses = [empty()], [empty()]
        for start in range(0, len(rows), self.micro_batch):
            loss, norm = self._add(rows[start : start + self.micro_batch], total)
            losses.append(loss)
            norms.append(norm)
        return total, GradientDiagnostics(np.concatenate(norms), np.concatenate(losses))

    def _add(self, rows: Index, total: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Add one micro-batch to ``total``; return losses and norms, ``float32[b]`` each."""
        self._hooked.train()
        self._hooked.zero_grad()
        losses = self._twin.losses(self.batcher.padded(rows))
        if not losses.requires_grad:
            return losses.numpy(), np.zeros(len(rows), dtype=np.float32)
        with warnings.catch_warnings():
            # embeddings have integer inputs, so torch notes that these hooks see no input gradient
            warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
            losses.sum().backward()
        gradients = {name: getattr(parameter, "grad_sample", None) for name, parameter in self._named.items()}
        samples = {name: sample for name, sample in gradients.items() if sample is not None}
        squared = torch.stack([g.flatten(1).square().sum(1) for g in samples.values()]).sum(0)  # [b]
        factors = clip_factors(squared, self.clip)
        for name, sample in samples.items():
            offset, shape = self.parameters.layout.entries[name]
            flat = torch.where(factors[:, None] > 0, sample.flatten(1), 0.0)  # a dropped consumer may hold NaN
            total[offset : offset + math.prod(shape)] += factors @ flat
        return losses.detach().numpy(), squared.sqrt().numpy()


def _with_opacus_encoder(model: SequenceModel) -> SequenceModel:
    settings = model.settings
    if settings.encoder not in _ENCODERS:
        raise ConfigError(
            f"the opacus path has no twin of encoder {settings.encoder!r}", hint="use the fast trainer"
        )
    dropout = settings.dropout if settings.layers > 1 else 0.0
    with torch.random.fork_rng(devices=[]):
        twin = copy.deepcopy(model)
        twin.encoder = _ENCODERS[settings.encoder](
            settings.dim, settings.hidden, settings.layers, batch_first=True, dropout=dropout
        )
    for module in twin.modules():
        if isinstance(module, ItemHead):
            module.whole_logits = True  # the hooks are on layers: a product beside one would go unclipped
    for parameter in twin.parameters():
        parameter.grad = None
    return twin
