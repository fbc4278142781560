"""``simulate``: prepare a federation on disk, run its ServerApp over simulated sites, sum it all up.

The parent process holds the server; sites live in worker processes. Oracle numbers are computed beside the
run and never reach the server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import simulations.advice as advice_of
import simulations.facts as facts_of
import simulations.oracle as oracle
import simulations.own_data as own_data
from client.site import load_site
from common.contribution import TRAIN
from common.deployment import Kits, SiteKit
from common.errors import BadInputError
from common.run import (
    FAILED,
    Observer,
    RoundRecord,
    RunConfig,
    RunFacts,
    RunFolder,
    RunPlan,
    Summary,
    interrupted,
    require_free,
)
from server.app import make_app
from server.result import close_run, result_of_run, summarise_run
from server.rounds import Outcome
from server.run_setup import make_plan, noise_of_sums, remark_on
from server.state import ServerState, latest_checkpoint, save_checkpoint
from simulations.carried import spent_before
from simulations.engines import run_apps
from simulations.prepare import constant_features, deal_data, declared, make_federation
from simulations.reference_runs import reference_runs
from simulations.tasks.half import oracle_of
from simulations.workers import Shared, WorkerPool

ORACLE_ROUNDS = 20  # enough for a curve


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
    require_free(out)
    observer.progress(0, "events", 0, 3)
    world = deal_data(config, lambda lines: observer.progress(0, f"events, {lines:,} lines read", 0, 3))
    config = world.config.without(constant_features(world))
    config = oracle_of(config.task).fill_in(config, world.partition, world.catalogue)
    noise_of_sums(config)  # make_plan finds it done: there is time, the workers are still importing
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
    save_checkpoint(folder.checkpoints, ServerState.initial(vector, plan.digest()))
    folder.write_initial(vector)
    run = _Simulation(config, folder, plan, prepared.kits, pool, observer)
    if remark := remark_on(plan):
        observer.note(remark)
    facts = facts_of.run_facts(folder.path, config, plan, prepared.facts, world.data)
    _announce(run, facts_of.going_on(facts, prepared.earlier, prepared.with_run))
    return run


def _announce(run: _Simulation, facts: RunFacts) -> None:
    run.folder.write_facts(facts)
    run.folder.begin()
    run.observer.prepared(facts)


def _reopen(config: RunConfig, out: Path, pool: WorkerPool, observer: Observer) -> _Simulation:
    folder = RunFolder.open(out)
    settings = folder.settings().model_copy(update={"performance": config.performance})
    plan = folder.plan()
    latest_checkpoint(folder.checkpoints)  # damaged: say so before anything starts
    kits = {site: Kits(out).site(site).path for site in plan.sites}
    missing = [site for site, kit in kits.items() if not SiteKit(kit).settings.is_file()]
    if missing:
        raise BadInputError(f"the kit of site {missing[0]} is not in {out}", hint="the run folder is incomplete")
    for site, kit in kits.items():  # as `fedcart site start` does: void what never left
        if plan.config.privacy.enabled:
            load_site(kit, simulated=True, ledger_path=folder.ledger(site)).guard().restart()
    run = _Simulation(settings, folder, plan, kits, pool, observer)
    facts = folder.facts()
    if facts is None:
        raise BadInputError(f"{out} does not say who takes part", hint="the run folder is incomplete")
    run.observer.prepared(facts)
    return run


def _run(run: _Simulation) -> Outcome:
    outcomes: list[Outcome] = []
    nodes = {site: {"site": str(kit), "ledger": str(run.folder.ledger(site))} for site, kit in run.kits.items()}
    app = make_app(run.observer, outcomes, partial(_measured, run))
    server = {
        "run-folder": str(run.folder.path),
        "coordinator-key": str(Kits(run.folder.path).coordinator.identity_key),
    }
    run_apps(app, nodes, server, run.config, run.pool)
    return outcomes[0]


def _measured(run: _Simulation, record: RoundRecord, state: ServerState) -> RoundRecord:
    """The record with the oracle metrics that the server does not have."""
    due = record.kind != TRAIN or oracle_is_due(record.round, run.config)
    exact = oracle_metrics(run.pool, run.kits, run.plan, state.average) if due else {}
    inside = facts_of.diagnostics(run.kits, record.round) if record.kind == TRAIN else {}
    return replace(record, oracle=exact | inside)


def oracle_is_due(number: int, config: RunConfig) -> bool:
    """Whether a round gets exact metrics: the first, the last, and every so many between.

    They cost a pass over all hold-outs."""
    rounds = config.training.rounds
    every = config.oracle_every or max(1, rounds // ORACLE_ROUNDS)
    return number in (1, rounds) or number % every == 0


def oracle_metrics(
    pool: WorkerPool, kits: dict[str, Path], plan: RunPlan, vector: np.ndarray[Any, np.dtype[np.float32]]
) -> dict[str, float]:
    """Exact metrics of a model over all hold-outs: *oracle*. Empty without a hold-out."""
    if not plan.evaluates:
        return {}
    model, asked = Shared(vector.tobytes()), plan.to_json()
    jobs = [(oracle.hold_out_sums, (str(kit), asked, model)) for kit in kits.values()]
    sums = np.sum([done.unwrap() for done in pool.run_all(jobs, [str(kit) for kit in kits.values()])], axis=0)
    return plan.summarise(sums)


def _finish(run: _Simulation, outcome: Outcome, seconds: float) -> Summary:
    folder, plan = run.folder, run.plan
    kits = [str(kit) for kit in run.kits.values()]
    baselines: dict[str, dict[str, float]] = {}
    remarks: list[str] = []
    if outcome.status != FAILED:
        remarks += _write_models(run, outcome)
        if plan.evaluates:
            baselines = _job(run.pool, oracle.trivial_baselines, kits, plan.to_json())
    if run.config.baselines and baselines:
        say = partial(run.observer.progress, 0, "references")
        baselines |= reference_runs(run.pool, run.kits, plan, say)
    last = folder.metrics()[-1:]
    if last:
        remarks += oracle_of(plan.task.name).remarks(last[0], baselines)
        remarks += advice_of.advice(plan, last[0].oracle, baselines)
    if run.config.baselines and baselines:
        rows = own_data.own_data_table(
            run.pool,
            run.kits,
            plan,
            outcome.state.average.tobytes(),
            partial(run.observer.progress, 0, "own data"),
        )
        folder.write_own_data(rows)
        remarks += own_data.remarks_on(rows)
    summary = replace(summarise_run(folder, plan, outcome, seconds, remarks), baselines=baselines)
    close_run(folder, summary, oracle.coordinator_of(folder.path))
    run.observer.finished(summary)
    return summary


def _write_models(run: _Simulation, outcome: Outcome) -> list[str]:
    """Write the last model, and the best one where it is another; return what is to be said of that."""
    folder, plan = run.folder, run.plan
    made, before = result_of_run(folder, plan, outcome), spent_before(folder, plan)
    last = str(folder.path), plan.to_json(), made.last.tobytes(), made.facts | before
    _job(run.pool, oracle.write_model, *last)
    if made.best is None:
        return []
    best = str(folder.best_model), plan.to_json(), made.best.tobytes(), made.best_facts | before
    _job(run.pool, oracle.write_model, *best, str(folder.path))
    return [made.remark]


def _job(pool: WorkerPool, function: Callable[..., Any], *arguments: Any) -> Any:
    return next(pool.run_all([(function, arguments)])).unwrap()


@contextmanager
def _marked_interrupted(folder: RunFolder) -> Iterator[None]:
    """Leave a summary that says so if the run ends before its end."""
    try:
        yield
    except BaseException:
        folder.write_summary(interrupted(folder.metrics()))
        raise
