"""The price of simulating: the Grid per exchange, rounds per minute at one and two workers, against Ray.

python -m benchmarks.simulation [--smoke]
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import RunConfig, build_config
from common.deployment import Kits
from common.run import Observer, RunFolder
from common.trust import Roster
from server.app import greet
from server.exchange import Exchange
from simulations.engines import run_apps
from simulations.run import simulate
from simulations.workers import WorkerPool


def main(*, smoke: bool) -> None:
    """Print all figures of this file."""
    for sites in (4,) if smoke else (10, 100, 1000):
        engines = (
            ("inprocess", "ray")
            if importlib.util.find_spec("ray") and sites <= 10 and not smoke
            else ("inprocess",)
        )
        _exchanges(sites, engines)
    _workers(smoke=smoke)
    if not smoke:
        _growth()


def _exchanges(sites: int, engines: Sequence[str]) -> None:
    """Milliseconds of one exchange without training: a greeting answered by every site."""
    with tempfile.TemporaryDirectory() as name:
        config = _tiny(sites)
        folder = Path(name) / "run"
        simulate(config, folder)
        for engine in engines:
            found = _time_greetings(folder, _tiny(sites, f"performance.engine={engine}"))
            print(
                json.dumps({"claim": "grid-exchange", "engine": engine, "sites": sites, "ms": round(found, 2)}),
                flush=True,
            )


def _time_greetings(out: Path, config: RunConfig, repeats: int = 7) -> float:
    folder, plan = RunFolder.open(out), RunFolder.open(out).plan()
    times: list[float] = []
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        nodes = greet(grid, plan, Roster.load(folder.path / "roster.json"), Observer())
        exchange = Exchange(grid, nodes)
        for _repeat in range(repeats):
            started = time.perf_counter()
            exchange.ask("hello", {site: {"run": plan.run} for site in nodes}, deadline_s=600, group="hello")
            times.append(1000 * (time.perf_counter() - started))

    kits = {site: {"site": str(Kits(out).site(site).path)} for site in plan.sites}
    with WorkerPool(2) as pool:
        run_apps(app, kits, {}, config, pool)
    return statistics.median(times[1:])


def _workers(*, smoke: bool) -> None:
    """Seconds per round of the default scenario at one and two workers, alternating."""
    sizes = ["data.consumers=400", "data.items=60", "training.local_steps=2"] if smoke else ["data.consumers=6000"]
    rounds = 1 if smoke else 3
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(1 if smoke else 2):
        for workers in (1, 2):
            found[workers] += _round_seconds(
                [*sizes, f"training.rounds={rounds}", f"performance.workers={workers}"]
            )
    medians = {workers: statistics.median(times) for workers, times in found.items()}
    line = {"claim": "workers", "seconds_per_round": medians, "speed_up": round(medians[1] / medians[2], 2)}
    print(json.dumps(line), flush=True)


def _growth() -> None:
    """Seconds per round as sites and parameters grow, everything else equal."""
    for overrides in (
        ["data.sites=4"],
        ["data.sites=8"],
        ["data.sites=16"],
        ["data.items=4000"],
        ["data.items=8000"],
    ):
        extra = ["aggregation.min_stockists=1", "features.max_items=8000"]
        seconds = _round_seconds([*overrides, *extra, "data.consumers=4000", "training.rounds=2"])
        print(
            json.dumps(
                {
                    "claim": "growth",
                    "settings": overrides,
                    "seconds_per_round": round(statistics.median(seconds), 3),
                }
            ),
            flush=True,
        )


def _round_seconds(overrides: Sequence[str]) -> list[float]:
    """Wall seconds of each training round but the first, which warms the workers' caches."""

    class Watch(Observer):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def round_done(self, record) -> None:  # type: ignore[no-untyped-def]
            if record.kind == "train":
                self.seconds.append(record.seconds)

    watch = Watch()
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(KeyError):
        simulate(build_config({}, overrides), Path(name) / "run", watch)
    return watch.seconds[1:] or watch.seconds


def _tiny(sites: int, *overrides: str) -> RunConfig:
    consumers = max(40 * sites, 400)
    return build_config(
        {},
        [
            f"data.sites={sites}",
            f"data.consumers={consumers}",
            "data.items=40",
            "data.split_by=consumers",
            "data.min_population=1",
            "training.rounds=1",
            "training.local_steps=1",
            "privacy.enabled=false",
            "aggregation.mode=plain",
            "aggregation.max_cohort=200",
            *overrides,
        ],
    )


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
