"""Judging sums: are honest rounds ever refused, how near do they come, and what can one site push through?

    python -m benchmarks.poisoning [--smoke] [--rounds N]

One line per kind of run: rounds, refused ones (target: 0), and for length, row and coordinate the largest part of the limit
that an honest sum took; ``room``: the largest push of each that would have passed beside it, of the mean update, which is what is judged.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from common.run import IMPLAUSIBLE, RunFolder, build_config
from simulations.run import simulate

SMALL = [
    "data.consumers=2000",
    "data.items=200",
    "training.local_steps=5",
    "aggregation.mode=plain",
    "model.dim=16",
    "model.hidden=16",
]
TINY = ["data.consumers=120", "data.sites=3", "data.items=20", "model.dim=4", "model.hidden=4"]
KINDS = {
    "default": [],
    "adam": ["training.optimizer=adam"],
    "momentum": ["training.optimizer=momentum"],
    "sgd": ["training.optimizer=sgd"],
    "single steps": ["training.local_steps=1", "privacy.sampling_rate=0.5"],
    "no privacy": ["privacy.enabled=false"],
    "sampled softmax": ["model.sampled_negatives=50"],
    "several tasks": ["task=multi-task"],
    "intent": ["task=purchase-intent"],
    "items of three sites": ["data.split_by=items", "aggregation.min_stockists=1"],
    "epsilon 1": ["privacy.epsilon=1"],
    "next event": ['model.heads={"next-event"=1}'],
    "next event, a tiny model": ['model.heads={"next-event"=1}', *TINY],
    "next event, a tiny model, no privacy": ['model.heads={"next-event"=1}', *TINY, "privacy.enabled=false"],
    "next event, many steps": ['model.heads={"next-event"=1}', "training.local_steps=20", "privacy.epsilon=50"],
    "sites fall out": ["drop=0.2"],
}
FIGURES = ("length of the update", "longest row of an item", "largest coordinate")


def main(*, smoke: bool, rounds: int = 90) -> None:
    """Print a line per kind of run, and the sum of all."""
    kinds = dict(list(KINDS.items())[:2]) if smoke else KINDS | real_logs()
    refused = seen = 0
    for name, settings in kinds.items():
        line = one_kind(settings, 2 if smoke else rounds)
        refused, seen = refused + line["refused"], seen + line["rounds"]
        print(json.dumps({"runs": name, **line}), flush=True)
    print(json.dumps({"runs": "all", "rounds": seen, "refused": refused}), flush=True)


def real_logs() -> Mapping[str, list[str]]:
    """A log of strong signal, if it is there."""
    log = Path(os.environ.get("FEDCART_DATA_DIR", "")) / "clicks" / "clicks.csv.gz"
    clicks = [f"data.events={log}", "data.split_by=consumers", "data.sites=8", "model.dim=48", "model.hidden=48"]
    return {"clicks": clicks, "clicks, single steps": [*clicks, *KINDS["single steps"]]} if log.is_file() else {}


def one_kind(settings: list[str], rounds: int) -> dict[str, object]:
    """Run it, and look at what its rounds were judged by."""
    with tempfile.TemporaryDirectory() as folder:
        config = build_config({}, [*SMALL, f"training.rounds={rounds}", "oracle_every=1000000", *settings])
        simulate(config, Path(folder) / "run")
        run = RunFolder.open(Path(folder) / "run")
        records = [record for record in run.metrics() if record.kind == "train"]
    line: dict[str, object] = {"rounds": len(records), "refused": sum(r.aborted == IMPLAUSIBLE for r in records)}
    for figure in FIGURES:
        judged = [record.plausible[figure] for record in records if figure in record.plausible]
        if judged:
            line[figure] = round(max(found / limit for found, limit in judged), 3)
            line[f"room: {figure}"] = round(max(limit - found for found, limit in judged), 2)
    return line


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int, default=90)
    arguments = parser.parse_args()
    main(smoke=arguments.smoke, rounds=arguments.rounds)
    sys.exit(0)
