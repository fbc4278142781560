"""Quality of next behaviour: what do federation and privacy cost? Three seeds, synthetic and Online Retail.

    python -m benchmarks.quality [--smoke] [--seeds N] [--lines FILE]

Per data set: one run without privacy with all references (central, local-only, trivial baselines), then one
private run per epsilon. Printed as JSON lines and, at the end, a table of means and ranges over seeds. ``--lines``
keeps them: a command that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._schemes import WITHOUT_PRIVACY
from common.deployment import Kits
from common.run import RunFolder, build_config
from common.strict_json import finite
from simulations.reference_runs import CENTRAL, CENTRAL_DP, LOCAL_ONLY, reference_runs
from simulations.run import simulate
from simulations.workers import WorkerPool

EPSILONS = (8.0, 3.0, 1.0)
METRIC = "recall@20"
SCHEDULE = ["training.rounds=10", "training.local_steps=10"]
NO_DP = [
    "privacy.enabled=false",
    *(f"{part}.{key}={value}" for part, tree in WITHOUT_PRIVACY.items() for key, value in tree.items()),
]


@dataclass(frozen=True)
class DataSet:
    """A data set by its settings, and the epsilons it is trained at; not all references everywhere: it is long."""

    settings: list[str]
    epsilons: tuple[float, ...] = EPSILONS
    alone: bool = True


def main(*, smoke: bool, seeds: int = 3, kept: Path | None = None) -> None:
    """Print all figures, one seed after another, so that a run that is cut off is complete for some."""
    sets = data_sets(smoke=smoke)
    lines = [json.loads(text) for text in kept.read_text().splitlines()] if kept and kept.is_file() else []
    for seed in range(1, 2 if smoke else seeds + 1):
        for name, data in sets.items():
            done = {line["label"] for line in lines if (line["data"], line["seed"]) == (name, seed)}
            for line in _one_seed(name, data, seed, done):
                lines.append(line)
                print(json.dumps(finite(line), allow_nan=False), flush=True)
                if kept:
                    kept.write_text("".join(json.dumps(finite(known), allow_nan=False) + "\n" for known in lines))
    for name in sets:
        _table(name, [line[METRIC] for line in lines if line["data"] == name])


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
        sets["Online Retail by country"] = DataSet([*real, *SCHEDULE])
    return sets


def _one_seed(name: str, data: DataSet, seed: int, done: Set[str]) -> Iterator[dict[str, Any]]:
    without = [] if "training.rounds=2" in data.settings else NO_DP
    changes = {"no DP": without or ["privacy.enabled=false"]}
    changes |= {f"epsilon {e:g}": [f"privacy.epsilon={e}"] for e in data.epsilons}
    for label, change in changes.items():
        if label in done:
            continue
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
        yield {"data": name, "seed": seed, "label": label, "seconds": summary.seconds, METRIC: scores}


def _references(out: Path, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    plan = RunFolder.open(out).plan()
    with WorkerPool(os.cpu_count() or 1) as pool:
        return reference_runs(pool, {site: Kits(out).site(site).path for site in plan.sites}, plan, names=names)


def _table(name: str, scores: list[dict[str, float]]) -> None:
    found: dict[str, list[float]] = {}
    for key, value in (pair for line in scores for pair in line.items()):
        found.setdefault(key, []).append(value)
    for key, values in sorted(found.items(), key=lambda entry: -statistics.mean(entry[1])):
        line = {"data": name, "scheme": key, "mean": round(statistics.mean(values), 4), "seeds": len(values)}
        print(
            json.dumps(
                finite(line | {"low": round(min(values), 4), "high": round(max(values), 4)}), allow_nan=False
            ),
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lines", type=Path, help="file that keeps the lines")
    arguments = parser.parse_args()
    main(smoke=arguments.smoke, seeds=arguments.seeds, kept=arguments.lines)
    sys.exit(0)
