"""Evaluation of the incoming model on a site's hold-out: sums that may be released, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import ConfigError
from common.model.batch import Batcher
from common.model.metric_sums import metric_names, metric_sensitivity
from common.model.metrics import consumer_metrics
from common.model.network import SequenceModel
from common.privacy.mechanism import HOLDOUT, PrivacyEvent
from common.trust.randomness import RandomStream


@dataclass(frozen=True)
class MetricRelease:
    """Metric sums of one site. ``released`` may leave; ``exact`` is the simulation's oracle and never does.

    Shapes: ``released, exact: float64[m]`` in the order of ``names``.
    """

    names: tuple[str, ...]
    released: NDArray[np.float64]
    events: tuple[PrivacyEvent, ...]
    exact: NDArray[np.float64] = field(repr=False)


def metric_sums(model: SequenceModel, holdout: Batcher) -> NDArray[np.float64]:
    """Exact sums of the bounded per-consumer metrics: ``float64[m]``. PRIVATE."""
    total = np.zeros(len(metric_names(list(model.settings.heads))))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for batch in holdout.pieces(max(model.shape.sizes.values())):
            total += consumer_metrics(model, batch).sum(axis=0)
    finally:
        torch.set_num_threads(threads)
    return total


def evaluate(
    model: SequenceModel,
    holdout: Batcher,
    noise_multiplier: float,
    stream: RandomStream,
    *,
    hardened: bool = False,
) -> MetricRelease:
    """Sum the metrics of the model over the hold-out and noise the sums.

    ``noise_multiplier`` 0 means no privacy: the released sums are exact and carry no event.
    Guarantee: with a private stream, one Gaussian mechanism without sampling on the hold-out, with noise
    ``noise_multiplier * metric_sensitivity`` on every coordinate, the number of consumers included.
    """
    if noise_multiplier < 0:
        raise ConfigError(f"noise multiplier is {noise_multiplier}, it must not be negative")
    heads = list(model.settings.heads)
    exact = metric_sums(model, holdout)
    if noise_multiplier == 0:
        return MetricRelease(metric_names(heads), exact.copy(), (), exact)
    noise = np.empty(len(exact))
    stream.fill_gaussian(noise, scale=noise_multiplier * metric_sensitivity(heads), hardened=hardened)
    event = PrivacyEvent(noise_multiplier, 1.0, 1, sub_scope=HOLDOUT)
    return MetricRelease(metric_names(heads), exact + noise, (event,), exact)
