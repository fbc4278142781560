"""Anomalous stretches of behaviour: isolation forest and local outlier factor over profiles.

Everything here happens at the site with its own data and the released model: nothing leaves, nothing is charged.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        # as many neighbours as a campaign of copies is likely to have members, or copies vouch for each other
        neighbours = int(np.clip(len(scaled) // 10, 5, 200))
        self._forest = IsolationForest(n_estimators=200, random_state=seed).fit(scaled)
        # equal windows have no distance to each other: their density would be without bound, and everybody else's score too
        different = np.unique(scaled.round(6), axis=0)
        neighbours = min(neighbours, max(1, len(different) - 1))
        self._outliers = LocalOutlierFactor(n_neighbors=neighbours, novelty=True).fit(different)
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


def per_consumer(windows: EventWindows, scores: Table, rows: int) -> tuple[Table, NDArray[np.int64]]:
    """The highest score of each consumer and its window: ``float64[N]`` (NaN: none), ``int64[N]`` (-1: none)."""
    best, which = np.full(rows, np.nan), np.full(rows, -1, dtype=np.int64)
    order = np.argsort(scores, kind="stable")
    best[windows.row[order]], which[windows.row[order]] = scores[order], order
    return best, which
