"""How often the model is right about the next event and category, class by class, on a site's own consumers.

Every consumer's last event is held back and predicted from those before. The figures are the site's own and stay there; where the
model has learnt from these very consumers they flatter it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.scoring.model import SharedModel
from client.scoring.predict import available, class_name, predict_next
from common.data import EventLog
from common.errors import BadInputError


@dataclass(frozen=True)
class ClassFigures:
    """One class: how often it was the answer, how often it was predicted, and how well. NaN where there is nothing to divide by."""

    name: str
    asked: int
    predicted: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class NextCheck:
    """Shapes: ``confusion: int64[C, C]``, what came by what was predicted, in the order of ``classes`` (the most frequent first).

    ``macro``: mean precision, recall and F1 of the classes that were asked for; ``weighted``: weighed by how often. ``accuracy`` beside
    that of always naming the most frequent answer (``majority``) and of the last value again (``repeat_last``).
    """

    what: str
    asked: int
    classes: tuple[ClassFigures, ...]
    confusion: NDArray[np.int64]
    accuracy: float
    majority: float
    repeat_last: float
    macro: tuple[float, float, float]
    weighted: tuple[float, float, float]


def checkable(shared: SharedModel) -> tuple[str, ...]:
    """What can be judged class by class: of event and category, what the model has."""
    return tuple(what for what in ("event", "category") if what in available(shared))


def check_next(shared: SharedModel, log: EventLog, what: str) -> NextCheck:
    """Predict everybody's last event from those before, and count. Raises: BadInputError where nobody can be asked."""
    if what not in checkable(shared):
        raise BadInputError(
            f"this model does not predict the next {what}",
            hint=f"it can be judged on: {', '.join(checkable(shared)) or 'nothing'}",
        )
    long = np.diff(log.offsets) >= 2
    kept = np.ones(len(log), dtype=np.bool_)
    kept[log.offsets[1:] - 1] = False
    kept &= np.repeat(long, np.diff(log.offsets))
    before = shared.sequences(EventLog(log.frame.filter(kept)))
    whole = shared.sequences(log).take(np.flatnonzero(long))
    column = whole.column(what).astype(np.int64)
    truth, last = column[whole.offsets[1:] - 1], before.column(what).astype(np.int64)[before.offsets[1:] - 1]
    asked = truth > 0
    if not asked.any():
        raise BadInputError(
            f"no consumer's last event has a {what}", hint="give a log with more events per consumer"
        )
    chosen = predict_next(shared, before, what, 1).choices[:, 0]
    return _counted(shared, what, (truth[asked], chosen[asked], last[asked]))


def _counted(
    shared: SharedModel, what: str, told: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
) -> NextCheck:
    truth, chosen, last = told
    often = np.bincount(truth)
    values = sorted({*truth.tolist(), *chosen.tolist()}, key=lambda v: (-(often[v] if v < len(often) else 0), v))
    place = {value: row for row, value in enumerate(values)}
    confusion = np.zeros((len(values), len(values)), dtype=np.int64)
    np.add.at(confusion, ([place[v] for v in truth.tolist()], [place[v] for v in chosen.tolist()]), 1)
    names = [class_name(shared, what, value) or "unknown" for value in values]
    classes = class_figures(confusion, names)
    there = [one for one in classes if one.asked]
    macro, weighted = (
        tuple(
            float(np.average([_zero(getattr(one, name)) for one in there], weights=weights))
            for name in ("precision", "recall", "f1")
        )
        for weights in ([1] * len(there), [one.asked for one in there])
    )
    return NextCheck(
        what, len(truth), classes, confusion, float((truth == chosen).mean()), float(often.max() / len(truth)),
        float((truth == last).mean()), macro, weighted,  # type: ignore[arg-type] # three names each
    )  # fmt: skip


def class_figures(confusion: NDArray[np.int64], names: list[str]) -> tuple[ClassFigures, ...]:
    """Precision, recall and F1 of every class. Shapes: ``int64[C, C]``, what came by what was predicted."""
    asked, predicted, hits = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    found = []
    for row, name in enumerate(names):
        precision = hits[row] / predicted[row] if predicted[row] else math.nan
        recall = hits[row] / asked[row] if asked[row] else math.nan
        f1 = 2 * hits[row] / (asked[row] + predicted[row]) if asked[row] + predicted[row] else math.nan
        found.append(
            ClassFigures(name, int(asked[row]), int(predicted[row]), float(precision), float(recall), float(f1))
        )
    return tuple(found)


def _zero(value: float) -> float:
    """A class that was never predicted has no precision; for a mean that is none at all."""
    return 0.0 if math.isnan(value) else value


def confusion_table(found: NextCheck) -> dict[str, list[Any]]:
    """Every pair that occurred: what came, what was predicted, how often; the most frequent first."""
    rows, columns = np.nonzero(found.confusion)
    counts = found.confusion[rows, columns]
    order = np.argsort(-counts, kind="stable")
    return {
        "what": [found.what] * len(order),
        "came": [found.classes[int(rows[i])].name for i in order],
        "predicted": [found.classes[int(columns[i])].name for i in order],
        "count": [int(counts[i]) for i in order],
    }
