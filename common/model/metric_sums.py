"""What the coordinates of a metric sum mean, and how to read it. No torch: the server reads sums with this."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from common.model.targets import ROW_HEADS, STEP_HEADS

LOSS_BOUND = 10.0  # nats; a consumer's larger loss counts as this
TOP_K = 20
INTENT_BINS = 20
COUNT = "consumers"

_STEP_METRICS: Mapping[str, tuple[str, ...]] = {
    "next-item": (f"recall@{TOP_K}", f"mrr@{TOP_K}"),
    "next-event": ("event_accuracy",),
    "next-category": ("category_accuracy",),
}


def metric_names(heads: Sequence[str]) -> tuple[str, ...]:
    """Names of the coordinates of the metric vector for a model with these heads, count and loss first.

    Example:
        >>> metric_names(["next-item", "next-event"])
        ('consumers', 'loss', 'recall@20', 'mrr@20', 'event_accuracy')
    """
    names = [COUNT, "loss"]
    for head in heads:
        if head in _STEP_METRICS:
            names += _STEP_METRICS[head]
        elif head == "purchase-intent":
            names += [f"intent_{kind}_{i}" for kind in ("no", "yes") for i in range(INTENT_BINS)]
        elif head == "sales":
            names += ["squared_error"]
        else:
            known = ", ".join([*STEP_HEADS, *ROW_HEADS])
            raise ConfigError(f"no head named {head!r}", hint=f"model.heads may name: {known}")
    return tuple(names)


def metric_sensitivity(heads: Sequence[str]) -> float:
    """L2 bound of one consumer's metric vector, the sensitivity of the sum to adding or removing one.

    Guarantee: every coordinate lies in [0, 1], and of the intent histogram exactly one is 1, so the
    squared norm is at most the number of coordinates with the histogram counted as one.
    """
    names = metric_names(heads)
    histogram = sum(name.startswith("intent_") for name in names)
    return math.sqrt(len(names) - histogram + (histogram > 0))


def summarise(heads: Sequence[str], sums: NDArray[np.float64]) -> dict[str, float]:
    """Turn (noised) metric sums over consumers into readable metrics: ``float64[m]`` -> name -> value.

    The loss is in nats again; an intent histogram becomes its area under the ROC curve. NaN where the
    noised number of consumers is below 1.
    """
    named = dict(zip(metric_names(heads), map(float, sums), strict=True))
    count = named.pop(COUNT)
    bins = [[named.pop(f"intent_{kind}_{i}", 0.0) for i in range(INTENT_BINS)] for kind in ("no", "yes")]
    if count < 1:
        return dict.fromkeys(named, math.nan)
    result = {name: value / count for name, value in named.items()}
    result["loss"] *= LOSS_BOUND
    if "purchase-intent" in heads:
        result["intent_auc"] = histogram_auc(np.array(bins[0]), np.array(bins[1]))
    return result


def histogram_auc(negatives: NDArray[np.float64], positives: NDArray[np.float64]) -> float:
    """Area under the ROC curve from score histograms (noise below zero is cut off): ``float64[bins]`` each."""
    negatives, positives = np.maximum(negatives, 0), np.maximum(positives, 0)
    pairs = negatives.sum() * positives.sum()
    if pairs <= 0:
        return math.nan
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)
