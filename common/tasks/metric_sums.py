"""What the coordinates of a metric sum mean, and how to read it. No torch: the server reads sums with this."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from common.tasks.heads import INTENT, ROW_HEADS, STEP_HEADS

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
        elif head == INTENT:
            names += [f"intent_{kind}_{i}" for kind in ("no", "yes") for i in range(INTENT_BINS)]
        elif head in ROW_HEADS or head in STEP_HEADS:
            names += [head_accuracy(head)]
        else:
            known = ", ".join([*STEP_HEADS, *ROW_HEADS])
            raise ConfigError(f"no head named {head!r}", hint=f"model.heads may name: {known}")
    return tuple(names)


def head_accuracy(head: str) -> str:
    """Name of the metric of a head that a task or an extension brings."""
    return f"{head.replace('-', '_')}_accuracy"


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
    if INTENT in heads:
        result |= intent_metrics(np.array(bins[0]), np.array(bins[1]))
    return result


def intent_metrics(negatives: NDArray[np.float64], positives: NDArray[np.float64]) -> dict[str, float]:
    """Quality of purchase intent from score histograms over [0, 1]: ``float64[bins]`` each.

    ``intent_threshold`` is the lower edge of the bin from which on "will buy" has the best F1; accuracy,
    precision, recall and F1 are those at it. ``intent_calibration`` is the expected calibration error: the mean
    distance of a bin's middle from its share of buyers. NaN where a class is missing.
    """
    no, yes = np.maximum(negatives, 0), np.maximum(positives, 0)
    auc = histogram_auc(no, yes)
    names = ("threshold", "accuracy", "precision", "recall", "f1", "ap", "calibration")
    if math.isnan(auc):
        return {"intent_auc": auc} | {f"intent_{name}": math.nan for name in names}
    above_yes, above_no = np.cumsum(yes[::-1])[::-1], np.cumsum(no[::-1])[::-1]
    precision = above_yes / np.maximum(above_yes + above_no, 1e-12)
    recall = above_yes / yes.sum()
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.flatnonzero(f1 == f1.max())[-1])
    total = yes.sum() + no.sum()
    middle = (np.arange(len(no)) + 0.5) / len(no)
    values = (
        best / len(no),
        (above_yes[best] + no.sum() - above_no[best]) / total,
        precision[best],
        recall[best],
        f1[best],
        (precision * yes).sum() / yes.sum(),
        np.abs(yes - (yes + no) * middle).sum() / total,
    )
    return {"intent_auc": auc} | {f"intent_{n}": float(v) for n, v in zip(names, values, strict=True)}


def histogram_auc(negatives: NDArray[np.float64], positives: NDArray[np.float64]) -> float:
    """Area under the ROC curve from score histograms (noise below zero is cut off): ``float64[bins]`` each."""
    negatives, positives = np.maximum(negatives, 0), np.maximum(positives, 0)
    pairs = negatives.sum() * positives.sum()
    if pairs <= 0:
        return math.nan
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)
