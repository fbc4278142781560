"""Quality of yes-or-no answers from scores, and the score from which on "yes" does best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_threshold(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """The score from which on "yes" has the best F1, halfway to the next lower score."""
    order = np.argsort(-scores, kind="stable")
    ranked, truth = scores[order], labels[order]
    hits = np.cumsum(truth)
    f1 = 2 * hits / (np.arange(1, len(truth) + 1) + truth.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # equal scores cannot be told apart
    best = int(np.argmax(f1))
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best] - 1e-6
    return float((ranked[best] + below) / 2)


def binary_metrics(scores: NDArray[np.float64], labels: NDArray[np.float64], threshold: float) -> dict[str, float]:
    """Accuracy, precision, recall, F1 at the threshold; AUC, average precision, Brier score and calibration.

    AUC and average precision are NaN where the labels have one class only; precision is NaN where nothing is
    above the threshold. ``calibration`` is the expected calibration error over ten equal bins of the score.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    yes, said = labels > 0.5, scores >= threshold
    if not len(labels):
        return {}
    hits = float((yes & said).sum())
    precision = hits / said.sum() if said.any() else float("nan")
    recall = hits / yes.sum() if yes.any() else float("nan")
    both = 0 < yes.sum() < len(yes)
    place = np.clip((scores * 10).astype(np.int64), 0, 9)
    gap = np.abs(np.bincount(place, weights=scores - yes, minlength=10)).sum() / len(yes)
    return {
        "accuracy": float((yes == said).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": 2 * hits / (said.sum() + yes.sum()) if said.any() or yes.any() else float("nan"),
        "auc": float(roc_auc_score(yes, scores)) if both else float("nan"),
        "average_precision": float(average_precision_score(yes, scores)) if both else float("nan"),
        "brier": float(np.mean((scores - yes) ** 2)),
        "calibration": float(gap),
    }


def precision_recall(said: NDArray[np.bool_], labels: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Precision (NaN if nothing was said), recall (NaN if nothing was there), F1."""
    hits = float((said & labels).sum())
    precision = hits / said.sum() if said.any() else np.nan
    recall = hits / labels.sum() if labels.any() else np.nan
    total = said.sum() + labels.sum()
    return float(precision), float(recall), float(2 * hits / total) if total else np.nan
