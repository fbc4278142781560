"""What a person said about alarms: remembered at the site, and moving the threshold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

import common.data.reading as reading
from client.scoring.consumers import LocalLog
from common.atomic import write_atomic
from common.errors import BadInputError

FILE = "feedback.jsonl"
_WORDS = {"anomaly": True, "normal": False}


@dataclass(frozen=True)
class Label:
    """A person's word on one consumer, and the score that the consumer had then (NaN: not scored)."""

    consumer: int
    anomaly: bool
    score: float


def read_table(path: Path, needed: Sequence[str]) -> pl.DataFrame:
    """A small text table with the needed columns. Raises: BadInputError."""
    reading.first_line(path)
    with reading.readable(path):
        frame = pl.read_csv(path, infer_schema=False)
    missing = [name for name in needed if name not in frame.columns]
    if missing or not frame.height:
        what = f"lacks the columns {', '.join(missing)}" if missing else "has no lines"
        raise BadInputError(f"{path} {what}", hint=f"it needs the columns {', '.join(needed)}")
    return frame


def read_verdicts(path: Path, log: LocalLog, scores: Mapping[int, float]) -> list[Label]:
    """Read verdicts (columns ``consumer, verdict``; anomaly or normal), each with the consumer's score.

    Raises: BadInputError for another word, or a consumer who is not in the log.
    """
    labels = []
    for number, line in enumerate(read_table(path, ("consumer", "verdict")).iter_rows(named=True), start=2):
        word = (line["verdict"] or "").strip().lower()
        if word not in _WORDS:
            raise BadInputError(
                f"{path}, line {number}: verdict {word!r}", hint="a verdict is one of: anomaly, normal"
            )
        consumer = log.find(line["consumer"] or "")
        labels.append(Label(consumer, _WORDS[word], scores.get(consumer, float("nan"))))
    return labels


def recall(state: Path) -> dict[int, Label]:
    """All remembered verdicts, the latest of each consumer. Raises: BadInputError if the file is damaged."""
    path = state / FILE
    if not path.exists():
        return {}
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        labels = [Label(int(x["consumer"], 16), bool(x["anomaly"]), _number(x["score"])) for x in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} is damaged: {error}", hint="remove the line, or the file to forget") from None
    return {verdict.consumer: verdict for verdict in labels}


def remember(state: Path, verdicts: Sequence[Label]) -> dict[int, Label]:
    """Add verdicts to the site's memory and return all; the file can be read by its owner only."""
    known = recall(state) | {verdict.consumer: verdict for verdict in verdicts}
    lines = [
        json.dumps(
            {
                "consumer": f"{v.consumer:016x}",
                "anomaly": v.anomaly,
                "score": v.score if np.isfinite(v.score) else None,
            },
            sort_keys=True,
            allow_nan=False,
        )
        for v in known.values()
    ]
    state.mkdir(parents=True, exist_ok=True)
    write_atomic(state / FILE, ("\n".join(lines) + "\n").encode(), mode=0o600)
    return known


def moved_threshold(base: float, verdicts: Mapping[int, Label], scores: Mapping[int, float]) -> float:
    """The threshold that contradicts the fewest verdicts; among equals the one nearest to ``base``.

    A consumer who is in the log now counts with the score of now, another with the score of the verdict.
    """
    known = [(scores.get(v.consumer, v.score), v.anomaly) for v in verdicts.values()]
    value = np.array([score for score, _ in known if np.isfinite(score)])
    odd = np.array([anomaly for score, anomaly in known if np.isfinite(score)], dtype=np.bool_)
    if not len(value):
        return base
    step = max(1e-6, 1e-3 * abs(base))
    candidates = np.concatenate([[base], value, value + step])  # an alarm is a score at or above the threshold
    wrong = _contradictions(candidates, value, odd)
    best = candidates[wrong == wrong.min()]
    return float(best[np.argmin(np.abs(best - base))])


def _contradictions(
    thresholds: NDArray[np.float64], value: NDArray[np.float64], odd: NDArray[np.bool_]
) -> NDArray[np.int64]:
    said = value[None, :] >= thresholds[:, None]
    wrong: NDArray[np.int64] = (said != odd[None, :]).sum(1)
    return wrong


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
