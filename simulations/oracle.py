"""What only a simulation can know, computed in worker processes from all sites' data: *oracle* numbers.

The ServerApp never sees them and they do not exist in a deployment. Every function here is a job of the
worker pool: plain data in, plain data out, so the parent process never imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.run import RunPlan
from common.trust import COORDINATOR, Identity
from simulations.tasks.half import oracle_of


def initial_model(settings: str, features: str, start_from: str = "", names: Sequence[str] = ()) -> dict[str, Any]:
    """Parameters before round 1, from the seed, the items' names or an earlier model, and how they lie in the vector.

    Shapes: ``vector: float32[d]`` bytes; ``item_of: int32[d]`` bytes, the catalogue row of a coordinate or -1.
    """
    from common.data import FeatureSpec
    from common.model import FlatParameters, SequenceModel
    from common.model.item_names import begin_with_names
    from common.model.run_model import item_rows_of, run_model
    from common.model.transfer import adopt
    from common.run import build_config

    model = run_model(build_config(json.loads(settings)), features)
    if isinstance(model, SequenceModel):
        begin_with_names(model, names)
    if start_from and isinstance(model, SequenceModel):
        adopt(model, Path(start_from), FeatureSpec.from_json(json.loads(features)))
    return {"vector": FlatParameters(model).numpy().tobytes(), "item_of": item_rows_of(model).tobytes()}


def write_model(folder: str, plan_json: str, vector: bytes, facts: dict[str, Any], run: str = "") -> None:
    """Write a model of a run, signed, into a folder of the run (itself if left out); the parent has no torch."""
    from server import result

    plan, parameters = RunPlan.from_json(plan_json), np.frombuffer(vector, dtype=np.float32)
    result.write_model(Path(folder), plan, parameters, facts, coordinator_of(Path(run or folder)))


def coordinator_of(folder: Path) -> Identity:
    """The coordinator of a simulated run: its key lies in the run folder."""
    from common.deployment import Kits

    return Identity.load(COORDINATOR, Kits(folder).coordinator.identity_key)


def hold_out_sums(kit: str, plan_json: str, vector: bytes) -> list[float]:
    """Exact metric sums of a model at one site, in the order of ``RunPlan.metrics``."""
    plan, parameters = RunPlan.from_json(plan_json), np.frombuffer(vector, dtype=np.float32).copy()
    return oracle_of(plan.task.name).hold_out_sums(kit, plan, parameters)


def trivial_baselines(kits: list[str], plan_json: str) -> dict[str, dict[str, float]]:
    """What needs no training, fitted on all training rows of all sites."""
    plan = RunPlan.from_json(plan_json)
    return oracle_of(plan.task.name).baselines(kits, plan)


def train_alone(kits: list[str], plan_json: str, noise_multiplier: float) -> list[float]:
    """Train on the pooled data of some sites; exact metric sums over those sites' hold-outs."""
    plan = RunPlan.from_json(plan_json)
    return oracle_of(plan.task.name).train_alone(kits, plan, noise_multiplier)
