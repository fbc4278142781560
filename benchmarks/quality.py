"""Quality of next behaviour: what do federation and privacy cost? Three seeds, synthetic and Online Retail.

    python -m benchmarks.quality [--smoke] [--seeds N]

Per data set: one run without privacy with all references (central, local-only, trivial baselines), then one
private run per epsilon. Printed as JSON lines and, at the end, a table of means and ranges over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from common.config import build_config
from common.runfolder import RunFolder
from server.app import read_plan
from simulations.reference_runs import CENTRAL, CENTRAL_DP, LOCAL_ONLY, reference_runs
from simulations.run import simulate
from simulations.workers import WorkerPool

EPSILONS = (8.0, 3.0, 1.0)
METRIC = "recall@20"
SCHEDULE = ["training.rounds=10", "training.local_steps=10"]
Found = dict[str, list[float]]


def main(*, smoke: bool, seeds: int = 3) -> None:
    """Print all figures."""
    for name, settings in data_sets(smoke=smoke).items():
        found: Found = {}
        for seed in range(1, 2 if smoke else seeds + 1):
            _one_seed(name, [*settings, f"seed={seed}"], found, smoke=smoke)
        _table(name, found)


def data_sets(*, smoke: bool) -> Mapping[str, list[str]]:
    """Settings of each data set: unequal merchants, the same consumers dealt at random, and a real log."""
    if smoke:
        small = ["data.consumers=400", "data.items=60", "data.sites=3"]
        return {"synthetic": [*small, "training.rounds=2", "training.local_steps=2"]}
    sets = {
        "synthetic, 8 unequal merchants": SCHEDULE,
        "synthetic, 8 IID sites": [*SCHEDULE, "data.split_by=consumers"],
    }
    folder = os.environ.get("FEDCART_DATA_DIR", "")
    if folder:
        log = Path(folder) / "online_retail" / "online_retail.csv.gz"
        real = [f"data.events={log}", "data.format=online-retail", *SCHEDULE]
        sets["Online Retail by country"] = [*real, "data.split_by=country"]
    return sets


def _one_seed(name: str, settings: list[str], found: Found, *, smoke: bool) -> None:
    changes = {"no DP": "privacy.enabled=false"}
    changes |= {f"epsilon {e:g}": f"privacy.epsilon={e}" for e in (EPSILONS[:1] if smoke else EPSILONS)}
    for label, change in changes.items():
        with tempfile.TemporaryDirectory() as folder:
            config = build_config({}, [*settings, change])
            summary = simulate(config, Path(folder) / "run")
            names = (CENTRAL, LOCAL_ONLY) if label == "no DP" else (CENTRAL_DP,)
            references = _references(Path(folder) / "run", names)
        scores = {f"federated, {label}": summary.metrics["oracle"][METRIC]}
        scores |= {f"{reference}, {label}": metrics[METRIC] for reference, metrics in references.items()}
        if label == "no DP":
            scores |= {n: metrics[METRIC] for n, metrics in summary.baselines.items() if METRIC in metrics}
        for key, value in scores.items():
            found.setdefault(key, []).append(value)
        line = {"data": name, "seed": config.seed, "seconds": summary.seconds, METRIC: scores}
        print(json.dumps(line), flush=True)


def _references(out: Path, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    plan = read_plan(RunFolder.open(out))
    with WorkerPool(os.cpu_count() or 1) as pool:
        return reference_runs(pool, {site: out / "sites" / site for site in plan.sites}, plan, names=names)


def _table(name: str, found: Found) -> None:
    for key, values in sorted(found.items(), key=lambda entry: -statistics.mean(entry[1])):
        line = {"data": name, "scheme": key, "mean": round(statistics.mean(values), 4), "seeds": len(values)}
        print(json.dumps(line | {"low": round(min(values), 4), "high": round(max(values), 4)}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    main(smoke=arguments.smoke, seeds=arguments.seeds)
    sys.exit(0)
