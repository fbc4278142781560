"""The price of simulating: the Grid per exchange, a site's round outside of training, rounds at one and two workers; Ray.

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
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

import simulations.run
from common.deployment import Kits
from common.run import Observer, RunConfig, RunFolder, build_config, read_toml
from common.strict_json import finite
from common.trust import Roster
from server.app import greet
from server.exchange import Exchange
from simulations.engines import run_apps
from simulations.jobs import scenario_path
from simulations.run import simulate
from simulations.workers import Done, Shared, WorkerPool


def main(*, smoke: bool) -> None:
    """Print all figures of this file."""
    for sites in (4,) if smoke else (10, 100, 1000):
        engines = (
            ("inprocess", "ray")
            if importlib.util.find_spec("ray") and sites <= 10 and not smoke
            else ("inprocess",)
        )
        _exchanges(sites, engines)
    _site_round(smoke=smoke)
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
                json.dumps(
                    finite({"claim": "grid-exchange", "engine": engine, "sites": sites, "ms": round(found, 2)}),
                    allow_nan=False,
                ),
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


class _InThisProcess:
    """In place of a ``WorkerPool``: jobs run here and now, so that this process's clock sees all of a run."""

    def __init__(self, _size: int) -> None:
        self._done: list[Done] = []
        self._jobs = 0

    def __enter__(self) -> _InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is to be ended."""

    def submit(self, function: Callable[..., Any], *arguments: Any, home: str = "") -> int:  # noqa: ARG002
        plain = [a.value if isinstance(a, Shared) else a for a in arguments]
        self._jobs += 1
        self._done.append(Done(self._jobs, function(*plain)))
        return self._jobs

    def collect(self, _timeout_s: float) -> list[Done]:
        ready, self._done = self._done, []
        return ready

    def run_all(
        self, jobs: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], _homes: Any = ()
    ) -> Iterator[Done]:
        for function, arguments in jobs:
            self.submit(function, *arguments)
            yield from self.collect(0)


def _site_round(*, smoke: bool) -> None:
    """CPU milliseconds of one site in one round of the reference job, without its training; the server's part is in it."""
    import client.training.trainer as trainer

    trained, marks, true = [0.0], [], trainer.train_locally

    def timed(*arguments: Any) -> Any:
        began = time.process_time()
        try:
            return true(*arguments)
        finally:
            trained[0] += time.process_time() - began

    class Watch(Observer):
        def round_done(self, _record) -> None:  # type: ignore[no-untyped-def]
            marks.append(time.process_time() - trained[0])

    sizes = ["data.items=50", "data.consumers=800", "training.local_steps=1"] if smoke else []
    config = build_config(read_toml(scenario_path("reference")), sizes)
    timer = mock.patch.object(trainer, "train_locally", timed)
    here = mock.patch.object(simulations.run, "WorkerPool", _InThisProcess)
    with tempfile.TemporaryDirectory() as name, timer, here:
        simulate(config, Path(name) / "run", Watch())
    each = [1000 * (after - before) / config.data.sites for before, after in pairwise(marks)]
    print(
        json.dumps(
            finite({"claim": "site-round", "ms_outside_training": round(statistics.median(each), 2)}),
            allow_nan=False,
        ),
        flush=True,
    )


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
    print(json.dumps(finite(line), allow_nan=False), flush=True)


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
                finite(
                    {
                        "claim": "growth",
                        "settings": overrides,
                        "seconds_per_round": round(statistics.median(seconds), 3),
                    }
                ),
                allow_nan=False,
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
