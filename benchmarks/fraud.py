"""Anomalies by kind and pace: what is found of bursts, and of the same done slowly. *Oracle* numbers, injected labels.

    python -m benchmarks.fraud [--smoke] [--markdown FILE]

One model (federated, without noise) on the synthetic market; half of the consumers are the reference, a fifth of the others
commits one anomaly each; mean over seeds, with the standard deviation over them. ``--markdown`` writes the table into a document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from client.anomalies.detection import Thresholding, detect, evaluate
from client.scoring.model import SharedModel, open_model
from common.atomic import write_atomic
from common.data import EventLog
from common.run import build_config
from common.strict_json import finite
from simulations.anomalies import KINDS, PACES, inject
from simulations.run import simulate
from simulations.synthetic import SyntheticSpec, generate

BEGIN, END = "<!-- benchmarks.fraud: begin -->", "<!-- benchmarks.fraud: end -->"
SHARE, RATE = 0.2, 0.01
HEADS = {"next-item": 1.0, "next-event": 0.3, "next-category": 0.3}
CASES = {**{pace: (pace, 1.0) for pace in PACES}, "little": ("week", 0.25)}
TITLES = {"burst": "burst", "hour": "hours", "week": "weeks", "little": "weeks, a quarter as much"}
Line = dict[str, Any]


def main(*, smoke: bool) -> None:
    """Print all figures."""
    for line in measured(smoke=smoke):
        print(json.dumps(finite(line), allow_nan=False), flush=True)


def measured(*, smoke: bool) -> Iterator[Line]:
    """A line per kind and pace."""
    sizes = (
        {"consumers": 300, "items": 60, "sites": 3} if smoke else {"consumers": 2_000, "items": 300, "sites": 3}
    )
    shape: Line = {**sizes, "events_per_consumer": 40}
    training = {"rounds": 1, "local_steps": 2} if smoke else {"rounds": 8, "local_steps": 15}
    config = build_config(
        {"data": shape, "model": {"heads": HEADS}, "training": training, "privacy": {"enabled": False}}
    )
    with tempfile.TemporaryDirectory() as folder:
        simulate(config, Path(folder) / "run")
        shared = open_model(Path(folder) / "run")
    log = generate(SyntheticSpec(**shape), config.seed).log
    for pace, how in CASES.items():
        found = [_once(shared, log, how, seed) for seed in range(1 if smoke else 3)]
        for kind in KINDS:
            auc, own, recall = (np.array([one[kind][name] for one in found]) for name in ("auc", "own", "recall"))
            yield {
                "kind": kind,
                "pace": pace,
                "auc": round(float(auc.mean()), 3),
                "auc_deviation": round(float(auc.std()), 3),
                "own_history_auc": round(float(own.mean()), 3),
                "recall": round(float(recall.mean()), 3),
                "false_alarms": round(float(np.mean([one["ordinary"]["alarms"] for one in found])), 4),
            }


def _once(shared: SharedModel, log: EventLog, how: tuple[str, float], seed: int) -> dict[str, dict[str, float]]:
    """Quality per kind on one draw of anomalies."""
    half = pl.col("consumer") % 2 == 0
    usual, others = EventLog(log.frame.filter(half)), EventLog(log.frame.filter(~half))
    injected, labels = inject(others, SHARE, seed=seed, pace=how[0], amount=how[1])
    known = {int(who): str(kind) for who, kind in labels.select("consumer", "kind").iter_rows()}
    seen = detect(shared, injected, Thresholding("adaptive", rate=RATE), reference=usual)
    ordinary = np.array([int(who) not in known for who in seen.scored.sequences.consumers])
    rows = {row.kind: row for row in evaluate(seen, known)}
    quality = {
        kind: {"auc": rows[kind].auc["ours"], "own": rows[kind].auc["own-history"], "recall": rows[kind].recall}
        for kind in KINDS
    }
    return {**quality, "ordinary": {"alarms": float(seen.alarms()[ordinary].mean())}}


def markdown(lines: list[Line]) -> str:
    """The table, and what cannot be found."""
    by = {(line["kind"], line["pace"]): line for line in lines}
    rows = [f"| AUC (share found) | {' | '.join(TITLES[one] for one in CASES)} |", f"|---|{'---:|' * len(CASES)}"]
    for kind in KINDS:
        cells = (by[kind, case] for case in CASES)
        shown = (f"{c['auc']:.2f} ± {c['auc_deviation']:.2f} ({c['recall']:.0%})" for c in cells)
        rows.append(f"| {kind.replace('-', ' ')} | {' | '.join(shown)} |")
    false = max(line["false_alarms"] for line in lines)
    rows += [
        "",
        f"Found: with an alarm, at a threshold that 1 % of ordinary stretches reach; {false:.1%} of ordinary consumers have one.",
    ]
    missed = [line for line in lines if line["recall"] < 0.5]
    said = [
        f"{one['kind'].replace('-', ' ')}, {TITLES[one['pace']]} ({1 - one['recall']:.0%} missed)"
        for one in missed
    ]
    rows.append(
        f"More than half is missed of: {'; '.join(said)}." if said else "Of nothing here more than half is missed."
    )
    return "\n".join(rows)


def write_table(path: Path, lines: list[Line]) -> None:
    """Replace what lies between the two marks of a document."""
    text = path.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_atomic(path, f"{before}{BEGIN}\n{markdown(lines)}\n{END}{after}".encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--markdown", type=Path, help="document that the table is written into")
    arguments = parser.parse_args()
    figures = []
    for figure in measured(smoke=arguments.smoke):
        figures.append(figure)
        print(json.dumps(finite(figure), allow_nan=False), flush=True)
    if arguments.markdown:
        write_table(arguments.markdown, figures)
