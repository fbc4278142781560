"""Judging sums: are honest rounds ever refused, how often are they shortened, and what can one site push through?

    python -m benchmarks.poisoning [--smoke] [--rounds N] [--only WORD]

One line per kind of run: rounds, refused ones (target: 0), shortened ones, and for length, row and coordinate the largest part
of the limit that an honest sum took. ``push``: the largest change of the mean update, which is what moves the model, that one site
can make beside an honest sum: what is usual bounds it, as all beyond is shortened or refused; ``possible``: what would be refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from common.limits import UpdateLimits
from common.run import IMPLAUSIBLE, RunFolder, build_config
from common.strict_json import finite
from server.app import read_item_rows
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
    "recipe quick": ["recipe=quick", "training.rounds=10"],
    "recipe quality": ["recipe=quality", "training.rounds=40"],
    "two steps, few rounds": ["training.local_steps=2", "training.rounds=4"],
    "forty steps": ["training.local_steps=40", "training.rounds=5"],
    "sales": ["task=sales", "training.rounds=10"],
    "one consumer at each site": ["data.consumers=8", "data.min_population=1", "training.rounds=10"],
}
DOMINANT: dict[str, Callable[[Random, int], str]] = {  # (drawing, consumer) -> an item
    "one item of many is a fifth of all": lambda drawing, _: f"item-{int(drawing.paretovariate(0.2) % 5_000)}",
    "everybody buys one item": lambda _, __: "item-1",
    "one site has one item": lambda drawing, who: "item-1" if who % 8 == 0 else f"item-{drawing.randrange(50)}",
    "two items only": lambda drawing, _: f"item-{drawing.randrange(2)}",
}
UNDER = {
    "": [],
    "adam, ": ["training.optimizer=adam"],
    "sgd, ": ["training.optimizer=sgd"],
    "single steps, ": KINDS["single steps"],
    "two steps, ": KINDS["two steps, few rounds"],
    "forty steps, ": KINDS["forty steps"],
    "no privacy, ": ["privacy.enabled=false"],
    "intent, ": ["task=purchase-intent"],
}


def main(*, smoke: bool, rounds: int = 90, only: str = "") -> None:
    """Print a line per kind of run, and the sum of all."""
    with tempfile.TemporaryDirectory() as folder:
        every = {**KINDS, **real_logs(), **dominant_logs(Path(folder))}
        kinds = dict(list(KINDS.items())[:2]) if smoke else every
        total: Counter[str] = Counter()
        for name, settings in kinds.items():
            if only not in name:
                continue
            line = one_kind(settings, 2 if smoke else rounds)
            total.update({key: line[key] for key in ("rounds", "refused", "shortened")})
            print(json.dumps(finite({"runs": name, **line}), allow_nan=False), flush=True)
        print(json.dumps(finite({"runs": "all", **total}), allow_nan=False), flush=True)


def real_logs() -> Mapping[str, list[str]]:
    """A log of strong signal, if it is there."""
    log = Path(os.environ.get("FEDCART_DATA_DIR", "")) / "clicks" / "clicks.csv.gz"
    clicks = [f"data.events={log}", "data.split_by=consumers", "data.sites=8", "model.dim=48", "model.hidden=48"]
    return {"clicks": clicks, "clicks, single steps": [*clicks, *KINDS["single steps"]]} if log.is_file() else {}


def dominant_logs(folder: Path) -> Mapping[str, list[str]]:
    """Logs of 16,000 short visits of which few items are most, under every optimizer, schedule and kind of question."""
    kinds = {}
    for number, (name, pick) in enumerate(DOMINANT.items()):
        drawing, lines = Random(number), ["consumer,timestamp,event,item"]
        for who in range(16_000):
            day = drawing.randrange(1, 20)
            visits = (f"c{who},2024-01-{day + k:02d}T10:00:00Z,view,{pick(drawing, who)}" for k in range(4))
            lines += visits
        log = folder / f"{number}.csv"
        log.write_text("\n".join(lines) + "\n")
        for under, settings in UNDER.items():
            kinds[under + name] = [f"data.events={log}", "data.split_by=consumers", "training.rounds=4", *settings]
    return kinds


def one_kind(settings: list[str], rounds: int) -> dict[str, Any]:
    """Run it, and look at what its rounds were judged by."""
    with tempfile.TemporaryDirectory() as folder:
        small = [one for one in SMALL if "local_steps" not in one or not any("recipe" in own for own in settings)]
        config = build_config({}, [*small, f"training.rounds={rounds}", "oracle_every=1000000", *settings])
        simulate(config, Path(folder) / "run")
        run = RunFolder.open(Path(folder) / "run")
        plan, rows = run.plan(), read_item_rows(run)
        records = [record for record in run.metrics() if record.kind == "train"]
        sites = sorted(site for record in records[:1] for site, did in record.sites.items() if did.status == "ok")
        limits = UpdateLimits.of(plan, sites, rows)
    line: dict[str, Any] = {
        "rounds": len(records),
        "refused": sum(record.aborted == IMPLAUSIBLE for record in records),
        "shortened": sum(bool(record.shortened) for record in records),
    }
    for figure, usual in limits.usual.largest().items():
        seen = [record.plausible[figure][0] for record in records if figure in record.plausible]
        possible = limits.possible.largest()[figure]
        line[figure] = {
            "seen": _short(max(seen, default=0.0)),
            "push": _short(usual),
            "possible": _short(possible),
        }
    return line


def _short(value: float) -> float:
    return float(f"{value:.3g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int, default=90)
    parser.add_argument("--only", default="", help="kinds whose name has this word")
    arguments = parser.parse_args()
    main(smoke=arguments.smoke, rounds=arguments.rounds, only=arguments.only)
    sys.exit(0)
