"""Tables that people write about alarms: verdicts, and labels of known anomalies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

import common.data.reading as reading
from client.anomalies.evidence import Verdict
from client.scoring.consumers import LocalLog
from common.errors import BadInputError

WORDS = {"anomaly": True, "normal": False}
NOTHING = (math.nan, math.nan, 0)


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


def read_verdicts(path: Path, log: LocalLog, now: Mapping[int, tuple[float, float, int]]) -> list[Verdict]:
    """Read verdicts (columns ``consumer, verdict``; anomaly or normal), each with the consumer's oddest stretch of ``now``:
    score, threshold, end.

    Raises: BadInputError for another word, or a consumer who is not in the log.
    """
    said = []
    for number, line in enumerate(read_table(path, ("consumer", "verdict")).iter_rows(named=True), start=2):
        word = (line["verdict"] or "").strip().lower()
        if word not in WORDS:
            raise BadInputError(
                f"{path}, line {number}: verdict {word!r}", hint="a verdict is one of: anomaly, normal"
            )
        consumer = log.find(line["consumer"] or "")
        score, threshold, ends = now.get(consumer, NOTHING)
        said.append(Verdict(consumer, WORDS[word], score, threshold, ends))
    return said
