"""Small models, ragged rows and a brute-force loop for the tests of the clipping engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from client.training.dpsgd.clipping import ClippedGradient, gradient_views
from common.model.batch import Batcher
from common.model.network import ModelShape, SequenceModel, build_model
from common.run import ModelSettings
from tests.intent_samples import asked_rows

SIZES = {"item": 15, "event": 4, "category": 6}
HEADS = {"next-item": 1.0, "next-event": 0.3, "next-category": 0.2, "purchase-intent": 0.5}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


@dataclass(frozen=True)
class Rows:
    """Ragged rows of integer features."""

    offsets: np.ndarray
    integers: np.ndarray

    @property
    def integer_names(self) -> tuple[str, ...]:
        return tuple(SIZES)


def batcher_of(
    events: list[int], seed: int, items: int = SIZES["item"], targets: Literal["every", "last"] = "every"
) -> Batcher:
    """Random rows with the given numbers of events, unknown items (0) and repeats included."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(events)]).astype(np.int64)
    features = [rng.integers(0, size, offsets[-1]) for size in {**SIZES, "item": items}.values()]
    n = len(events)
    values = {"purchase-intent": rng.integers(0, 2, n).astype(float)}
    values["purchase-intent"][:: max(2, n)] = np.nan
    lengths = np.maximum(np.array(events, dtype=np.int64) - 1, 0)
    rows = Rows(offsets, np.stack(features, axis=1).astype(np.int32))
    return Batcher(rows, tuple(HEADS), asked_rows(lengths, values, SIZES["event"] - 1), targets)


def aligned_batcher(consumers: int, *, events: int = 6, varied: bool = False) -> Batcher:
    """The same row for everybody, or one that differs in its last event."""
    rng = np.random.default_rng(3)
    rows = np.tile(rng.integers(1, 4, (events, 3)), (consumers, 1))
    if varied:
        rows[events - 1 :: events] = rng.integers(1, 4, (consumers, 3))
    offsets = np.arange(consumers + 1, dtype=np.int64) * events
    values = {"purchase-intent": np.ones(consumers)}
    asked = asked_rows(np.full(consumers, events - 1), values, SIZES["event"] - 1)
    return Batcher(Rows(offsets, rows.astype(np.int32)), tuple(HEADS), asked, "every")


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def model_of(dtype: torch.dtype, seed: int, items: int = SIZES["item"], **choices: Any) -> SequenceModel:
    wanted = {"dim": 6, "hidden": 6, "heads": HEADS, **choices}
    model = build_model(ModelSettings(**wanted), ModelShape({**SIZES, "item": items}), seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return model.train()


def brute_force(model: Any, batcher: Batcher, rows: np.ndarray, clip: float) -> Tensor:
    """Clip each consumer's whole gradient, one after another, and add up."""
    parameters = list(model.parameters())
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
    for row in rows:
        model.zero_grad()
        loss = model.losses(batcher.packed(np.array([row]))).sum()
        if not loss.requires_grad:
            continue
        loss.backward()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        gradient = torch.cat([g.flatten() for g in parts])
        total += gradient * min(1.0, clip / max(float(gradient.norm()), 1e-300))
    return total


def taped_sum(core: ClippedGradient, batcher: Batcher, parts: list[np.ndarray]) -> Tensor:
    """The engine's clipped sum over micro-batches ``parts``."""
    dtype = next(core.model.parameters()).dtype
    flat = torch.zeros(sum(p.numel() for p in core.model.parameters()), dtype=dtype)
    views = gradient_views(core.model, flat)
    for part in parts:
        core.add(batcher.packed(part[batcher.steps[part] > 0]), views)
    return flat


def relative_error(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / want.norm().clamp_min(1e-12))
