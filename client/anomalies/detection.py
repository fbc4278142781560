"""One pass of anomaly detection over a site's log: scores, thresholds, verdicts, and quality where labels exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.anomalies.detectors import ENOUGH_PAST, Detector, Scored, per_consumer, profile_log
from client.anomalies.feedback import read_table
from client.anomalies.thresholds import adaptive_thresholds, cross_validated
from client.anomalies.windows import WINDOW, Habits, Table, habits
from client.scoring.binary import precision_recall
from client.scoring.consumers import LocalLog
from client.scoring.model import SharedModel
from common.data import EventLog
from common.errors import BadInputError, ConfigError

LONG_PAST = 50  # past events from which on a takeover should be found
ALL = "all kinds"
FEWEST_ODD = 1e-6


KINDS = ("fixed", "adaptive", "cross-validated")


@dataclass(frozen=True)
class Thresholding:
    """How a score becomes an alarm: ``kind`` fixed, adaptive or cross-validated.

    ``at`` is the fixed threshold (1: as odd as the oddest hundredth of the reference); ``rate`` the share of
    recent windows that an adaptive threshold would report; ``days`` how far it looks back.
    """

    kind: str = "adaptive"
    at: float = 1.0
    rate: float = 0.01
    days: float = 30.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"no threshold is called {self.kind!r}", hint=f"one of: {', '.join(KINDS)}")
        for name, least, most in (("at", 0.0, math.inf), ("rate", 0.0, 1.0), ("days", 0.0, math.inf)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not least <= value <= most:
                raise ConfigError(
                    f"a threshold with {name} = {value!r}", hint=f"a number from {least:g} to {most:g}"
                )


@dataclass(frozen=True)
class Detection:
    """Scores and thresholds of all windows of a log.

    Shapes: ``scores, thresholds: float64[M]`` per window; ``best: float64[N]`` highest score of each consumer,
    ``which: int64[N]`` its window (-1: fewer than three events, nothing to say).
    """

    scored: Scored
    scores: Table
    thresholds: Table
    best: Table
    which: NDArray[np.int64]
    level: float
    notes: tuple[str, ...] = ()

    def alarms(self) -> NDArray[np.bool_]:
        """True for each consumer with a window at or above its threshold: ``bool[N]``."""
        alarmed = np.zeros(len(self.best), dtype=np.bool_)
        alarmed[self.scored.windows.row[self.scores >= self.thresholds]] = True
        return alarmed


def _compared(
    shared: SharedModel, log: EventLog, reference: EventLog | None
) -> tuple[Scored, Detector, NDArray[np.float64]]:
    """The log's profile, what judges it, and what that says of the reference's own windows (none without one)."""
    usual_here = shared.personal.kept.reference if shared.personal is not None else None
    if reference is not None:
        usual = profile_log(shared, reference)
        detector = Detector(usual.windows.profile)
        scored = profile_log(shared, log, habits(usual.sequences))
        return scored, detector, detector.score(usual.windows.profile)
    if usual_here is not None:
        scored = profile_log(shared, log, Habits(dict(usual_here.habits)))
        return scored, Detector(usual_here.profile), np.zeros(0)
    scored = profile_log(shared, log)
    return scored, Detector(scored.windows.profile), np.zeros(0)


def detect(
    shared: SharedModel,
    log: EventLog,
    thresholding: Thresholding,
    *,
    reference: EventLog | None = None,
    labels: Mapping[int, str] | None = None,
) -> Detection:
    """Score every window of the log against the reference and set thresholds.

    ``reference`` None: against what a personal model has kept of its site's past, else against the log itself.

    Raises: BadInputError for a model without behaviour heads, too little to compare with, or a cross-validated
    threshold without labels of both kinds.

    Example:
        >>> detection = detect(shared, log, Thresholding("fixed", at=1.0))  # doctest: +SKIP
    """
    if thresholding.kind == "cross-validated" and not labels:  # before minutes of scoring
        raise BadInputError("a cross-validated threshold needs labels", hint="give them with --labels FILE")
    scored, detector, usual_scores = _compared(shared, log, reference)
    scores = detector.score(scored.windows.profile)
    best, which = per_consumer(scored.windows, scores, len(scored.sequences))
    level, notes = thresholding.at, []
    thresholds = np.full(len(scores), level)
    if thresholding.kind == "adaptive" and reference is not None:
        level = max(float(np.quantile(usual_scores, 1 - thresholding.rate)), FEWEST_ODD)
        thresholds = np.full(len(scores), level)
        notes.append(f"the threshold is what {thresholding.rate:.1%} of the reference's own stretches reach")
    elif thresholding.kind == "adaptive":
        thresholds = adaptive_thresholds(scores, scored.windows.times, thresholding.rate, thresholding.days)
        level = float(np.median(thresholds)) if len(thresholds) else level
    elif thresholding.kind == "cross-validated":
        validated = cross_validated(*_labelled(scored, best, labels or {}))
        level, thresholds = validated.threshold, np.full(len(scores), validated.threshold)
        notes.append(
            f"cross-validated on labelled consumers: precision {validated.precision:.3f}, recall {validated.recall:.3f}, "
            f"F1 {validated.f1:.3f}"
        )
    return Detection(scored, scores, thresholds, best, which, level, tuple(notes))


def _labelled(scored: Scored, best: Table, labels: Mapping[int, str]) -> tuple[Table, NDArray[np.bool_]]:
    odd = np.array([int(c) in labels for c in scored.sequences.consumers], dtype=np.bool_)
    known = np.isfinite(best)
    return best[known], odd[known]


def read_labels(path: Path, log: LocalLog) -> dict[int, str]:
    """Known anomalies: columns ``consumer, kind``; everybody else counts as normal.

    Raises: BadInputError for a table of another shape, or one that names nobody in the log.
    """
    labels = {}
    for line in read_table(path, ("consumer", "kind")).iter_rows(named=True):
        try:
            labels[log.find(line["consumer"] or "")] = str(line["kind"])
        except BadInputError:
            continue  # labels may cover more than this log
    if not labels:
        raise BadInputError(
            f"no consumer of {path} is in the log", hint="labels name consumers by the ids of the event file"
        )
    return labels


@dataclass(frozen=True)
class KindQuality:
    """Detection quality of one kind of anomaly against normal consumers. ``auc`` by method, ours first."""

    kind: str
    anomalies: int
    precision: float
    recall: float
    f1: float
    auc: dict[str, float] = field(default_factory=dict)


def evaluate(found: Detection, labels: Mapping[int, str]) -> list[KindQuality]:
    """Quality per kind, for all kinds together, and for takeovers of consumers with a long past.

    Baselines: the hidden state with isolation forest and local outlier factor, as in the literature, and the
    likelihood ratio of own past against everybody's habits alone.
    """
    rows = len(found.best)
    windows = found.scored.windows
    kind = np.array([labels.get(int(c), "") for c in found.scored.sequences.consumers])
    plain = Detector(windows.hidden).parts(windows.hidden)
    ratio = np.where(windows.past >= ENOUGH_PAST, windows.ratio, 0.0)
    methods = {
        "ours": found.best,
        "hidden+forest": per_consumer(windows, plain[0], rows)[0],
        "hidden+lof": per_consumer(windows, plain[1], rows)[0],
        "own-history": per_consumer(windows, ratio, rows)[0],
    }
    known = np.isfinite(found.best)
    kinds = sorted(set(labels.values()) & set(kind))
    asked = [(name, known & ((kind == name) | (kind == ""))) for name in kinds]
    long = known & (found.scored.sequences.lengths >= LONG_PAST + WINDOW)
    if "account-takeover" in kinds:
        chosen = long & ((kind == "account-takeover") | (kind == ""))
        asked.append((f"account-takeover, {LONG_PAST}+ past events", chosen))
    asked.append((ALL, known))
    alarms = found.alarms()
    return [
        _quality(name, alarms[on], kind[on] != "", {m: s[on] for m, s in methods.items()}) for name, on in asked
    ]


def _quality(
    name: str, alarms: NDArray[np.bool_], odd: NDArray[np.bool_], scores: Mapping[str, Table]
) -> KindQuality:
    from sklearn.metrics import roc_auc_score

    both = odd.any() and not odd.all()
    auc = {m: float(roc_auc_score(odd, s)) if both else float("nan") for m, s in scores.items()}
    precision, recall, f1 = precision_recall(alarms, odd)
    return KindQuality(name, int(odd.sum()), precision, recall, f1, auc)
