"""Anomalous stretches of behaviour: isolation forest and local outlier factor over profiles, and thresholds.

Everything here happens at the site with its own data and the released model: nothing leaves, nothing is charged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from client.scoring.likelihood import surprise
from client.scoring.model import SharedModel
from client.scoring.windows import Habits, Table, Windows, cut_windows, habits
from common.data.events import EventLog
from common.data.sequences import ConsumerSequences
from common.errors import BadInputError

MAX_EVENTS = 400  # of a consumer that are looked at
ENOUGH_PAST = 20  # events before a consumer's own habits mean something
FEWEST_WINDOWS = 20
_REFERENCE_WINDOWS = 4_000
_CAP = 10.0
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Scored:
    """A log cut into windows, with the model's view of every event."""

    sequences: ConsumerSequences
    nats: NDArray[np.float32]
    heads: tuple[str, ...]
    windows: Windows


def profile_log(shared: SharedModel, log: EventLog, common: Habits | None = None) -> Scored:
    """Encode a log, score its events, cut it into windows. ``common`` None: the log's own habits.

    Raises: BadInputError for a model without a head of the next behaviour.
    """
    sequences = shared.sequences(log, max_events=MAX_EVENTS)
    found = surprise(shared, sequences)
    windows = cut_windows(sequences, found, common or habits(sequences))
    return Scored(sequences, found.nats, found.heads, windows)


class Detector:
    """Isolation forest and local outlier factor, fitted on reference windows.

    A score of 0 is a typical window, 1 is as odd as the oddest hundredth of the reference; it is the mean of
    the two methods and ends at 10.
    Source: Liu, Ting, Zhou 2008 (isolation forest); Breunig et al. 2000 (local outlier factor).
    """

    def __init__(self, reference: Table, seed: int = 0) -> None:
        if len(reference) < FEWEST_WINDOWS:
            raise BadInputError(
                f"{len(reference)} stretches of behaviour are too few to tell what is usual, "
                f"{FEWEST_WINDOWS} are needed",
                hint="give a longer log, or a --reference of earlier events",
            )
        rng = np.random.default_rng(seed)
        if len(reference) > _REFERENCE_WINDOWS:
            reference = reference[np.sort(rng.choice(len(reference), _REFERENCE_WINDOWS, replace=False))]
        self._middle = np.median(reference, axis=0)
        low, high = np.percentile(reference, [10, 90], axis=0)
        deviation = reference.std(axis=0)
        self._width = np.where(high > low, high - low, np.where(deviation > 0, deviation, 1.0))
        scaled = self._scaled(reference)
        # as many neighbours as a campaign of copies is likely to have members, or copies vouch for each other
        neighbours = int(np.clip(len(scaled) // 10, 5, 200))
        self._forest = IsolationForest(n_estimators=200, random_state=seed).fit(scaled)
        self._outliers = LocalOutlierFactor(n_neighbors=neighbours, novelty=True).fit(scaled)
        raw = self._raw(scaled)
        self._typical = np.median(raw, axis=1)
        self._odd = np.maximum(np.percentile(raw, 99, axis=1) - self._typical, 1e-9)

    def _scaled(self, table: Table) -> Table:
        scaled: Table = np.clip((table - self._middle) / self._width, -20, 20)
        return scaled

    def _raw(self, scaled: Table) -> Table:
        return np.stack([-self._forest.score_samples(scaled), -self._outliers.score_samples(scaled)])

    def parts(self, table: Table) -> tuple[Table, Table]:
        """Scores of the isolation forest and of the local outlier factor: ``float64[M]`` each."""
        if not len(table):
            return np.zeros(0), np.zeros(0)
        raw = (self._raw(self._scaled(table)) - self._typical[:, None]) / self._odd[:, None]
        return np.clip(raw[0], 0, _CAP), np.clip(raw[1], 0, _CAP)

    def score(self, table: Table) -> Table:
        """Combined score of each window: ``float64[M, K] -> float64[M]``."""
        forest, outliers = self.parts(table)
        mean: Table = (forest + outliers) / 2
        return mean


def per_consumer(windows: Windows, scores: Table, rows: int) -> tuple[Table, NDArray[np.int64]]:
    """The highest score of each consumer and its window: ``float64[N]`` (NaN: none), ``int64[N]`` (-1: none)."""
    best, which = np.full(rows, np.nan), np.full(rows, -1, dtype=np.int64)
    order = np.argsort(scores, kind="stable")
    best[windows.row[order]], which[windows.row[order]] = scores[order], order
    return best, which


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
        threshold = float(np.quantile(recent, 1 - rate)) if len(recent) >= FEWEST_WINDOWS else overall
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
    from client.scoring.predict import best_threshold

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


def precision_recall(said: NDArray[np.bool_], labels: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Precision (NaN if nothing was said), recall (NaN if nothing was there), F1."""
    hits = float((said & labels).sum())
    precision = hits / said.sum() if said.any() else np.nan
    recall = hits / labels.sum() if labels.any() else np.nan
    total = said.sum() + labels.sum()
    return float(precision), float(recall), float(2 * hits / total) if total else np.nan
