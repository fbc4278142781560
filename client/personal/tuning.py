"""Ordinary training on a site's own consumers, without clipping and noise: what is made here stays here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from common.model import Batcher, FlatParameters, SequenceModel, Vector, consumer_metrics

Scores = NDArray[np.float64]
Say = Callable[[str, int, int], None]  # what is done, steps done, in all


@dataclass(frozen=True)
class Schedule:
    """``rate`` of Adam, ``epochs`` at most, ``patience``: epochs without gain on the slice before it ends."""

    rate: float = 5e-3
    epochs: int = 14
    patience: int = 4


TUNE, ALONE = Schedule(), Schedule(epochs=30, patience=5)
SMALL, SMALL_BATCH, BATCH = 2_000, 64, 128


def measured(model: SequenceModel, rows: Batcher) -> Scores:
    """Metrics of each consumer under a model: ``float64[N, m]`` in the order of ``metric_names``, in the rows' order."""
    model.eval()
    table = np.zeros((len(rows), 0))
    for batch in rows.pieces(max(model.shape.sizes.values())):
        part = consumer_metrics(model, batch)
        if not table.shape[1]:
            table = np.zeros((len(rows), part.shape[1]))
        table[batch.consumers.numpy()] = part
    return table


def tuned(
    model: SequenceModel,
    data: tuple[Batcher, Batcher],
    score: Callable[[Scores], float],
    schedule: Schedule,
    say: Say,
) -> Vector:
    """Train a model from where it stands on the first rows; the parameters ``float32[d]`` that do best on the others.

    ``score`` of ``measured``: higher is better. Those it began with are among them: training may bring nothing.
    """
    fit, choose = data
    flat = FlatParameters(model)
    best, value, since = flat.numpy(), score(measured(model, choose)), 0
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.rate)
    order = np.random.default_rng(0)
    size = SMALL_BATCH if len(fit) < SMALL else BATCH
    with _quiet_torch():
        for epoch in range(schedule.epochs):
            say("training", epoch, schedule.epochs)
            _one_epoch(model, fit, optimizer, order.permutation(len(fit)), size)
            now = score(measured(model, choose))
            best, value, since = (flat.numpy(), now, 0) if now > value else (best, value, since + 1)
            if since == schedule.patience:
                break
    say("training", schedule.epochs, schedule.epochs)
    flat.load(best)
    return best


def _one_epoch(
    model: SequenceModel, fit: Batcher, optimizer: torch.optim.Optimizer, order: NDArray[np.int64], size: int
) -> None:
    model.train()
    for start in range(0, len(order), size):
        batch = fit.packed(order[start : start + size])
        if batch.steps:
            optimizer.zero_grad(set_to_none=False)
            model.losses(batch).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    model.eval()


@contextmanager
def _quiet_torch() -> Iterator[None]:
    """Dropout of its own, so that the same data give the same model; gradients on."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch: batches of a single site are small, and many threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
