"""The runs that a federation is compared with, trained in worker processes: *oracle* numbers.

central: all consumers in one place, no privacy. central-dp: one trusted place, with the noise that the
sum of the sites' noises has (sigma * sqrt(sites)): the fair private reference. local-noise and quorum-noise: the same steps
with the noise that the sum would have under the other kind of trust, at the same epsilon. local-only: each site alone on its own
consumers, no privacy, tested on its own hold-out.

All begin with the federation's first parameters and keep its schedule: the same rounds and local steps, a fresh
optimizer each round, the same moving average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.run import RunPlan
from simulations.oracle import train_alone
from simulations.tasks.half import oracle_of
from simulations.workers import Done, WorkerPool

REFERENCES = CENTRAL, CENTRAL_DP, LOCAL_ONLY = "central", "central-dp", "local-only"
LOCAL_NOISE, QUORUM_NOISE = "local-noise", "quorum-noise"
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
    if CENTRAL_DP in names and noise and oracle_of(plan.task.name).NOISED_REFERENCE:
        wanted.append((CENTRAL_DP, everyone, noise))
        wanted += [(name, everyone, noise * factor) for name, factor in _other_trust(plan)]
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


def _other_trust(plan: RunPlan) -> list[tuple[str, float]]:
    """Name of the other kind of trust, and how many times the noise of this run's sum a sum would have under it.

    The same epsilon against whom each holds; none where these sites cannot share noise.
    """
    if plan.quorum:
        return [(LOCAL_NOISE, math.sqrt(plan.quorum.honest))]
    honest = plan.could_share
    return [(QUORUM_NOISE, 1 / math.sqrt(honest))] if honest else []
