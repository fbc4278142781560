"""``simulate``: prepare a federation on disk, run its ServerApp over simulated sites, sum it all up.

The parent process holds the server; sites live in worker processes. Oracle numbers are computed beside the
run and never reach the server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from client.site import load_site
from common.atomic import write_atomic
from common.config import RunConfig, load_config
from common.errors import BadInputError
from common.plan import RunPlan
from common.run.files import RunFolder
from common.run.records import INTERRUPTED, RUNNING, RoundRecord
from common.tasks.heads import SALES
from server.app import make_app, read_plan
from server.observer import RunObserver
from server.rounds import Outcome
from server.run_setup import make_plan, noise_of
from server.state import ServerState, latest_checkpoint, save_checkpoint
from simulations import facts as facts_of
from simulations import oracle
from simulations.engines import run_apps
from simulations.observer import Observer, RunFacts, Summary
from simulations.prepare import declared, make_federation, make_world
from simulations.reference_runs import INITIAL_MODEL, reference_runs
from simulations.sales import with_public_series
from simulations.workers import WorkerPool


@dataclass
class _Simulation:
    """One simulation under way."""

    config: RunConfig
    folder: RunFolder
    plan: RunPlan
    kits: dict[str, Path]
    pool: WorkerPool
    observer: Observer


def simulate(config: RunConfig, out: Path, observer: Observer | None = None, *, resume: bool = False) -> Summary:
    """Run a whole federation on this machine and return its summary.

    ``resume`` continues the run in ``out``; its settings are those of the folder, ``config`` adds speed only.
    Raises: BadInputError, ConfigError before the work; WorkFailedError if it cannot be finished, with the
    last good state kept. KeyboardInterrupt leaves a run that can be resumed.

    Example:
        >>> simulate(RunConfig(), Path("runs/first"))  # doctest: +SKIP
    """
    started, watcher = time.monotonic(), observer or Observer()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with WorkerPool(config.performance.workers or os.cpu_count() or 1) as pool:
        run = _reopen(config, out, pool, watcher) if resume else _prepare(config, out, pool, watcher)
        with _marked_interrupted(run.folder):
            outcome = _run(run)
            return _finish(run, outcome, time.monotonic() - started)


def _prepare(config: RunConfig, out: Path, pool: WorkerPool, observer: Observer) -> _Simulation:
    RunFolder.require_free(out)
    observer.progress(0, "events", 0, 3)
    world = make_world(config)
    if config.task == SALES:
        config = with_public_series(config, world.partition, world.catalogue)
    noise_of(config)  # make_plan finds it done: there is time, the workers are still importing
    observer.progress(0, "model", 1, 3)
    names = world.catalogue.names if world.catalogue else ()
    settings, features = config.public_json(), world.spec.canonical()
    initial = _job(pool, oracle.initial_model, settings, features, config.start_from, names)
    vector = np.frombuffer(initial["vector"], dtype=np.float32)
    plan = make_plan(config, declared(world), world.spec, vector.size)
    observer.progress(0, "sites", 2, 3)
    folder = RunFolder.create(out)  # nothing is written before everything is known to be possible
    item_of = np.frombuffer(initial["item_of"], dtype=np.int32)
    prepared = make_federation(folder, config, world, plan, item_of)
    save_checkpoint(folder.path / "checkpoints", ServerState.initial(vector, plan.digest()))
    write_atomic(folder.path / INITIAL_MODEL, vector.tobytes())
    run = _Simulation(config, folder, plan, prepared.kits, pool, observer)
    _announce(run, facts_of.run_facts(folder.path, config, plan, prepared.facts, world.data))
    return run


def _announce(run: _Simulation, facts: RunFacts) -> None:
    run.folder.write_json("sites.json", facts_of.to_json(facts))
    run.folder.write_json("summary.json", {"status": RUNNING})
    run.observer.prepared(facts)


def _reopen(config: RunConfig, out: Path, pool: WorkerPool, observer: Observer) -> _Simulation:
    folder = RunFolder.open(out)
    settings = load_config(out / "run.toml").model_copy(update={"performance": config.performance})
    plan = read_plan(folder)
    latest_checkpoint(out / "checkpoints")  # damaged: say so before anything starts
    kits = {site: out / "sites" / site for site in plan.sites}
    missing = [site for site, kit in kits.items() if not (kit / "site.toml").is_file()]
    if missing:
        raise BadInputError(f"the kit of site {missing[0]} is not in {out}", hint="the run folder is incomplete")
    for site, kit in kits.items():  # as `fedcart site start` does: void what never left
        if plan.config.privacy.enabled:
            load_site(kit, simulated=True, ledger_path=out / "ledgers" / f"{site}.jsonl").guard().restart()
    run = _Simulation(settings, folder, plan, kits, pool, observer)
    run.observer.prepared(facts_of.from_json(folder.read_json("sites.json")))
    return run


def _run(run: _Simulation) -> Outcome:
    outcomes: list[Outcome] = []
    nodes = {
        site: {"site": str(kit), "ledger": str(run.folder.path / "ledgers" / f"{site}.jsonl")}
        for site, kit in run.kits.items()
    }
    app = make_app(_Watcher(run), outcomes)
    server = {
        "run-folder": str(run.folder.path),
        "coordinator-key": str(run.folder.path / "coordinator" / "identity.key"),
    }
    run_apps(app, nodes, server, run.config, run.pool)
    return outcomes[0]


class _Watcher(RunObserver):
    """Passes the run's progress on, and fills in the oracle metrics that the server does not have."""

    def __init__(self, run: _Simulation) -> None:
        self._run = run

    def progress(self, round_number: int, phase: str, done: int, total: int) -> None:
        self._run.observer.progress(round_number, phase, done, total)

    def note(self, message: str) -> None:
        self._run.observer.note(message)

    def complete(self, record: RoundRecord, state: ServerState) -> RoundRecord:
        found = oracle_metrics(self._run.pool, self._run.kits, self._run.plan, state.average)
        inside = facts_of.diagnostics(self._run.kits, record.round) if record.kind == "train" else {}
        complete = replace(record, oracle=found | inside)
        self._run.observer.round_done(complete)
        return complete


