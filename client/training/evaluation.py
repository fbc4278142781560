"""Evaluation of the incoming model on a site's hold-out: sums that may be released, and what they cost."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from client.training.gaussian import GaussianMechanism, Noise
from common.contribution import METRICS, Release
from common.errors import ConfigError
from common.model import Batcher, SequenceModel, consumer_metrics
from common.privacy import HOLDOUT_SIDE
from common.tasks import metric_names, metric_sensitivity
from common.trust.randomness import RandomStream

_last_sums: WeakKeyDictionary[Batcher, tuple[bytes, NDArray[np.float64]]] = WeakKeyDictionary()


def metric_sums(model: SequenceModel, holdout: Batcher) -> NDArray[np.float64]:
    """Exact sums of the bounded per-consumer metrics: ``float64[m]``. PRIVATE.

    A hold-out that is asked about the same model again answers from memory: in a simulation the closing evaluation
    and the oracle's figures are sums of one model.
    """
    known = _last_sums.get(holdout)
    asked = _digest(model)
    if known is None or known[0] != asked:
        known = _last_sums[holdout] = asked, _summed(model, holdout)
    return known[1].copy()


def _summed(model: SequenceModel, holdout: Batcher) -> NDArray[np.float64]:
    total = np.zeros(len(metric_names(list(model.settings.heads))))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for batch in holdout.pieces(max(model.shape.sizes.values())):
            total += consumer_metrics(model, batch).sum(axis=0)
    finally:
        torch.set_num_threads(threads)
    return total


def _digest(model: SequenceModel) -> bytes:
    """SHA-256 over settings, shape and every parameter."""
    digest = hashlib.sha256(repr((model.settings, model.shape)).encode())
    for name, values in model.state_dict().items():
        digest.update(name.encode() + b"\0" + values.contiguous().numpy().tobytes())
    return digest.digest()


@dataclass(frozen=True)
class MetricNoise:
    """``multiplier`` 0 means no privacy; ``side``: the part of the consumers that is read, and pays."""

    multiplier: float
    side: str = HOLDOUT_SIDE
    hardened: bool = False


def evaluate(model: SequenceModel, holdout: Batcher, asked: MetricNoise, stream: RandomStream) -> Release:
    """Sum the metrics of the model over held-out consumers and noise the sums: ``float64[m]``.

    Without privacy the sums are exact and carry no event.
    Guarantee: with a private stream, one Gaussian mechanism without sampling on these consumers, with noise
    ``multiplier * metric_sensitivity`` on every coordinate, the number of consumers included.
    """
    if asked.multiplier < 0:
        raise ConfigError(f"noise multiplier is {asked.multiplier}, it must not be negative")
    heads = list(model.settings.heads)
    noise = Noise(asked.multiplier, metric_sensitivity(heads), (asked.side,), asked.hardened)
    mechanism, exact = GaussianMechanism(noise, stream), metric_sums(model, holdout)
    return Release(METRICS, exact + mechanism.noise(len(exact)), mechanism.events())
