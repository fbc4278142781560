"""The fit behind ``common.tasks.forecast``: logistic curves with a constant of each log; each run, and each log, left out once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from common.atomic import write_atomic

METRIC = "recall@20"
INSIDE = 0.8  # share of the left-out cells that a range must hold, every log counting the same
RIDGE = 0.1  # on slopes, towards no effect; on constants, towards their mean: few cells of a log say little
PROGRAM = Path(__file__).parents[1] / "common" / "tasks" / "forecast.py"
BEGIN, END = "# fitted: begin\n", "# fitted: end\n"
TABLE_BEGIN, TABLE_END = "<!-- benchmarks.forecast: begin -->", "<!-- benchmarks.forecast: end -->"
Cell = Mapping[str, Any]
Floats = NDArray[np.float64]
Words = NDArray[np.str_]


@dataclass(frozen=True)
class Table:
    """Cells of one kind. Shapes: ``x: float64[N, K]`` predictors, ``share: float64[N]``, ``log`` and ``run: str[N]``."""

    x: Floats
    share: Floats
    log: Words
    run: Words

    def only(self, chosen: NDArray[np.bool_]) -> Table:
        """Some of the cells."""
        return Table(self.x[chosen], self.share[chosen], self.log[chosen], self.run[chosen])


@dataclass(frozen=True)
class Fitted:
    """Slopes, the constant of each log; predictions of each cell without its run and without its log; half widths of both."""

    slopes: tuple[float, ...]
    constants: dict[str, float]
    without_run: Floats
    without_log: Floats
    half: float
    unseen: float
    measured: tuple[tuple[float, float], ...]


def bounds(cells: Sequence[Cell]) -> dict[str, Cell]:
    """Untrained and best Recall of each log."""
    return {cell["log"]: cell for cell in cells if cell["kind"] == "bounds"}


def used(cells: Sequence[Cell], kind: str) -> list[Cell]:
    """The cells of a kind whose log has bounds, without those that stand apart: runs whose settings no fit can know of."""
    ends = bounds(cells)
    return [cell for cell in cells if cell["kind"] == kind and cell["log"] in ends and "apart" not in cell]


def table(cells: Sequence[Cell], kind: str) -> Table:
    """Predictors and shares: of ``run`` ln(S sqrt(T) / sqrt(d)) and ln L, of ``alone`` ln n."""
    ends, rows = bounds(cells), used(cells, kind)
    x = [[math.log(c["consumers"])] if kind == "alone" else _of_run(c) for c in rows]
    low = [c.get("untrained", ends[c["log"]]["untrained"]) for c in rows]
    gains = [ends[c["log"]]["without_noise"] - ends[c["log"]]["untrained"] for c in rows]
    share = [(c[METRIC] - u) / g for c, u, g in zip(rows, low, gains, strict=True)]
    run = [f"{c['log']}/{c['schedule']}/{c['epsilon']:g}/{c.get('consumers', c.get('noise'))}" for c in rows]
    return Table(np.array(x), np.array(share), np.array([c["log"] for c in rows]), np.array(run))


def _of_run(cell: Cell) -> list[float]:
    steps = cell["round"] * cell["local_steps"]
    return [math.log(cell["signal"] * math.sqrt(steps / cell["parameters"])), math.log(cell["local_steps"])]


def curve(cells: Table) -> tuple[Floats, dict[str, float]]:
    """Slopes ``float64[K]`` and the constant of each log, by least squares on shares; every log counts the same."""
    logs = sorted(map(str, set(cells.log)))
    place = np.array([logs.index(str(log)) for log in cells.log])
    weight = np.sqrt([1 / (cells.log == log).sum() for log in cells.log])
    count = cells.x.shape[1]

    def residuals(w: Floats) -> Floats:
        wrong = weight * (logistic(w[count:][place] + cells.x @ w[:count]) - cells.share)
        apart = w[count:] - w[count:].mean()
        return np.concatenate([wrong, RIDGE / 10 * w[:count], RIDGE / 10 * apart])

    found = least_squares(residuals, np.array([1.0] + [0.0] * (count - 1) + [-3.0] * len(logs))).x
    return found[:count], dict(zip(logs, map(float, found[count:]), strict=True))


def logistic(line: Floats) -> Floats:
    """Shares of a line."""
    return np.asarray(1 / (1 + np.exp(-np.clip(line, -40, 40))))


def predicted(fitted: tuple[Floats, dict[str, float]], cells: Table) -> Floats:
    """Shares; of a log without constant of its own by the mean of the others."""
    slopes, constants = fitted
    usual = float(np.mean(list(constants.values())))
    own = np.array([constants.get(str(log), usual) for log in cells.log])
    return logistic(own + cells.x @ slopes)


def fit(cells: Table) -> Fitted:
    """The curve over all cells, and what it says of each cell without its run, and without its log."""
    slopes, constants = curve(cells)
    left = [_left_out(cells, groups) for groups in (cells.run, cells.log)]
    halves = [_half(np.abs(guess - np.clip(cells.share, 0, 1)), cells.log) for guess in left]
    measured = tuple((float(a), float(b)) for a, b in zip(cells.x.min(0), cells.x.max(0), strict=True))
    return Fitted(tuple(map(float, slopes)), constants, left[0], left[1], halves[0], halves[1], measured)


def _left_out(cells: Table, groups: Words) -> Floats:
    guess = np.zeros(len(cells.share))
    for group in sorted(set(groups)):
        out = groups == group
        guess[out] = predicted(curve(cells.only(~out)), cells.only(out))
    return guess


def _half(off: Floats, log: Words) -> float:
    """Distance within which so many cells lie, every log counting the same."""
    order = np.argsort(off)
    weight = np.array([1 / (log == one).sum() for one in log])[order]
    return float(off[order][np.searchsorted(np.cumsum(weight) / weight.sum(), INSIDE)])


def report(cells: Sequence[Cell], markdown: Path | None = None, *, write: bool = False) -> str:
    """The fitted constants as the program ships them; ``write`` puts them there, ``markdown`` gets the table of errors."""
    joined, alone = fit(table(cells, "run")), fit(table(cells, "alone"))
    ends = bounds(cells)
    logs = [log for log in ends if log in joined.constants and log in alone.constants]
    like = [
        f"    Like({log.replace(', ', ' ')!r}, {ends[log]['untrained']:.3f}, {ends[log]['without_noise']:.3f}, "
        f"{joined.constants[log]:.2f}, {alone.constants[log]:.2f}),\n".replace("'", '"')
        for log in logs
    ]
    text = f"JOINED = {_shipped(joined)}\nALONE = {_shipped(alone)}\nLOGS = (\n{''.join(like)})\n"
    if write:
        _between(PROGRAM, BEGIN, END, text)
    if markdown:
        _between(markdown, TABLE_BEGIN, TABLE_END, "\n" + errors(cells, joined, alone))
    return text


def _shipped(found: Fitted) -> str:
    slopes = ", ".join(f"{w:.3f}" for w in found.slopes) + ("," if len(found.slopes) == 1 else "")
    limits = ", ".join(f"({low:.2f}, {high:.2f})" for low, high in found.measured)
    return f"Curve(({slopes}), {found.half:.2f}, {found.unseen:.2f}, ({limits}{',' if len(found.measured) == 1 else ''}))"


def _between(path: Path, begin: str, end: str, text: str) -> None:
    whole = path.read_text(encoding="utf-8")
    before, after = whole.split(begin)[0], whole.split(end)[1]
    write_atomic(path, f"{before}{begin}{text}{end}{after}".encode())


def errors(cells: Sequence[Cell], joined: Fitted, alone: Fitted) -> str:
    """Every cell beside what the fit says of it without its run, and without its log: markdown."""
    lines = [
        "| log | run | S | steps | Recall@20 | forecast without this run | without this log |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for cell, run, log in zip(used(cells, "run"), joined.without_run, joined.without_log, strict=True):
        ends = bounds(cells)[cell["log"]]
        words = f"{cell['schedule']}, epsilon {cell['epsilon']:g}"
        lines.append(
            f"| {cell['log']} | {words} | {cell['signal']:,.0f} | {cell['round'] * cell['local_steps']} | {cell[METRIC]:.3f} | "
            f"{_told(ends, run, joined.half)} | {_told(ends, log, joined.unseen)} |"
        )
    lines += [
        "",
        "| log | a site alone, consumers | Recall@20 | forecast without this size | without this log |",
        "|---|---:|---:|---:|---:|",
    ]
    for cell, run, log in zip(used(cells, "alone"), alone.without_run, alone.without_log, strict=True):
        ends = bounds(cells)[cell["log"]] | {"untrained": cell["untrained"]}
        lines.append(
            f"| {cell['log']} | {cell['consumers']:,} | {cell[METRIC]:.3f} | {_told(ends, run, alone.half)} | "
            f"{_told(ends, log, alone.unseen)} |"
        )
    return "\n".join(lines) + "\n"


def _told(ends: Cell, share: float, half: float) -> str:
    low, high = max(share - half, 0.0), min(share + half, 1.0)
    gain = ends["without_noise"] - ends["untrained"]
    return f"{ends['untrained'] + low * gain:.3f} to {ends['untrained'] + high * gain:.3f}"
