"""What is usual at a site: what live stretches of behaviour are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from client.anomalies.detectors import Detector, Scored
from client.anomalies.likelihood import Surprise
from client.anomalies.windows import FEWEST, WINDOW, Habits, Table, habits, profile_starts
from client.scoring.model import SharedModel
from common.errors import BadInputError

FEWEST_STARTS = 50  # consumers, below which nothing tells how odd first events usually are
_MOST_STARTS = 500


@dataclass(frozen=True)
class Usual:
    """What is usual at a site, and who tells it from what is not. ``source``: where it comes from, in words.

    Shapes: ``profile: float64[M, K]``; ``scores: float64[M]`` of these stretches themselves; ``starts: float64[N, WINDOW]``
    scores of consumers' first n events, NaN for fewer than three and for those who have fewer.
    """

    habits: Habits
    detector: Detector
    profile: Table
    scores: Table
    source: str
    starts: Table

    @staticmethod
    def of(scored: Scored, source: str) -> Usual:
        """From a log's own profile. Raises: BadInputError for too little to compare with."""
        profile = scored.windows.profile
        detector = Detector(profile)
        starts = _starts(scored, detector)
        return Usual(habits(scored.sequences), detector, profile, detector.score(profile), source, starts)

    @staticmethod
    def of_model(shared: SharedModel) -> Usual:
        """From what a personal model has kept of its site's past. Raises: BadInputError if there is none."""
        kept = shared.personal.kept.reference if shared.personal is not None else None
        if kept is None:
            raise BadInputError(
                "nothing says what is usual here",
                hint="give earlier events with --events FILE, or personalize the model",
            )
        detector = Detector(kept.profile)
        source = "what the personal model has kept"
        return Usual(
            Habits(dict(kept.habits)),
            detector,
            kept.profile,
            detector.score(kept.profile),
            source,
            np.zeros((0, WINDOW)),
        )

    def start_levels(self, rate: float) -> Table:
        """From which score on the first n events of a consumer are an alarm: ``float64[WINDOW]``, infinite if nothing tells.

        Few events say little, and are scored with each: a ``rate`` of ordinary consumers reaches these levels in all their
        first events together.
        """
        levels = np.full(WINDOW, np.inf)
        enough = np.flatnonzero(np.isfinite(self.starts).sum(0) >= FEWEST_STARTS)
        if not len(enough):
            return levels
        high = np.maximum(np.nanquantile(self.starts[:, enough], 0.9, axis=0), 0.1)
        highest = np.nanmax(
            np.where(np.isfinite(self.starts[:, enough]), self.starts[:, enough] / high, 0), axis=1
        )
        levels[enough] = high * np.quantile(highest, 1 - rate)
        return levels


def _starts(scored: Scored, detector: Detector) -> Table:
    sequences = scored.sequences
    rows = np.flatnonzero(sequences.lengths >= FEWEST)
    if len(rows) > _MOST_STARTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MOST_STARTS, replace=False))
    found = Surprise(scored.heads, scored.nats, np.zeros((0, 0), dtype=np.float32))
    starts = np.full((len(rows), WINDOW), np.nan)
    for count in range(FEWEST, WINDOW):
        long = sequences.lengths[rows] >= count
        starts[long, count] = detector.score(profile_starts(sequences, found, rows[long], count))
    return starts
