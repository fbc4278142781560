"""How scores become alarms: thresholds that drift with what is usual, or are learnt from labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.anomalies.windows import Table
from client.scoring.binary import best_threshold, precision_recall
from common.errors import BadInputError

FEWEST_BEHIND = 20  # windows, below which recent days say nothing of their own
_DAY_US = 86_400_000_000


def adaptive_thresholds(scores: Table, times: NDArray[np.int64], rate: float, days: float) -> Table:
    """A threshold for each window: the ``1 - rate`` quantile of the ``days`` days before its day.

    So it drifts with what is usual. Scores above twice the threshold of their own day are left out of later
    quantiles, or an attack would make itself usual. Days with fewer than 20 windows behind them use the
    quantile of all windows.
    """
    overall = float(np.quantile(scores, 1 - rate)) if len(scores) else np.inf
    result, day = np.full(len(scores), overall), times // _DAY_US
    clean = np.zeros(len(scores), dtype=np.bool_)
    for today in np.unique(day):
        recent = scores[clean & (day < today) & (day >= today - days)]
        threshold = float(np.quantile(recent, 1 - rate)) if len(recent) >= FEWEST_BEHIND else overall
        result[day == today] = threshold
        clean |= (day == today) & (scores < 2 * threshold)
    return result


@dataclass(frozen=True)
class CrossValidated:
    """A threshold from labels: the mean over folds, and the quality on consumers that it was not chosen on."""

    threshold: float
    precision: float
    recall: float
    f1: float


def cross_validated(scores: Table, labels: NDArray[np.bool_], folds: int = 5) -> CrossValidated:
    """Choose the threshold of best F1 on all folds but one, measure on that one; consumers are the units.

    Raises: BadInputError where the labels have one class only.
    """
    if labels.all() or not labels.any():
        which = "anomalous" if labels.all() else "normal"
        raise BadInputError(
            f"every consumer is labelled {which}: no threshold can be learnt",
            hint="label consumers of both kinds, or use --threshold adaptive",
        )
    # both classes in every fold, as far as they reach
    fold = np.empty(len(labels), dtype=np.int64)
    for kind in (False, True):
        fold[labels == kind] = np.arange((labels == kind).sum()) % folds
    said, chosen = np.zeros(len(labels), dtype=np.bool_), []
    for number in range(folds):
        rest = fold != number
        if not labels[rest].any() or labels[rest].all():
            continue
        chosen.append(best_threshold(scores[rest], labels[rest].astype(np.float64)))
        said[~rest] = scores[~rest] >= chosen[-1]
    if not chosen:
        chosen = [best_threshold(scores, labels.astype(np.float64))]
        said = scores >= chosen[0]
    precision, recall, f1 = precision_recall(said, labels)
    return CrossValidated(float(np.mean(chosen)), precision, recall, f1)
