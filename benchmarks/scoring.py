"""Real-time scoring: events per second in batch, latency per event in a stream, and the exported variants.

    python -m benchmarks.scoring [--smoke]

One thread, one run, variants in turn (A B A B ...). Prints JSON lines. The model's weights do not matter for
speed: it is trained for one round.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from client.anomalies.likelihood import surprise
from client.scoring.export import export, onnx_available
from client.scoring.model import SharedModel, open_model
from client.scoring.stream import StreamEvent, StreamScorer
from common.data import EventLog
from common.run import RunConfig, build_config
from common.strict_json import finite
from simulations.run import simulate
from simulations.synthetic import SyntheticSpec, generate


def main(*, smoke: bool) -> None:
    """Print all figures."""
    torch.set_num_threads(1)
    for hidden in (16,) if smoke else (48, 128):
        with tempfile.TemporaryDirectory() as folder:
            config = _config(hidden, smoke=smoke)
            simulate(config, Path(folder) / "run")
            shared = open_model(Path(folder) / "run")
            _measure(shared, _log(config), Path(folder) / "small", smoke=smoke)


def _config(hidden: int, *, smoke: bool) -> RunConfig:
    sizes = {"consumers": 400, "items": 60, "sites": 3} if smoke else {"consumers": 4_000, "items": 2_000}
    return build_config(
        {
            "data": sizes,
            "model": {"dim": hidden, "hidden": hidden},
            "privacy": {"enabled": False},
            "training": {"rounds": 1, "local_steps": 2},
            "aggregation": {"mode": "plain"},
        }
    )


def _log(config: RunConfig) -> EventLog:
    data = config.data
    return generate(SyntheticSpec(sites=data.sites, consumers=data.consumers, items=data.items), config.seed).log


def _measure(shared: SharedModel, log: EventLog, folder: Path, *, smoke: bool) -> None:
    sequences = shared.sequences(log)
    facts = {"hidden": shared.model.settings.hidden, "items": shared.model.shape.sizes["item"] - 1}
    begin = time.perf_counter()
    surprise(shared, sequences)
    rate = len(sequences.timestamps) / (time.perf_counter() - begin)
    print(
        json.dumps(finite({"what": "batch", **facts, "events_per_second": round(rate)}), allow_nan=False),
        flush=True,
    )
    spent = _stream(shared, log, 300 if smoke else 5_000)
    found = {"p50_us": round(float(np.median(spent)), 1), "p99_us": round(float(np.percentile(spent, 99)), 1)}
    print(json.dumps(finite({"what": "stream", **facts, **found}), allow_nan=False), flush=True)
    variants, _ = export(shared, folder, sequences, onnx=onnx_available())
    for variant in variants:
        print(json.dumps(finite({"what": "step", **facts, **asdict(variant)}), allow_nan=False), flush=True)


def _stream(shared: SharedModel, log: EventLog, count: int) -> list[float]:
    """Microseconds of each push, consumers interleaved as they came."""
    scorer = StreamScorer(shared)
    frame = log.frame.sort("timestamp").head(count + 200)
    spent = []
    for number, row in enumerate(frame.iter_rows(named=True)):
        known = {name: row[name] for name in ("item", "category", "price")}
        event: StreamEvent = scorer.event(
            str(row["consumer"]), row["timestamp"].isoformat(), row["event"], **known
        )
        begin = time.perf_counter()
        scorer.push(event)
        if number >= 200:  # the first ones warm up
            spent.append((time.perf_counter() - begin) * 1e6)
    return spent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    main(smoke=parser.parse_args().smoke)
    sys.exit(0)
