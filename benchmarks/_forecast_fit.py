"""The fit behind ``common.tasks.forecast``: logistic curves over the kept cells, each log left out once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

METRIC = "recall@20"
INSIDE = 0.8  # share of an unseen log's cells that a range must hold
RIDGE = 0.05  # towards no effect: few logs, and predictors that differ little within one
WIDEST = 4.0  # logits: beyond it a share is 0 or 1 for all that anybody can tell
Cell = Mapping[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Cells of one kind. Shapes: ``x: float64[N, K]`` predictors, ``share: float64[N]``, ``log: str[N]``."""

    names: tuple[str, ...]
    x: Floats
    share: Floats
    log: NDArray[np.str_]

    def only(self, chosen: NDArray[np.bool_]) -> Table:
        """Some of the cells."""
        return Table(self.names, self.x[chosen], self.share[chosen], self.log[chosen])


@dataclass(frozen=True)
class Fitted:
    """Weights (constant first), half width of the range in logits, error in shares per left-out log, predictors' limits."""

    weights: tuple[float, ...]
    half: float
    errors: dict[str, float]
    inside: dict[str, float]
    measured: tuple[tuple[float, float], ...]


def bounds(cells: Sequence[Cell]) -> dict[str, Cell]:
    """Untrained and best Recall of each log."""
    return {cell["log"]: cell for cell in cells if cell["kind"] == "bounds"}


def runs(cells: Sequence[Cell]) -> Table:
    """Shared models: ln(S sqrt(T) / sqrt(d)) and ln L -> share of what training without noise gains."""
    ends, rows = bounds(cells), [c for c in cells if c["kind"] == "run" and c["log"] in bounds(cells)]
    steps = [c["round"] * c["local_steps"] for c in rows]
    x = [
        (math.log(c["signal"] * math.sqrt(t / c["parameters"])), math.log(c["local_steps"]))
        for c, t in zip(rows, steps, strict=True)
    ]
    share = [_share(c[METRIC], ends[c["log"]]["untrained"], ends[c["log"]]) for c in rows]
    return Table(("signal", "local steps"), np.array(x), np.array(share), np.array([c["log"] for c in rows]))


def alone(cells: Sequence[Cell]) -> Table:
    """Sites by themselves: ln n and ln V -> share."""
    ends, rows = bounds(cells), [c for c in cells if c["kind"] == "alone"]
    x = [(math.log(c["consumers"]), math.log(c["items"])) for c in rows]
    share = [_share(c[METRIC], c["untrained"], ends[c["log"]]) for c in rows]
    return Table(("consumers", "items"), np.array(x), np.array(share), np.array([c["log"] for c in rows]))


def _share(recall: float, untrained: float, ends: Cell) -> float:
    return float((recall - untrained) / (ends["without_noise"] - ends["untrained"]))


def curve(table: Table) -> Floats:
    """Weights ``float64[1 + K]`` of least squares on shares; every log counts the same."""
    weight = np.sqrt([1 / (table.log == log).sum() for log in table.log])

    def residuals(w: Floats) -> Floats:
        return np.concatenate([weight * (predicted(w, table.x) - table.share), math.sqrt(RIDGE / 10) * w[1:]])

    return np.asarray(least_squares(residuals, np.array([0.0] * (1 + table.x.shape[1]))).x)


def predicted(weights: Floats, x: Floats) -> Floats:
    """Shares at predictors ``float64[N, K]``."""
    return np.asarray(1 / (1 + np.exp(-(weights[0] + x @ weights[1:]))))


def logit(share: Floats) -> Floats:
    """Of shares, cut where they are beyond what a curve reaches."""
    low = 1 / (1 + math.exp(WIDEST))
    cut = np.clip(share, low, 1 - low)
    return np.asarray(np.log(cut / (1 - cut)))


def fit(table: Table) -> Fitted:
    """The curve over all logs, and its errors on each log that was left out."""
    errors, off = {}, np.zeros(len(table.share))
    for log in sorted(set(table.log)):
        out = table.log == log
        guess = predicted(curve(table.only(~out)), table.x[out])
        errors[str(log)] = float(np.sqrt(np.mean((guess - table.share[out]) ** 2)))
        off[out] = np.abs(logit(guess) - logit(table.share[out]))
    half = _half(off, table.log)
    inside = {str(log): float((off[table.log == log] <= half).mean()) for log in sorted(set(table.log))}
    measured = tuple((float(low), float(high)) for low, high in zip(table.x.min(0), table.x.max(0), strict=True))
    return Fitted(tuple(float(w) for w in curve(table)), half, errors, inside, measured)


def _half(off: Floats, log: NDArray[np.str_]) -> float:
    """Distance in logits within which so many cells lie, every log counting the same."""
    order = np.argsort(off)
    weight = np.array([1 / (log == one).sum() for one in log])[order]
    return float(off[order][np.searchsorted(np.cumsum(weight) / weight.sum(), INSIDE)])


def report(cells: Sequence[Cell]) -> None:
    """Print the fitted constants and the errors."""
    for name, table in (("joined", runs(cells)), ("alone", alone(cells))):
        found = fit(table)
        print(name, table.names, [round(w, 3) for w in found.weights], "half", round(found.half, 2))
        print("  errors", {k: round(v, 3) for k, v in found.errors.items()}, "inside", found.inside)
        print("  measured", found.measured)
    for log, ends in bounds(cells).items():
        print(log, ends["untrained"], ends["without_noise"], ends["trivial"])
