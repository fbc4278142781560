"""Quality of purchase intent, multi-task models and anomaly detection: central, federated, private, alone, trivial.

    python -m benchmarks.tasks [--smoke] [--only NAME]

One seed. Printed as JSON lines: one per scheme and data set. Real logs are used where FEDCART_DATA_DIR names them;
anomalies are injected, real logs have no labels.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.scoring.detection import Thresholding, detect, evaluate
from client.scoring.model import open_model
from common.config import RunConfig, build_config
from common.data.events import EventLog, load_events
from common.runfolder import RunFolder
from server.app import read_plan
from simulations.anomalies import inject
from simulations.reference_runs import CENTRAL, LOCAL_ONLY, reference_runs
from simulations.run import simulate
from simulations.synthetic import SyntheticSpec, generate
from simulations.workers import WorkerPool

EPSILON = 3.0
ANOMALOUS = 0.05
SHOWN = (
    *("intent_auc", "intent_ap", "intent_f1", "intent_precision", "intent_recall", "intent_accuracy"),
    *("intent_calibration", "recall@20", "mrr@20", "event_accuracy", "category_accuracy", "loss"),
)
Settings = dict[str, Any]


def main(*, smoke: bool, only: str = "") -> None:
    """Print all figures."""
    for name, tree in tasks(smoke=smoke).items():
        if only in name:
            _task(name, tree)
    for name, tree in anomaly_logs(smoke=smoke).items():
        if only in name:
            _anomalies(name, tree)


def tasks(*, smoke: bool) -> Mapping[str, Settings]:
    """Settings of each trained task and data set."""
    small = {"rounds": 1, "local_steps": 2}
    training = small if smoke else {"rounds": 10, "local_steps": 15}
    synthetic = (
        {"consumers": 400, "items": 60, "sites": 3} if smoke else {"consumers": 12_000, "items": 500, "sites": 6}
    )
    narrow = {"dim": 16, "hidden": 16}
    found: dict[str, Settings] = {
        "intent, synthetic": {
            "task": "purchase-intent",
            "data": synthetic,
            "model": narrow,
            "training": training,
            "intent": {"ask": "session", "after": 3},
        },
        "multi-task, synthetic": {"task": "multi-task", "data": synthetic, "training": training},
    }
    for name, data, cut in () if smoke else _real():
        asked = {"ask": "days", "cut": cut, "horizon": 30}
        found[f"intent, {name}"] = {
            "task": "purchase-intent",
            "data": data,
            "model": narrow,
            "training": training,
            "intent": asked,
            "features": {"max_items": 1_000},
        }
    return found


def _real() -> list[tuple[str, Settings, str]]:
    folder = Path(os.environ.get("FEDCART_DATA_DIR", ""))
    if not (folder / "online_retail").is_dir():
        return []
    retail = {"events": str(folder / "online_retail" / "online_retail.csv.gz"), "format": "online-retail"}
    found = [("Online Retail", {**retail, "split_by": "consumers", "sites": 4}, "2011-11-09")]
    for log in sorted((folder / "complete_journey").glob("*transactions*")):
        journey = {"events": str(log), "format": "complete-journey", "split_by": "consumers", "sites": 4}
        found.append(("Complete Journey", journey, "2017-11-30"))
        break
    return found


def _task(name: str, tree: Settings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        plain = simulate(build_config({**tree, "privacy": {"enabled": False}}), out)
        plan = read_plan(RunFolder.open(out))
        with WorkerPool(os.cpu_count() or 1) as pool:
            kits = {site: out / "sites" / site for site in plan.sites}
            references = reference_runs(pool, kits, plan, names=(CENTRAL, LOCAL_ONLY))
        private = simulate(build_config({**tree, "privacy": {"epsilon": EPSILON}}), Path(folder) / "private")
    schemes = {"federated": plain.metrics["oracle"], f"federated, epsilon {EPSILON:g}": private.metrics["oracle"]}
    for scheme, metrics in (schemes | references | plain.baselines).items():
        shown = _rounded({key: metrics[key] for key in SHOWN if key in metrics})
        print(json.dumps({"task": name, "scheme": scheme, **shown}), flush=True)


def anomaly_logs(*, smoke: bool) -> Mapping[str, Settings]:
    """Settings of the model behind each detector."""
    heads = {"next-item": 1.0, "next-event": 0.3, "next-category": 0.3}
    training = {"rounds": 1, "local_steps": 2} if smoke else {"rounds": 8, "local_steps": 15}
    sizes = {"consumers": 400, "items": 60, "sites": 3}
    if not smoke:
        # long histories: a takeover shows against the consumer's own past
        sizes = {"consumers": 3_000, "items": 500, "sites": 3, "events_per_consumer": 60}
    found: dict[str, Settings] = {
        "anomalies, synthetic": {"data": sizes, "model": {"heads": heads}, "training": training}
    }
    for name, data, _ in () if smoke else _real():
        # Online Retail has no categories
        known = {
            head: weight for head, weight in heads.items() if name != "Online Retail" or "category" not in head
        }
        found[f"anomalies, {name}"] = {
            "data": data,
            "model": {"heads": known},
            "training": training,
            "features": {"max_items": 1_000},
        }
    return found


def _anomalies(name: str, tree: Settings) -> None:
    for scheme, privacy in (("federated", {"enabled": False}), (f"epsilon {EPSILON:g}", {"epsilon": EPSILON})):
        config = build_config({**tree, "privacy": privacy})
        with tempfile.TemporaryDirectory() as folder:
            simulate(config, Path(folder) / "run")
            shared = open_model(Path(folder) / "run")
        log, labels = inject(_events(config), ANOMALOUS, seed=config.seed)
        known = {int(consumer): str(kind) for consumer, kind in labels.select("consumer", "kind").iter_rows()}
        found = detect(shared, log, Thresholding("cross-validated"), labels=known)
        for row in evaluate(found, known):
            print(json.dumps({"task": name, "scheme": scheme, **_rounded(asdict(row))}), flush=True)


def _events(config: RunConfig) -> EventLog:
    data = config.data
    if data.events:
        return load_events(data.events, data.format, secret=bytes(32))[0]
    spec = SyntheticSpec(
        sites=data.sites,
        consumers=data.consumers,
        items=data.items,
        events_per_consumer=data.events_per_consumer,
    )
    return generate(spec, config.seed).log


def _rounded(value: Any) -> Any:
    """Four digits; a number that JSON cannot hold is null."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", default="", help="part of a task's name")
    arguments = parser.parse_args()
    main(smoke=arguments.smoke, only=arguments.only)
    sys.exit(0)
