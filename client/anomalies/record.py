"""What a site keeps of its verdicts, as tables; figures over them in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from client.anomalies.evidence import Figure, Verdict, judged_quality, standing, weighed

WORDS = {True: "anomaly", False: "normal"}


def verdict_table(said: Sequence[Verdict]) -> dict[str, list[Any]]:
    """A line for each verdict in the book, the latest first; ``counts``: whether it stands."""
    counting = {one.number for one in standing(said)}
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("number", "said", "consumer", "alarm", "verdict", "score", "threshold", "counts", "undone")
    }
    for one in reversed(said):
        line = (one.number, moment(one.said), f"{one.consumer:016x}", one.alarm, WORDS[one.anomaly])
        known = tuple(value if math.isfinite(value) else None for value in (one.score, one.threshold))
        for column, value in zip(
            columns.values(), (*line, *known, one.number in counting, one.undone), strict=True
        ):
            column.append(value)
    return columns


def verdict_facts(said: Sequence[Verdict]) -> dict[str, Any]:
    """How far the verdicts move thresholds, and precision, recall and F1 over them with 95 % intervals."""
    counting = standing(said)
    move = weighed(counting)
    quality = judged_quality(counting, move.factor)
    return {
        "verdicts": len(said),
        "counting": len(counting),
        "factor": move.factor,
        "words": move.words,
        "quality": asdict(quality),
        "remark": quality.few,
    }


def figure_words(figure: Figure | Mapping[str, Any]) -> str:
    """A share with its interval, for people."""
    value, low, high = (
        (figure.value, figure.low, figure.high)
        if isinstance(figure, Figure)
        else (figure["value"], figure["low"], figure["high"])
    )
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def moment(seconds: float) -> str:
    """A time for people, UTC; empty for none."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else ""
