"""A detection in the light of what people said: thresholds moved by all verdicts, single consumers quietened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from client.anomalies.detection import Detection
from client.anomalies.evidence import Verdict, quiet_level, renewed, weighed

NONE_LEFT = "verdicts left no alarm where there were {:,}: `fedcart review MODEL --list` shows them, `--undo N` takes one back"


def oddest(found: Detection) -> dict[int, tuple[float, float, int]]:
    """Of each consumer the window that is highest above its threshold: score, threshold, end."""
    windows = found.scored.windows
    order = np.argsort(found.scores / np.maximum(found.thresholds, 1e-12), kind="stable")
    consumers = found.scored.sequences.consumers
    return {
        int(consumers[windows.row[w]]): (
            float(found.scores[w]),
            float(found.thresholds[w]),
            int(windows.times[w]),
        )
        for w in order.tolist()
    }


def judged(found: Detection, verdicts: Sequence[Verdict]) -> tuple[Detection, list[str], str]:
    """The detection with standing verdicts, notes on what they did, and a warning (empty: none).

    Verdicts on a consumer of the log count with the score of now.
    """
    if not verdicts:
        return found, [], ""
    before = int(found.alarms().sum())
    current = {who: (score, threshold) for who, (score, threshold, _) in oddest(found).items()}
    move = weighed(renewed(verdicts, current))
    windows, consumers = found.scored.windows, found.scored.sequences.consumers
    thresholds = found.thresholds * move.factor
    spoken = {one.consumer for one in verdicts if not one.anomaly}
    for w in np.flatnonzero(np.isin(consumers[windows.row], np.array(sorted(spoken), dtype=np.uint64))):
        level = quiet_level(verdicts, int(consumers[windows.row[w]]), int(windows.times[w]))
        thresholds[w] = max(thresholds[w], level)
    after = replace(found, thresholds=thresholds, level=found.level * move.factor)
    left = int(after.alarms().sum())
    quiet = int((replace(found, thresholds=found.thresholds * move.factor).alarms() & ~after.alarms()).sum())
    notes = [move.words] + ([f"{quiet:,} consumers are quiet because a person said normal"] if quiet else [])
    return after, notes, NONE_LEFT.format(before) if before and not left else ""