def oracle_metrics(
    pool: WorkerPool, kits: dict[str, Path], plan: RunPlan, vector: np.ndarray[Any, np.dtype[np.float32]]
) -> dict[str, float]:
    """Exact metrics of a model over all hold-outs: *oracle*. Empty without a hold-out."""
    if not plan.evaluates:
        return {}
    jobs = [(oracle.hold_out_sums, (str(kit), plan.to_json(), vector.tobytes())) for kit in kits.values()]
    sums = np.sum([done.unwrap() for done in pool.run_all(jobs)], axis=0)
    return plan.summarise(sums)


def _finish(run: _Simulation, outcome: Outcome, seconds: float) -> Summary:
    folder, state = run.folder, outcome.state
    facts = {"rounds": state.round, "status": outcome.status, "private": run.plan.config.privacy.enabled}
    _job(run.pool, oracle.write_model, str(folder.path), run.plan.to_json(), state.average.tobytes(), facts)
    kits = [str(kit) for kit in run.kits.values()]
    baselines: dict[str, dict[str, float]] = {}
    if run.plan.evaluates:
        baselines = _job(run.pool, oracle.trivial_baselines, kits, run.plan.to_json())
    if run.config.baselines and baselines:
        say = partial(run.observer.progress, 0, "references")
        baselines |= reference_runs(run.pool, run.kits, run.plan, say)
    records = folder.metrics()
    summary = facts_of.summarise_run(folder, run.plan, outcome, records, baselines, seconds)
    folder.write_json("summary.json", asdict(summary))
    run.observer.finished(summary)
    return summary


def _job(pool: WorkerPool, function: Callable[..., Any], *arguments: Any) -> Any:
    return next(pool.run_all([(function, arguments)])).unwrap()


@contextmanager
def _marked_interrupted(folder: RunFolder) -> Iterator[None]:
    """Leave a summary that says so if the run ends before its end."""
    try:
        yield
    except BaseException:
        folder.write_json("summary.json", {"status": INTERRUPTED})
        raise
