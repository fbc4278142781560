"""Anomalous stretches of behaviour: isolation forest and local outlier factor over profiles.

Everything here happens at the site with its own data and the released model: nothing leaves, nothing is charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from client.anomalies.likelihood import surprise
from client.anomalies.windows import EventWindows, Habits, Table, cut_windows, habits
from client.scoring.model import SharedModel
from common.data import ConsumerSequences, EventLog
from common.errors import BadInputError

MAX_EVENTS = 400  # of a consumer that are looked at
ENOUGH_PAST = 20  # events before a consumer's own habits mean something
FEWEST_WINDOWS = 20
_REFERENCE_WINDOWS = 4_000
_CAP = 10.0
_NEAR = 0.1  # in widths: stretches nearer than this are one, or copies would make each other infinitely dense
_FEW_ROWS = 64


@dataclass(frozen=True)
class Scored:
    """A log cut into windows, with the model's view of every event."""

    sequences: ConsumerSequences
    nats: NDArray[np.float32]
    heads: tuple[str, ...]
    windows: EventWindows


def profile_log(shared: SharedModel, log: EventLog, common: Habits | None = None) -> Scored:
    """Encode a log, score its events, cut it into windows. ``common`` None: the log's own habits.

    Raises: BadInputError for a model without a head of the next behaviour.
    """
    sequences = shared.sequences(log, max_events=MAX_EVENTS)
    surprises = surprise(shared, sequences)
    windows = cut_windows(sequences, surprises, common or habits(sequences))
    return Scored(sequences, surprises.nats, surprises.heads, windows)


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
        self._forest = IsolationForest(n_estimators=200, random_state=seed).fit(scaled)
        self._few = _Flat(self._forest)
        # the density of near copies is without bound, and everybody else's outlier factor with it: each is counted once
        different = _apart(scaled, _NEAR)
        # as many neighbours as a campaign of copies is likely to have members, or copies vouch for each other
        neighbours = int(np.clip(len(different) // 10, 5, 200))
        neighbours = min(neighbours, max(1, len(different) - 1))
        self._outliers = LocalOutlierFactor(n_neighbors=neighbours, novelty=True).fit(different)
        raw = self._raw(different)
        self._typical = np.median(raw, axis=1)
        self._odd = np.maximum(np.percentile(raw, 99, axis=1) - self._typical, 1e-9)

    def _scaled(self, table: Table) -> Table:
        scaled: Table = np.clip((table - self._middle) / self._width, -20, 20)
        return scaled

    def _raw(self, scaled: Table) -> Table:
        if len(scaled) > _FEW_ROWS:
            return np.stack([-self._forest.score_samples(scaled), -self._outliers.score_samples(scaled)])
        factor = np.array([_outlier_factor(self._outliers, row) for row in scaled])
        return np.stack([-self._few.score_samples(scaled), factor])

    def deviation(self, table: Table) -> Table:
        """How far each number of each window lies from the middle of the reference, in widths of what is usual: ``[M, K]``."""
        return self._scaled(table)

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


class _Flat:
    """The trees of an isolation forest in one table, for a few rows at once: what scikit-learn says, without its overhead."""

    def __init__(self, forest: IsolationForest) -> None:
        trees = [tree.tree_ for tree in forest.estimators_]
        first = np.cumsum([0, *(tree.node_count for tree in trees)])
        self._roots = first[:-1]
        self._feature = np.concatenate([tree.feature for tree in trees])
        self._threshold = np.concatenate([tree.threshold for tree in trees])
        self._next = np.concatenate(
            [
                np.stack(
                    [np.where(c < 0, np.arange(len(c)), c) for c in (tree.children_right, tree.children_left)], 1
                )
                + begin
                for tree, begin in zip(trees, first, strict=False)
            ]
        )
        depth = np.concatenate([_depths(tree) for tree in trees])
        left = np.concatenate([tree.n_node_samples for tree in trees])
        self._path = depth + _average_path(left)
        self._deepest = int(depth.max())
        self._usual = len(trees) * float(_average_path(np.array([forest.max_samples_]))[0])

    def score_samples(self, table: Table) -> Table:
        """Minus the anomaly score: ``float64[m, K] -> float64[m]``."""
        rows = table.astype(np.float32)
        node = np.broadcast_to(self._roots, (len(rows), len(self._roots)))  # [m, trees]
        which = np.arange(len(rows))[:, None]
        for _ in range(self._deepest):
            left = rows[which, self._feature[node]] <= self._threshold[node]
            node = self._next[node, left.astype(np.intp)]
        scores: Table = -(2.0 ** (-self._path[node].sum(1) / self._usual))
        return scores


def _depths(tree: Any) -> NDArray[np.int64]:
    depth = np.zeros(tree.node_count, dtype=np.int64)
    for node in range(tree.node_count):  # a parent comes before its children
        for child in (tree.children_left[node], tree.children_right[node]):
            if child >= 0:
                depth[child] = depth[node] + 1
    return depth


def _average_path(samples: NDArray[np.int64]) -> Table:
    """Depth of an unsuccessful search among so many. Source: Liu, Ting, Zhou 2008, equation 1."""
    n = np.maximum(samples.astype(np.float64), 2)
    long = 2.0 * (np.log(np.maximum(n - 1, 1)) + np.euler_gamma) - 2.0 * (n - 1) / n
    return np.where(samples <= 1, 0.0, np.where(samples == 2, 1.0, long))


def _outlier_factor(fitted: LocalOutlierFactor, row: Table) -> float:
    """What scikit-learn says of one row, without its threads. Source: Breunig et al. 2000, definitions 5 to 7."""
    distance = np.sqrt(np.square(fitted._fit_X - row).sum(1))
    count = fitted.n_neighbors_
    nearest = np.argpartition(distance, count - 1)[:count]
    reach = np.maximum(distance[nearest], fitted._distances_fit_X_[nearest, count - 1])
    return float(fitted._lrd[nearest].mean() * (reach.mean() + 1e-10))


def _apart(points: Table, distance: float) -> Table:
    """Points of which no two are nearer than ``distance``, the first of each neighbourhood."""
    points = np.unique(points.round(6), axis=0)
    left, kept = np.ones(len(points), dtype=np.bool_), []
    for number in range(len(points)):
        if left[number]:
            kept.append(number)
            rest = points[number:]
            left[number:] &= np.square(rest - points[number]).sum(1) >= distance**2
    return points[kept]


def per_consumer(windows: EventWindows, scores: Table, rows: int) -> tuple[Table, NDArray[np.int64]]:
    """The highest score of each consumer and its window: ``float64[N]`` (NaN: none), ``int64[N]`` (-1: none)."""
    best, which = np.full(rows, np.nan), np.full(rows, -1, dtype=np.int64)
    order = np.argsort(scores, kind="stable")
    best[windows.row[order]], which[windows.row[order]] = scores[order], order
    return best, which
