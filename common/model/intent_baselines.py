"""What a model of purchase intent must beat: the share of buyers, buying again, gradient-boosted trees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data import EVENT_TYPES, ConsumerSequences
from common.model.targets import INTENT, RowTargets
from common.tasks import INTENT_BINS, intent_metrics

Table = NDArray[np.float64]
_RECENT = 3  # events whose type, price and gap are columns of their own
_FEWEST = 10
_BUY = EVENT_TYPES.index("purchase") + 1
_WINDOW_US = 30 * 60 * 1_000_000


def intent_table(sequences: ConsumerSequences, targets: RowTargets) -> Table:
    """Hand-made features of the readable part of each row: ``float64[N, K]``, NaN where a row has none.

    Counts of event types in all and in the last half hour, recency, pauses, prices, distinct and repeated
    items, and the last events themselves: what a data scientist would try first. Then everything that the
    model's own head is given of the past.
    """
    item, event = sequences.column("item"), sequences.column("event")
    numeric = sequences.numeric
    rows = np.full((len(sequences), 2 * (len(EVENT_TYPES) + 1) + 8 + _RECENT * 4), np.nan)
    for row, length in enumerate(targets.lengths):
        if length <= 0:
            continue
        begin = int(sequences.offsets[row])
        part = slice(begin, begin + int(length))
        stamps, kinds, items = sequences.timestamps[part], event[part], item[part]
        late = stamps >= stamps[-1] - _WINDOW_US
        known = items[items > 0]
        bought = stamps[kinds == _BUY]
        rows[row, : 2 * (len(EVENT_TYPES) + 1)] = np.concatenate(
            [np.bincount(k, minlength=len(EVENT_TYPES) + 1) for k in (kinds, kinds[late])]
        )
        summary = (
            length,
            (stamps[-1] - stamps[0]) / 86_400e6,
            (stamps[-1] - bought[-1]) / 86_400e6 if len(bought) else np.nan,
            len(np.unique(known)),
            len(known) - len(np.unique(known)),
            float(np.mean(items[-1] == items)),
            float(numeric[part, 0].mean()),
            float(numeric[part, 2].mean()),
        )
        rows[row, 2 * (len(EVENT_TYPES) + 1) : 2 * (len(EVENT_TYPES) + 1) + 8] = summary
        recent = np.full((_RECENT, 4), np.nan)
        count = min(_RECENT, int(length))
        recent[:count, 0] = kinds[-count:][::-1]
        recent[:count, 1:] = numeric[part][-count:][::-1]
        rows[row, -_RECENT * 4 :] = recent.ravel()
    return rows if targets.asks is None else np.concatenate([rows, targets.asks.history[:, -1]], axis=1)


def every_ask(sequences: ConsumerSequences, targets: RowTargets) -> tuple[Table, Table]:
    """What trees learn from: ``intent_table`` of every moment with an answer, and the answers; ``float64[M, K], float64[M]``.

    Earlier moments of a row teach as the model's head is taught by them; none reads what it must foretell.
    """
    parts, labels = [], []
    for at in targets.moments():
        known = np.isfinite(at.values[INTENT])
        if known.any():
            rows = RowTargets(np.where(known, at.lengths, 0), at.values, at.asks)
            parts.append(intent_table(sequences, rows)[known])
            labels.append(at.values[INTENT][known])
    if not parts:
        return intent_table(sequences, targets)[:0], np.zeros(0)
    return np.concatenate(parts), np.concatenate(labels)


def boosted_trees(table: Table, labels: NDArray[np.float64], asked: Table) -> NDArray[np.float64]:
    """Probability of a purchase by gradient-boosted trees fitted on ``table``: ``float64[len(asked)]``.

    The share of buyers where the labels have one class only, or there is too little to learn from.
    Source: Ke et al. 2017 (LightGBM); here scikit-learn's histogram variant.
    """
    trees, useful = fitted_trees(table, labels)
    if trees is None:
        return np.full(len(asked), float(labels.mean()) if len(labels) else 0.5)
    scores: NDArray[np.float64] = trees.predict_proba(asked[:, useful])[:, 1]
    return scores


def fitted_trees(table: Table, labels: NDArray[np.float64]) -> tuple[Any, list[int]]:
    """scikit-learn's gradient-boosted trees on ``table``, and the columns that they read; None where nothing can be learnt."""
    useful = [k for k in range(table.shape[1]) if len(np.unique(table[np.isfinite(table[:, k]), k])) > 1]
    if len(np.unique(labels)) < 2 or not useful or len(table) < _FEWEST:
        return None, useful
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.08, max_leaf_nodes=15, l2_regularization=1.0, random_state=0
    )
    return trees.fit(table[:, useful], labels), useful


def histogram_metrics(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> dict[str, float]:
    """The released metrics of intent, from scores in [0, 1] of consumers with a known answer."""
    place = np.clip((scores * INTENT_BINS).astype(np.int64), 0, INTENT_BINS - 1)
    counts = [np.bincount(place[labels == k], minlength=INTENT_BINS).astype(np.float64) for k in (0, 1)]
    return intent_metrics(counts[0], counts[1])


def evaluate_intent_baselines(
    train: tuple[ConsumerSequences, RowTargets], holdout: tuple[ConsumerSequences, RowTargets]
) -> dict[str, dict[str, float]]:
    """Each baseline's metrics on the hold-out, fitted on the training consumers of all sites together.

    Trees learn from the judged moments, or from every moment at which a consumer is asked, as the model does; all are judged
    at the last one. Earlier moments help where what is usual stays as it is, and mislead where it does not.
    """
    labels, truth = train[1].values[INTENT], holdout[1].values[INTENT]
    fit, test = np.isfinite(labels), np.isfinite(truth)
    if not fit.any() or not test.any():
        return {}
    share, asked, table = float(labels[fit].mean()), intent_table(*holdout), intent_table(*train)
    bought = asked[test, _BUY] / np.maximum(asked[test, 2 * (len(EVENT_TYPES) + 1)], 1)
    return {
        "majority": histogram_metrics(np.full(int(test.sum()), share), truth[test]),
        "buys-again": histogram_metrics(bought, truth[test]),
        "boosted-trees": histogram_metrics(boosted_trees(table[fit], labels[fit], asked[test]), truth[test]),
        "boosted-trees, every ask": histogram_metrics(boosted_trees(*every_ask(*train), asked[test]), truth[test]),
    }
