"""What joining brings sites of several sizes: alone, shared and personal on a site's own hold-out.

    python -m benchmarks.personal [--smoke] [--log NAME] [--runs DIR] [--epsilon 8 3 1] [--sizes 0 1000] [--seed S] [--set KEY=VALUE]

A public log, one JSON line per site and size: clicks dealt to eight sites, Online Retail dealt to four or split by country,
Complete Journey dealt to four. Sizes: so many training consumers of the site are left to it (0:
all of them); its hold-out stays the same. The shared model has learnt from all: a site of that size in a federation of many.
Runs are kept in DIR and used again, so that a benchmark that was cut off goes on. All figures are *oracle*. One seed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from client.personal.make import made_of
from client.personal.start import OwnConsumers, SharedStart
from client.site import load_site
from common.errors import BadInputError
from common.model import load_model
from common.run import RunFolder, build_config
from simulations.run import simulate


def measure(folder: RunFolder, site_name: str, size: int) -> dict[str, Any]:
    """One site cut down to a number of training consumers; why, where it is too small for a model of its own."""
    plan, vector = folder.plan(), load_model(folder.path)[0]
    site = load_site(folder.path / "sites" / site_name, simulated=True)
    known = site.prepared(plan)
    sides = known.sides
    train = sides.train.take(np.arange(min(size, len(sides.train)))) if size else sides.train
    started = time.process_time()
    own = OwnConsumers.of(replace(sides, train=train), site.secret())
    try:
        made, _, verdicts = made_of(SharedStart(plan, vector, known.mask), own, lambda *_: None)
    except BadInputError as error:
        return {"site": site_name, "consumers": len(train), "refused": error.message}
    first = verdicts[0]
    figures = {who: [round(one.value, 4), round(one.error, 4)] for who, one in first.figures.items()}
    return {
        "site": site_name,
        "consumers": len(train),
        "metric": first.metric,
        **figures,
        "gain": [round(value, 4) for value in asdict(first.gain).values()],
        "made_of": made.personal.words,
        "cpu_s": round(time.process_time() - started, 1),
    }


EPSILON, SIZES = (8.0, 3.0, 1.0), (0, 1_000)


def main(*, smoke: bool, runs: Path | None = None, asked: argparse.Namespace | None = None) -> None:
    """Print all figures."""
    with tempfile.TemporaryDirectory(prefix="fedcart-personal-") as passing:
        home = runs or Path(passing)
        for epsilon in asked.epsilon if asked and not smoke else EPSILON[:1]:
            log, seed = (asked.log, asked.seed) if asked else ("clicks", 1)
            folder = run_of(
                home / f"{log}-{epsilon:g}-{seed}", log, [f"seed={seed}", *wanted(epsilon, asked)], smoke=smoke
            )
            declared = dict(folder.plan().populations)
            sites = sorted(declared, key=lambda name: (-declared[name], name))[: 1 if smoke else 2]
            for size in asked.sizes if asked and not smoke else SIZES[:1]:
                for site in sites:
                    line = {"log": log, "epsilon": epsilon, "seed": seed} | measure(folder, site, size)
                    print(json.dumps(line, allow_nan=False), flush=True)


def wanted(epsilon: float, asked: argparse.Namespace | None) -> list[str]:
    """The settings that the command line names."""
    return [f"privacy.epsilon={epsilon}", *(asked.set if asked else [])]


def run_of(out: Path, log: str, settings: list[str], *, smoke: bool) -> RunFolder:
    """The federation's run, made if it is not there."""
    done = RunFolder(out).summary() if RunFolder.is_one(out) else None
    if done is None or not done.completed:
        shutil.rmtree(out, ignore_errors=True)
        small = ["data.sites=3", "data.consumers=600", "data.items=40", "model.dim=8", "model.hidden=8"]
        simulate(build_config({}, [*(small if smoke else LOGS[log]), *settings]), out)
    return RunFolder.open(out)


def _log(path: str, *settings: str) -> list[str]:
    return [f"data.events={Path(os.environ.get('FEDCART_DATA_DIR', '.')) / path}", *settings]


DEALT = ("data.split_by=consumers", "data.sites=4", "features.max_items=1000")
RETAIL, JOURNEY = "online_retail/online_retail.csv.gz", "complete_journey/transactions_sample.csv.gz"
LOGS = {
    "clicks": _log("clicks/clicks.csv.gz", "data.split_by=consumers", "data.sites=8"),
    "retail": _log(RETAIL, "data.format=online-retail", *DEALT),
    "retail-countries": _log(
        RETAIL, "data.format=online-retail", "data.split_by=country", "features.max_items=1000"
    ),
    "journey": _log(JOURNEY, "data.format=complete-journey", *DEALT),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--log", choices=list(LOGS), default="clicks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--epsilon", nargs="+", type=float, default=list(EPSILON))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--set", action="append", default=[])
    words = parser.parse_args()
    main(smoke=words.smoke, runs=words.runs, asked=words)
