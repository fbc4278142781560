"""Quality of every task on every data set: central, federated, private, alone, trivial. One seed, *oracle* numbers.

    python -m benchmarks.tasks [--smoke] [--only PART ...] [--lines FILE] [--markdown FILE] [--read FILE]

Printed as JSON lines, one per scheme and data set. ``--markdown`` writes them as tables into a document, ``--lines``
keeps them, ``--read`` takes them from there and runs nothing. Real logs are used where FEDCART_DATA_DIR names them;
anomalies are injected, real logs have no labels.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import sales
from benchmarks._cpu import CpuMeter
from benchmarks._quality_table import write_table
from benchmarks._schemes import EPSILON, WITHOUT_PRIVACY, trained_schemes
from client.anomalies.detection import KindQuality, Thresholding, detect, evaluate
from client.scoring.model import open_model
from common.data import EventLog, load_events
from common.run import RunConfig, build_config
from common.strict_json import finite
from simulations.anomalies import inject
from simulations.run import simulate
from simulations.synthetic import SyntheticSpec, generate

ANOMALOUS = 0.05
HEADS = {"next-item": 1.0, "next-event": 0.1, "next-category": 0.1}
METHODS = ("hidden+forest", "hidden+lof", "own-history")
SYNTHETIC, RETAIL, JOURNEY = "synthetic", "Online Retail", "Complete Journey"
SHOWN = (
    *("intent_auc", "intent_ap", "intent_f1", "intent_precision", "intent_recall", "intent_accuracy"),
    *("intent_calibration", "recall@20", "mrr@20", "event_accuracy", "category_accuracy", "loss"),
)
Settings = dict[str, Any]
Line = dict[str, Any]


def main(*, smoke: bool) -> None:
    """Print all figures."""
    for line in measured(smoke=smoke):
        print(json.dumps(finite(line), allow_nan=False), flush=True)


def measured(*, smoke: bool, only: tuple[str, ...] = ()) -> Iterator[Line]:
    """Measure everything (or the parts whose ``task, data`` contains one of ``only``), a line as soon as it is known."""
    begin = time.perf_counter()
    with CpuMeter() as meter:
        for make, run in ((tasks, _task), (anomaly_logs, _anomalies)):
            for (task, data), tree in make(smoke=smoke).items():
                if not only or any(part in f"{task}, {data}" for part in only):
                    without = {} if smoke or task == "purchase intent" else WITHOUT_PRIVACY
                    yield from ({"task": task, "data": data, **line} for line in run(tree, without))
        for name in sales.tasks(smoke=smoke):
            if not only or any(part in name for part in only):
                yield from map(named, sales.rows(smoke=smoke, only=name))
        yield {"task": "all", "seconds": round(time.perf_counter() - begin), "cpu_s": round(meter.seconds)}


def tasks(*, smoke: bool) -> Mapping[tuple[str, str], Settings]:
    """Settings of each trained task and data set."""
    training = {"rounds": 1, "local_steps": 2} if smoke else {"rounds": 10, "local_steps": 10}
    small = {"consumers": 400, "items": 60, "sites": 3}
    common: Settings = {"training": training, "features": {"max_items": 1_000}}
    found: dict[tuple[str, str], Settings] = {
        ("next behaviour", SYNTHETIC): {**common, "data": small if smoke else {}, "model": {"heads": HEADS}}
    }
    for name, data, _ in () if smoke else real_logs():
        found["next behaviour", name] = {**common, "data": data, "model": {"heads": _known(HEADS, name)}}
    market = small if smoke else {"consumers": 12_000, "items": 500, "sites": 6}
    intent: Settings = {**common, "task": "purchase-intent", "model": {"dim": 16, "hidden": 16}}
    found["purchase intent", SYNTHETIC] = {**intent, "data": market, "intent": {"ask": "session", "after": 3}}
    for name, data, cut in () if smoke else real_logs():
        asked = {"ask": "days", "cut": cut, "horizon": 30}
        found["purchase intent", name] = {**intent, "data": data, "intent": asked}
    found["multi-task", SYNTHETIC] = {**common, "task": "multi-task", "data": market}
    return found


def real_logs() -> list[tuple[str, Settings, str]]:
    """Name, data settings and the public date of the question about 30 days, of each real log that is here."""
    folder = Path(os.environ.get("FEDCART_DATA_DIR", ""))
    dealt = {"split_by": "consumers", "sites": 4}
    known = (
        (RETAIL, "online-retail", folder / "online_retail" / "online_retail.csv.gz", "2011-11-09"),
        (JOURNEY, "complete-journey", folder / "complete_journey" / "transactions_sample.csv.gz", "2017-11-30"),
    )
    return [
        (name, {"events": str(log), "format": kind, **dealt}, cut)
        for name, kind, log, cut in known
        if log.is_file()
    ]


def _task(tree: Settings, without: Settings) -> Iterator[Line]:
    for scheme, metrics in trained_schemes(tree, without).items():
        yield {"scheme": scheme, **_rounded({key: metrics[key] for key in SHOWN if key in metrics})}


def anomaly_logs(*, smoke: bool) -> Mapping[tuple[str, str], Settings]:
    """Settings of the model behind each detector."""
    heads = {"next-item": 1.0, "next-event": 0.3, "next-category": 0.3}
    training = {"rounds": 1, "local_steps": 2} if smoke else {"rounds": 8, "local_steps": 15}
    sizes = {"consumers": 400, "items": 60, "sites": 3}
    if not smoke:
        # long histories: a takeover shows against the consumer's own past
        sizes = {"consumers": 3_000, "items": 500, "sites": 3, "events_per_consumer": 60}
    found: dict[tuple[str, str], Settings] = {
        ("anomalies", SYNTHETIC): {"data": sizes, "model": {"heads": heads}, "training": training}
    }
    for name, data, _ in () if smoke else real_logs():
        found["anomalies", name] = {
            "data": data,
            "model": {"heads": _known(heads, name)},
            "training": training,
            "features": {"max_items": 1_000},
        }
    return found


def _known(heads: Mapping[str, float], data: str) -> dict[str, float]:
    """The heads that a log can train: Online Retail has no categories."""
    return {head: weight for head, weight in heads.items() if data != RETAIL or "category" not in head}


def _anomalies(tree: Settings, _without: Settings) -> Iterator[Line]:
    for scheme, privacy in (
        ("federated", {"enabled": False}),
        (f"federated, epsilon {EPSILON:g}", {"epsilon": EPSILON}),
    ):
        config = build_config({**tree, "privacy": privacy})
        with tempfile.TemporaryDirectory() as folder:
            simulate(config, Path(folder) / "run")
            shared = open_model(Path(folder) / "run")
        log, labels = inject(_events(config), ANOMALOUS, seed=config.seed)
        known = {int(consumer): str(kind) for consumer, kind in labels.select("consumer", "kind").iter_rows()}
        rows = evaluate(detect(shared, log, Thresholding("cross-validated"), labels=known), known)
        for method in ("ours", *METHODS):
            yield {"scheme": scheme if method == "ours" else f"{method}, {scheme}", **_by_kind(rows, method)}


def _by_kind(rows: list[KindQuality], method: str) -> Line:
    """AUC of one method per kind, their mean, and for ours the quality of its alarms over all kinds."""
    auc = {row.kind: row.auc[method] for row in rows}
    kinds = {
        name: value
        for name, value in auc.items()
        if name in ("account-takeover", "bot", "brushing", "fake-reviews")
    }
    line = {"mean": statistics.mean(kinds.values()) if kinds else math.nan, **kinds}
    long_past = [value for name, value in auc.items() if "past events" in name]
    line |= {"takeover-50": long_past[0]} if long_past else {}
    if method == "ours":
        line |= {"precision": rows[-1].precision, "recall": rows[-1].recall, "f1": rows[-1].f1}
    return dict(_rounded(line))


def named(line: Line) -> Line:
    """A line of ``benchmarks.sales`` with its data set by itself."""
    task, found, data = line["task"].partition(", ")
    return {**line, "task": task, "data": data} if found else line


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


def _run(arguments: argparse.Namespace) -> None:
    """Measure or read the lines, show and keep them, and write the tables."""
    if arguments.read:
        lines = [named(json.loads(text)) for path in arguments.read for text in path.read_text().splitlines()]
    else:
        lines = []
        for line in measured(smoke=arguments.smoke, only=tuple(arguments.only)):
            lines.append(line)
            print(json.dumps(finite(line), allow_nan=False), flush=True)
            if arguments.lines:
                arguments.lines.write_text(
                    "".join(json.dumps(finite(known), allow_nan=False) + "\n" for known in lines)
                )
    if arguments.markdown:
        write_table(arguments.markdown, lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", nargs="*", default=[], help="parts of `task, data`")
    parser.add_argument("--lines", type=Path, help="file that keeps the lines")
    parser.add_argument("--read", type=Path, nargs="*", help="files of lines to make the tables from")
    parser.add_argument("--markdown", type=Path, help="document that the tables are written into")
    _run(parser.parse_args())
    sys.exit(0)
