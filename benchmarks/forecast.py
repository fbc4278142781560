"""The cells behind the forecast of a run: what federations and sites alone reached on public logs, and the fit over them.

    python -m benchmarks.forecast [--smoke] [--cells FILE] [--only PART ...] [--fit [--write] [--markdown FILE]]

A cell is measured once and kept in FILE, one JSON line each: a benchmark that was cut off goes on with what is missing.
``--fit`` measures nothing: it fits the kept cells, leaves each run and each log out once, and prints the constants that the
program ships; ``--write`` puts them into ``common/tasks/forecast.py``, ``--markdown`` the table of errors into a document. Logs that
FEDCART_DATA_DIR does not have are left out. All figures are *oracle*, one seed. A cell with a ``source`` was measured elsewhere.

Kinds of cells: ``bounds`` (untrained, and the best round of training without noise), ``run`` (a private run, at several of its
rounds: after r rounds a run of so much noise is where a run of r rounds ends), ``alone`` (one site cut down to n consumers).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._forecast_fit import report
from client.personal.behaviour import Workshop
from client.personal.start import OwnConsumers, SharedStart
from client.personal.tuning import one_thread
from client.personal.verdict import ALONE
from client.site import load_site
from common.run import RunFolder, build_config
from simulations.oracle import hold_out_sums
from simulations.run import simulate

METRIC = "recall@20"
CELLS = Path(__file__).with_name("forecast_cells.jsonl")
EPSILONS = (8.0, 3.0, 1.0)
SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    "quick": {"training": {"rounds": 10, "local_steps": 10}, "privacy": {"sampling_rate": 0.1}},
    "quality": {"recipe": "quality"},
    "drawn-out": {"training": {"rounds": 40, "local_steps": 10}, "privacy": {"sampling_rate": 0.25}},
}
WITHOUT_NOISE = {
    "training": {"rounds": 8, "local_steps": 50, "optimizer": "adam", "learning_rate": 0.005},
    "privacy": {"sampling_rate": 0.02, "enabled": False},
}
AS_DEALT = {"training": {"rounds": 1, "local_steps": 1}, "privacy": {"enabled": False}}
SIZES = (300, 1_000, 3_000)
Cell = dict[str, Any]
Tree = Mapping[str, Any]


def logs(*, smoke: bool) -> Mapping[str, Tree]:
    """Settings of each log: what it is and how it is dealt."""
    if smoke:
        return {"market": {"data": {"consumers": 600, "items": 40, "sites": 3}, "model": {"dim": 8, "hidden": 8}}}
    folder = Path(os.environ.get("FEDCART_DATA_DIR", ""))
    retail = {"events": str(folder / "online_retail" / "online_retail.csv.gz"), "format": "online-retail"}
    journey = {
        "events": str(folder / "complete_journey" / "transactions_sample.csv.gz"),
        "format": "complete-journey",
    }
    dealt = {"split_by": "consumers", "sites": 4}
    thousand = {"features": {"max_items": 1_000}}
    still = {"constant": ["event", "gap", "hour", "weekday", "month"]}
    known: dict[str, Tree] = {
        "market": {},
        "market without contexts": {"model": {"context": [], "heads": {"next-item": 1.0}}},
        "clicks": {
            "data": {"events": str(folder / "clicks" / "clicks.csv.gz"), "split_by": "consumers", "sites": 8},
            "features": still,
        },
        "Online Retail, dealt": {"data": {**retail, **dealt}, **thousand},
        "Online Retail, by country": {"data": {**retail, "split_by": "country"}, **thousand},
        "Complete Journey": {"data": {**journey, **dealt}, **thousand},
    }
    return {
        name: tree for name, tree in known.items() if Path(tree.get("data", {}).get("events", __file__)).is_file()
    }


def jobs(*, smoke: bool) -> Iterator[tuple[str, str, str, float]]:
    """(log, kind, schedule, epsilon) of all that is measured, the cheap before the dear."""
    for log in logs(smoke=smoke):
        yield log, "bounds", "", 0.0
        yield log, "alone", "", 0.0
    for name in list(SCHEDULES)[: 1 if smoke else None]:
        for epsilon in EPSILONS[: 1 if smoke else None]:
            for log in logs(smoke=smoke):
                if name != "drawn-out" or (
                    epsilon == EPSILONS[0] and log in ("market", "market without contexts")
                ):
                    yield log, "run", name, epsilon


def main(*, smoke: bool, cells: Path | None = None, only: Sequence[str] = ()) -> None:
    """Measure what the file does not have yet, and print each cell."""
    with tempfile.TemporaryDirectory(prefix="fedcart-forecast-") as passing:
        kept = cells or Path(passing) / "cells.jsonl"
        done = {(cell["log"], cell["kind"], cell["schedule"], cell["epsilon"]) for cell in read(kept)}
        for job in jobs(smoke=smoke):
            words = f"{job[0]}, {job[1]}, {job[2]}, {job[3]:g}"
            if job in done or (only and not any(part in words for part in only)):
                continue
            for cell in measure(job, Path(passing), smoke=smoke):
                line = json.dumps(cell, allow_nan=False)
                print(line, flush=True)
                with kept.open("a") as file:
                    file.write(line + "\n")


def read(path: Path) -> list[Cell]:
    """The kept cells; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def measure(job: tuple[str, str, str, float], passing: Path, *, smoke: bool) -> list[Cell]:
    """All cells of one simulation."""
    log, kind, schedule, epsilon = job
    tree = dict(logs(smoke=smoke)[log])
    chosen = {"bounds": WITHOUT_NOISE, "alone": AS_DEALT, "run": SCHEDULES.get(schedule, {})}[kind]
    privacy = {**chosen.get("privacy", {}), **({"epsilon": epsilon} if kind == "run" else {})}
    settings = {**tree, **{k: v for k, v in chosen.items() if k != "privacy"}, "privacy": privacy}
    quarter = max(1, build_config(settings).training.rounds // 4)
    small = ["training.rounds=1", "training.local_steps=2"] if smoke else [f"oracle_every={quarter}"]
    with tempfile.TemporaryDirectory(dir=passing) as name:
        out = Path(name) / "run"
        summary = simulate(
            build_config(settings, ["aggregation.mode=plain", "performance.workers=1", *small]), out
        )
        folder = RunFolder(out)
        found = _alone(folder, smoke=smoke) if kind == "alone" else [_bounds, _rounds][kind == "run"](folder)
        cells = [{"log": log, "kind": kind, "schedule": schedule, "epsilon": epsilon, **cell} for cell in found]
        if kind == "bounds":
            known = summary.baselines.items()
            cells[0]["trivial"] = {who: round(values[METRIC], 4) for who, values in known if METRIC in values}
        return cells


def _public(folder: RunFolder) -> Cell:
    plan = folder.plan()
    config = plan.config
    people = sum(declared for _, declared in plan.populations)
    sites = len(plan.sites)
    items = json.loads(plan.features).get("catalogue_items") or config.features.item_buckets
    return {"sites": sites, "declared": people, "items": items, "parameters": plan.parameters}


def _bounds(folder: RunFolder) -> list[Cell]:
    """Recall of the untrained model, and of the best round without noise."""
    plan = folder.plan()
    asked, first = plan.to_json(), folder.initial().tobytes()
    kits = sorted((folder.path / "sites").iterdir())
    sums = np.sum([hold_out_sums(str(kit), asked, first) for kit in kits], axis=0)
    best = max(record.oracle.get(METRIC, 0.0) for record in folder.metrics())
    return [
        _public(folder) | {"untrained": round(plan.summarise(sums)[METRIC], 4), "without_noise": round(best, 4)}
    ]


def _rounds(folder: RunFolder) -> list[Cell]:
    """Recall after the rounds that were measured, the first tenth left out: no run is as short."""
    plan = folder.plan()
    training = plan.config.training
    known = _public(folder) | {
        "signal": round(plan.signal, 2),
        "local_steps": training.local_steps,
        "rounds": training.rounds,
        "rate": plan.config.privacy.sampling_rate,
        "noise": round(plan.noise_multiplier, 4),
    }
    wanted = sorted({max(1, round(training.rounds * part)) for part in (0.25, 0.5, 0.75, 1.0)})
    measured = {r.round: r.oracle[METRIC] for r in folder.metrics() if r.kind == "train" and METRIC in r.oracle}
    return [
        known | {"round": near, METRIC: round(measured[near], 4)}
        for near in sorted({min(measured, key=lambda r, w=w: abs(r - w)) for w in wanted})  # type: ignore[misc]
    ]


def _alone(folder: RunFolder, *, smoke: bool) -> Iterator[Cell]:
    """The largest site cut down to several sizes: its own network and counts, on its own hold-out."""
    plan = folder.plan()
    name = max(plan.populations, key=lambda pair: pair[1])[0]
    site = load_site(folder.path / "sites" / name, simulated=True)
    known = site.prepared(plan)
    sides = known.sides
    sizes = sorted({min(size, len(sides.train)) for size in ((200,) if smoke else SIZES)})
    for size in sizes:
        cut_down = replace(sides, train=sides.train.take(np.arange(size)))
        own = OwnConsumers.of(cut_down, site.secret())
        with one_thread():
            shop = Workshop(SharedStart(plan, folder.initial(), known.mask), own, lambda *_: None)
            model = shop.served(shop.finished(shop.candidate(ALONE, shop.trained(ALONE))))
            table = shop.holdout_table(model)
            start = shop.holdout_table(shop.with_network(shop.trained("shared")))
        place, there = shop.names.index(METRIC), table[:, 0] > 0
        yield _public(folder) | {
            "site": name,
            "consumers": size,
            METRIC: round(float(table[there, place].mean()), 4),
            "untrained": round(float(start[there, place].mean()), 4),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--cells", type=Path, default=CELLS)
    parser.add_argument("--only", nargs="*", default=[], help="parts of `log, kind, schedule, epsilon`")
    parser.add_argument("--fit", action="store_true", help="fit the kept cells, measure nothing")
    parser.add_argument("--write", action="store_true", help="put the constants into the program")
    parser.add_argument("--markdown", type=Path, help="document that gets the table of errors")
    words = parser.parse_args()
    if words.fit:
        print(report(read(words.cells), words.markdown, write=words.write))
    else:
        main(smoke=words.smoke, cells=None if words.smoke else words.cells, only=words.only)
