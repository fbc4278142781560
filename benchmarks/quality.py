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
from dataclasses import dataclass
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
WITHOUT_PRIVACY = [
    "privacy.enabled=false",
    *("training.optimizer=adam", "training.learning_rate=0.005"),
    *("training.rounds=8", "training.local_steps=50", "privacy.sampling_rate=0.02"),
]
"""Without noise small batches and more steps learn more for the same work: the honest price of privacy."""
Found = dict[str, list[float]]


@dataclass(frozen=True)
class DataSet:
    """A data set by its settings, and the epsilons it is trained at; not all references everywhere: it is long."""

    settings: list[str]
    epsilons: tuple[float, ...] = EPSILONS
    alone: bool = True


def main(*, smoke: bool, seeds: int = 3) -> None:
    """Print all figures, one seed after another, so that a run that is cut off is complete for some."""
    sets = data_sets(smoke=smoke)
    found: dict[str, Found] = {name: {} for name in sets}
    for seed in range(1, 2 if smoke else seeds + 1):
        for name, data in sets.items():
            _one_seed(name, data, seed, found[name])
    for name in sets:
        _table(name, found[name])


def data_sets(*, smoke: bool) -> Mapping[str, DataSet]:
    """Unequal merchants, the same consumers dealt at random, and a real log."""
    if smoke:
        small = ["data.consumers=400", "data.items=60", "data.sites=3"]
        return {"synthetic": DataSet([*small, "training.rounds=2", "training.local_steps=2"], EPSILONS[:1])}
    sets = {
        "synthetic, 8 unequal merchants": DataSet(SCHEDULE),
        "synthetic, 8 IID sites": DataSet([*SCHEDULE, "data.split_by=consumers"], EPSILONS[:1], alone=False),
    }
    folder = os.environ.get("FEDCART_DATA_DIR", "")
    if folder:
        log = Path(folder) / "online_retail" / "online_retail.csv.gz"
        real = [f"data.events={log}", "data.format=online-retail", "data.split_by=country"]
        # little signal at this size: a small learning rate keeps what the items' names give
        sets["Online Retail by country"] = DataSet([*real, *SCHEDULE, "training.learning_rate=0.01"])
    return sets


def _one_seed(name: str, data: DataSet, seed: int, found: Found) -> None:
    without = [] if "training.rounds=2" in data.settings else WITHOUT_PRIVACY
    changes = {"no DP": without or ["privacy.enabled=false"]}
    changes |= {f"epsilon {e:g}": [f"privacy.epsilon={e}"] for e in data.epsilons}
    for label, change in changes.items():
        with tempfile.TemporaryDirectory() as folder:
            config = build_config({}, [*data.settings, f"seed={seed}", *change])
            summary = simulate(config, Path(folder) / "run")
            alone = (LOCAL_ONLY,) if data.alone else ()
            names = (CENTRAL, *alone) if label == "no DP" else (CENTRAL_DP,)
            references = _references(Path(folder) / "run", names)
        scores = {f"federated, {label}": summary.metrics["oracle"][METRIC]}
        scores |= {f"{reference}, {label}": metrics[METRIC] for reference, metrics in references.items()}
        if label == "no DP":
            scores |= {n: metrics[METRIC] for n, metrics in summary.baselines.items() if METRIC in metrics}
        for key, value in scores.items():
            found.setdefault(key, []).append(value)
        line = {"data": name, "seed": seed, "seconds": summary.seconds, METRIC: scores}
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
