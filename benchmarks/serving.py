"""Serving live: time per event and per top 20 inside the process, bytes per consumer, requests per second over HTTP.

    python -m benchmarks.serving [--smoke]

The engine and torch's step take turns on the same events (A B A B ...), on one thread. The client of the last part is
another process with plain sockets, one request after another on each of its connections. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from client.scoring.model import SharedModel, open_model
from client.scoring.stream import StreamScorer
from client.serving.live import LiveModel
from client.serving.loading import engine_of
from client.serving.row import Row
from client.serving.store import Store
from common.strict_json import finite
from simulations.run import simulate

from benchmarks.scoring import _config, _log  # isort: skip

KEY = bytes(32)
ROOT = Path(__file__).resolve().parents[1]


def main(*, smoke: bool) -> None:
    """Print all figures."""
    torch.set_num_threads(1)
    with threadpool_limits(1), tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        config = _config(16 if smoke else 48, smoke=smoke)
        simulate(config, folder)
        shared, lines = open_model(folder), _lines(config, 500 if smoke else 6_000)
        _say(what="event", items=shared.model.shape.sizes["item"] - 1, **_events(shared, lines))
        _say(what="top 20", **_top(2_000 if smoke else 50_000, 30 if smoke else 300))
        _say(what="memory", **_memory(shared, lines, 1_000 if smoke else 200_000))
        for clients in (1,) if smoke else (1, 8):
            _say(
                what="http",
                clients=clients,
                **_requests(folder, Path(name), lines, clients, 1.0 if smoke else 5.0),
            )


def _say(**figures: Any) -> None:
    print(json.dumps(finite(figures), allow_nan=False), flush=True)


def _lines(config: Any, count: int) -> list[dict[str, Any]]:
    """Events as they came, consumers interleaved."""
    frame = _log(config).frame.sort("timestamp").head(count)
    return [
        {
            "consumer": f"c{row['consumer']}", "timestamp": row["timestamp"].isoformat(), "event": row["event"],
            "item": row["item"], "category": row["category"], "price": row["price"] and f"{row['price']:.2f}",
        }
        for row in frame.iter_rows(named=True)
    ]  # fmt: skip


def _spread(seconds: list[float]) -> dict[str, float]:
    spent = np.array(seconds[len(seconds) // 10 :]) * 1e6  # the first ones warm up
    return {"p50_us": round(float(np.median(spent)), 1), "p99_us": round(float(np.percentile(spent, 99)), 1)}


def _events(shared: SharedModel, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Cleaning, encoding, scoring and remembering one event; ``cpu`` without what other processes took."""
    live, scorer = LiveModel(shared, engine_of(shared), capacity=100_000, key=KEY), StreamScorer(shared, key=KEY)
    spent: tuple[list[float], list[float], list[float]] = [], [], []
    for line in lines:
        begin, worked = time.perf_counter(), time.thread_time()
        live.push(*live.read(line))
        spent[0].append(time.perf_counter() - begin)
        spent[2].append(time.thread_time() - worked)
        begin = time.perf_counter()
        scorer.push(scorer.parse(line))
        spent[1].append(time.perf_counter() - begin)
    return {"engine": _spread(spent[0]), "engine_cpu": _spread(spent[2]), "torch": _spread(spent[1])}


def _top(items: int, repeats: int) -> dict[str, Any]:
    """The 20 best of so many items for one consumer, names included; weights do not matter for speed."""
    from common.data import feature_spec
    from common.model import ModelShape, build_model
    from tests.scoring_samples import config_of

    config = config_of(model={"dim": 48, "hidden": 48}, features={"item_buckets": items})
    model = build_model(config.model, ModelShape(feature_spec(None, item_buckets=items).sizes), 1)
    fake = type("Shared", (), {"model": model, "heads": tuple(model.settings.heads)})()
    engine, spent = engine_of(fake), list[float]()
    from client.serving.engine import Seen
    from client.serving.live import best

    seen = Seen(np.arange(1, 30, dtype=np.int64), (1, 2, 3), 0, 1)
    for _ in range(repeats):
        read = np.random.default_rng(1).normal(size=48).astype(np.float32)
        begin = time.perf_counter()
        best(engine.chances("next-item", read, seen).shares, 20)
        spent.append(time.perf_counter() - begin)
    return {"items": items, **_spread(spent)}


def _memory(shared: SharedModel, lines: list[dict[str, Any]], consumers: int) -> dict[str, Any]:
    """Resident bytes per consumer with 20 events each, by what the process grew."""
    live = LiveModel(shared, engine_of(shared), capacity=10, key=KEY)
    row, state = Row(), live.engine.first()
    for line in [line for line in lines if line["item"]][:20]:
        _, event = live.read(line | {"consumer": "c"})
        _, state = live._advanced(row, state, event)
    store, before = Store(consumers, live.engine.state_size), _resident()
    for number in range(consumers):
        store.put(number * 7_919_777_773 % 2**64, Row.unpack(row.pack()), state)
    grown, begin = _resident() - before, time.perf_counter()
    store.freeze()
    frozen_ms = round((time.perf_counter() - begin) * 1e3, 1)
    return {"consumers": consumers, "events_each": row.position, "bytes_each": round(grown / consumers),
            "said_each": round(store.size_bytes() / consumers), "freeze_ms": frozen_ms}  # fmt: skip


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _requests(
    folder: Path, home: Path, lines: list[dict[str, Any]], clients: int, seconds: float
) -> dict[str, Any]:
    """Requests per second of a service in its own process: an event, then a question, and so on."""
    command = [sys.executable, "-m", "cli.main", "serve", str(folder), "--port", "0", "--json"]
    command += ["--state", str(home / f"state-{clients}")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            port = int(json.loads(process.stdout.readline())["address"].rpartition(":")[2])
            spent: list[list[float]] = [[] for _ in range(clients)]
            threads = [
                threading.Thread(target=_client, args=(port, lines[n::clients], seconds, spent[n]))
                for n in range(clients)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            process.send_signal(signal.SIGTERM)
    every = [one for part in spent for one in part]
    return {"requests_per_second": round(len(every) / seconds), **_spread(every)}


def _client(port: int, lines: list[dict[str, Any]], seconds: float, spent: list[float]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    end, number, headers = time.monotonic() + seconds, 0, {"Content-Type": "application/json"}
    while time.monotonic() < end:
        line = lines[number % len(lines)]
        body = json.dumps(line, allow_nan=False)
        begin = time.perf_counter()
        if number % 2:
            connection.request("GET", f"/next/{line['consumer']}?k=20")
        else:
            connection.request("POST", "/events", body, headers)
        answer = connection.getresponse()
        answer.read()
        spent.append(time.perf_counter() - begin)
        assert answer.status == 200, answer.status
        number += 1
    connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    main(smoke=parser.parse_args().smoke)
    sys.exit(0)
