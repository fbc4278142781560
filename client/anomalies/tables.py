"""Scores of a detection as tables, one list per column: for the command line, files, and the front door for Python."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from client.anomalies.detection import Detection
from client.anomalies.evidence import Verdict
from client.scoring.consumers import LocalLog
from client.scoring.model import SharedModel

Columns = dict[str, list[Any]]


def score_table(log: LocalLog, found: Detection, verdicts: Mapping[int, Verdict], *, per_window: bool) -> Columns:
    """A line for each consumer (its oddest window), or for each window."""
    windows, consumers = found.scored.windows, found.scored.sequences.consumers
    alarms = found.alarms()
    order = range(len(windows)) if per_window else [int(w) for w in found.which[found.which >= 0]]
    names = (
        "consumer",
        "score",
        "threshold",
        "anomaly",
        "begin",
        "end",
        "events",
        "past",
        "unlike_own_past",
        "verdict",
    )
    columns: Columns = {name: [] for name in names}
    for w in order:
        row = int(windows.row[w])
        who, verdict = int(consumers[row]), verdicts.get(int(consumers[row]))
        over = bool(found.scores[w] >= found.thresholds[w]) if per_window else bool(alarms[row])
        begin, end = int(windows.begin[w]), int(windows.end[w])
        stamps = found.scored.sequences.timestamps
        said = "" if verdict is None else "anomaly" if verdict.anomaly else "normal"
        line = (log.shown(who), float(found.scores[w]), float(found.thresholds[w]), over, _when(stamps[begin]))
        line2 = (_when(stamps[end - 1]), end - begin, int(windows.past[w]), float(windows.ratio[w]), said)
        for column, value in zip(columns.values(), line + line2, strict=True):
            column.append(value)
    return columns


def event_table(shared: SharedModel, log: LocalLog, found: Detection) -> Columns:
    """A line for each event with its surprise in nats, in all and by head."""
    sequences = found.scored.sequences
    nats = found.scored.nats
    owner = np.repeat(sequences.consumers, sequences.lengths)
    types = ("", *shared.spec.event_types)
    return {
        "consumer": [log.shown(int(who)) for who in owner],
        "time": [_when(t) for t in sequences.timestamps],
        "event": [types[int(e)] for e in sequences.column("event")],
        "item": [shared.item_name(int(i)) for i in sequences.column("item")],
        "surprise": np.nansum(nats, axis=1).astype(float).tolist(),
        **{name.replace("-", "_"): nats[:, i].astype(float).tolist() for i, name in enumerate(found.scored.heads)},
    }


def _when(stamp: Any) -> str:
    return datetime.fromtimestamp(int(stamp) / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S")
