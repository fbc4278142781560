"""What every table of quality compares: one task, trained centrally, federated, privately and alone, and its baselines."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.deployment import Kits
from common.run import RunFolder, build_config
from simulations.reference_runs import CENTRAL, LOCAL_ONLY, reference_runs
from simulations.run import simulate
from simulations.workers import WorkerPool

EPSILON = 3.0


WITHOUT_PRIVACY: Mapping[str, Any] = {
    "privacy": {"sampling_rate": 0.02},
    "training": {"optimizer": "adam", "learning_rate": 0.005, "rounds": 8, "local_steps": 50},
}
"""Without noise small batches and more steps learn more for the same work: the honest price of privacy."""


def trained_schemes(tree: Mapping[str, Any], without: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Train by the settings in every way and return the *oracle* metrics of each, trivial baselines last.

    ``without`` are settings for the schemes without privacy.
    """
    plain_tree = {**tree, **without, "privacy": {**without.get("privacy", {}), "enabled": False}}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        plain = simulate(build_config(plain_tree), out)
        plan = RunFolder.open(out).plan()
        with WorkerPool(os.cpu_count() or 1) as pool:
            kits = {site: Kits(out).site(site).path for site in plan.sites}
            references = reference_runs(pool, kits, plan, names=(CENTRAL, LOCAL_ONLY))
        private = simulate(build_config({**tree, "privacy": {"epsilon": EPSILON}}), Path(folder) / "private")
    return {
        CENTRAL: references[CENTRAL],
        "federated": plain.metrics["oracle"],
        f"federated, epsilon {EPSILON:g}": private.metrics["oracle"],
        LOCAL_ONLY: references[LOCAL_ONLY],
        **plain.baselines,
    }
