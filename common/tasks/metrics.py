"""What is known of every metric, once: its words, its unit, which way is better, what it cannot pass."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric for people. ``short`` is a column's head; ``ceiling``: no value is above it, infinite if some can be.

    ``compared``: models are compared by it, in bars.
    """

    name: str
    words: str
    short: str
    unit: str = ""
    higher_is_better: bool = True
    ceiling: float = 1.0
    compared: bool = False

    def better(self, one: float, other: float) -> bool:
        """Whether the first value is better than the second."""
        return one > other if self.higher_is_better else one < other


def _error(name: str, words: str, short: str, unit: str = "", *, compared: bool = False) -> Metric:
    return Metric(name, words, short, unit, higher_is_better=False, ceiling=math.inf, compared=compared)


METRICS = (
    Metric("recall@20", "Recall@20", "R@20", compared=True),
    Metric("mrr@20", "MRR@20", "MRR@20"),
    Metric("intent_auc", "Purchase intent, AUC", "AUC", compared=True),
    Metric("intent_ap", "Purchase intent, AP", "AP"),
    Metric("intent_f1", "Purchase intent, F1", "F1"),
    Metric("intent_precision", "Purchase intent, precision", "prec."),
    Metric("intent_recall", "Purchase intent, recall", "recall"),
    Metric("intent_accuracy", "Purchase intent, accuracy", "acc."),
    Metric("event_accuracy", "Next event, accuracy", "event"),
    Metric("category_accuracy", "Next category, accuracy", "categ."),
    _error("wape", "Sales, WAPE of quantity", "WAPE", compared=True),
    _error("revenue_wape", "Sales, WAPE of revenue", "rev.WAPE"),
    _error("mase", "Sales, MASE of quantity", "MASE"),
    _error("rmse", "Sales, RMSE of quantity", "RMSE", "pieces"),
    _error("loss", "Loss", "loss", "nats"),
)
"""In the order in which they are shown."""
IN_ROUNDS = (
    "wape", "loss", "recall@20", "intent_auc", "mrr@20", "mase", "rmse", "intent_ap", "event_accuracy", "category_accuracy",
)  # fmt: skip
"""The first of them that a run measures are the columns of its table of rounds."""

_BY_NAME = {metric.name: metric for metric in METRICS}


def metric_named(name: str) -> Metric:
    """What is known of a metric. One that is not in the table, as a new task may bring, is read from its name."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    words = name.replace("_", " ").replace("-", " ")
    if name.endswith(("error", "loss", "wape", "mase", "rmse")):
        return _error(name, words, words[:8])
    return Metric(name, words[:1].upper() + words[1:], words[:8])


def in_order(names: set[str]) -> list[str]:
    """Names in the order in which they are shown, those of new tasks last."""
    known = [metric.name for metric in METRICS if metric.name in names]
    return known + sorted(name for name in names - set(known) if name.endswith("_accuracy"))
