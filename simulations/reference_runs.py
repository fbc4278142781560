"""The runs that a federation is compared with, trained in worker processes: *oracle* numbers.

central: all consumers in one place, no privacy. central-dp: one trusted place, with the noise that the
sum of the sites' noises has (sigma * sqrt(sites)): the fair private reference. local-only: each site alone
on its own consumers, no privacy, tested on its own hold-out.

All begin with the federation's first parameters and keep its schedule: the same rounds and local steps, a fresh
optimizer each round, the same moving average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.plan import RunPlan
from common.run.files import RunFolder
from simulations.workers import Done, WorkerPool

REFERENCES = CENTRAL, CENTRAL_DP, LOCAL_ONLY = "central", "central-dp", "local-only"
Progress = Callable[[int, int], None]  # references done, in all
_SECONDS = 0.5


def reference_runs(
    pool: WorkerPool,
    kits: Mapping[str, Path],
    plan: RunPlan,
    progress: Progress = lambda _done, _total: None,
    names: Sequence[str] = REFERENCES,
) -> dict[str, dict[str, float]]:
    """Train the named references and return their metrics. Nothing else may use the pool meanwhile."""
    everyone = [str(kit) for kit in kits.values()]
    noise = plan.noise_multiplier * math.sqrt(len(kits))
    wanted: list[tuple[str, list[str], float]] = []
    if CENTRAL in names:
        wanted.append((CENTRAL, everyone, 0.0))
    if CENTRAL_DP in names and noise and not plan.forecasts:
        wanted.append((CENTRAL_DP, everyone, noise))
    if LOCAL_ONLY in names:
        wanted += [(LOCAL_ONLY, [kit], 0.0) for kit in everyone]
    jobs = {pool.submit(train_alone, group, plan.to_json(), sigma): name for name, group, sigma in wanted}
    sums: dict[str, Any] = {}
    done: list[Done] = []
    while len(done) < len(jobs):
        for finished in pool.collect(_SECONDS):
            name = jobs[finished.job]
            sums[name] = sums.get(name, 0.0) + np.array(finished.unwrap())
            done.append(finished)
            progress(len(done), len(jobs))
    return {name: plan.summarise(total) for name, total in sums.items()}


def train_alone(kits: list[str], plan_json: str, noise_multiplier: float) -> list[float]:
    """Train on the pooled training rows of some sites; exact metric sums over those sites' hold-outs."""
    from client.models import make_batcher
    from client.site import load_site
    from client.training.engines import make_engine
    from client.training.trainer import local_plan, seeded_stream, train_locally
    from common.trust.randomness import PrivateStream
    from server.state import ServerState
    from server.strategy import apply
    from simulations import sales
    from simulations.oracle import hold_out_sums, joined_rows, whole_model

    plan = RunPlan.from_json(plan_json)
    if plan.forecasts:
        return sales.train_alone(kits, plan)
    config = plan.config
    private = noise_multiplier > 0
    config = config.model_copy(update={"privacy": config.privacy.model_copy(update={"enabled": private})})
    sites = [load_site(Path(kit), simulated=True) for kit in kits]
    train = joined_rows([site.prepared(plan).train for site in sites])
    population = sum(plan.population(site.name) for site in sites)
    constants = local_plan(config, population, 1, noise_multiplier, plan.signal)
    engine = make_engine(whole_model(plan), make_batcher(train, config), config, "fast", 256)
    state = ServerState.initial(RunFolder(Path(kits[0]).parents[1]).initial(), b"")
    for number in range(1, config.training.rounds + 1):
        stream = (
            PrivateStream() if private else seeded_stream(config.seed, "+".join(s.name for s in sites), number)
        )
        update = train_locally(engine, state.parameters, constants, stream).update
        state = apply(state, update, config.strategy, constants.steps)
    return [
        float(x) for x in np.sum([hold_out_sums(kit, plan_json, state.average.tobytes()) for kit in kits], axis=0)
    ]
