"""What only a simulation can know, computed in worker processes from all sites' data: *oracle* numbers.

The ServerApp never sees them and they do not exist in a deployment. Every function here is a job of the
worker pool: plain data in, plain data out, so the parent process never imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.plan import RunPlan

if TYPE_CHECKING:
    from common.data.sequences import ConsumerSequences
    from common.model.network import SequenceModel


def initial_model(settings: str, features: str, start_from: str = "", names: Sequence[str] = ()) -> dict[str, Any]:
    """Parameters before round 1, from the seed, the items' names or an earlier model, and how they lie in the vector.

    Shapes: ``vector: float32[d]`` bytes; ``item_of: int32[d]`` bytes, the catalogue row of a coordinate or -1.
    """
    from common.config import build_config
    from common.data.features import FeatureSpec
    from common.model.item_names import begin_with_names
    from common.model.network import SequenceModel
    from common.model.parameters import FlatParameters
    from common.model.run_model import item_rows_of, run_model
    from common.model.transfer import adopt

    model = run_model(build_config(json.loads(settings)), features)
    if isinstance(model, SequenceModel):
        begin_with_names(model, names)
    if start_from and isinstance(model, SequenceModel):
        adopt(model, Path(start_from), FeatureSpec.from_json(json.loads(features)))
    return {"vector": FlatParameters(model).numpy().tobytes(), "item_of": item_rows_of(model).tobytes()}


def whole_model(plan: RunPlan) -> SequenceModel:
    """The shared sequence model with every item row, at its initial parameters."""
    from common.data.features import FeatureSpec
    from common.model.network import ModelShape, build_model

    config = plan.config
    shape = ModelShape(FeatureSpec.from_json(json.loads(plan.features)).sizes)
    return build_model(config.model, shape, config.seed)


def write_model(folder: str, plan_json: str, vector: bytes, facts: dict[str, Any]) -> None:
    """Write the model of a run; a job of a worker, since the parent has no torch."""
    from server import result

    result.write_model(Path(folder), RunPlan.from_json(plan_json), np.frombuffer(vector, dtype=np.float32), facts)


def hold_out_sums(kit: str, plan_json: str, vector: bytes) -> list[float]:
    """Exact metric sums of a model on one site's hold-out, or its exact series, in the order of ``RunPlan.metrics``."""
    from client.models import holdout_of
    from client.site import load_site
    from client.training.evaluation import metric_sums
    from simulations.sales import exact_sums

    plan, parameters = RunPlan.from_json(plan_json), np.frombuffer(vector, dtype=np.float32).copy()
    if plan.forecasts:
        return exact_sums(kit, plan, parameters)
    sums = metric_sums(*holdout_of(load_site(Path(kit), simulated=True), plan, parameters))
    return [float(value) for value in sums]


def trivial_baselines(kits: list[str], plan_json: str) -> dict[str, dict[str, float]]:
    """Popularity, Markov, item-kNN, repeat-last and majority, fitted on all training rows of all sites.

    For purchase intent the share of buyers, the consumer's own rate, and gradient-boosted trees.
    """
    from client.models import make_batcher
    from client.site import load_site
    from common.data.features import FeatureSpec
    from common.model.baselines import evaluate_baselines, fit
    from common.model.intent_baselines import evaluate_intent_baselines
    from common.model.targets import INTENT, row_targets
    from simulations.sales import trivial_forecasts

    plan = RunPlan.from_json(plan_json)
    if plan.forecasts:
        return trivial_forecasts(kits, plan)
    sizes = FeatureSpec.from_json(json.loads(plan.features)).sizes
    parts = [load_site(Path(kit), simulated=True).prepared(plan) for kit in kits]
    train, held = joined_rows([p.train for p in parts]), joined_rows([p.holdout for p in parts])
    found: dict[str, dict[str, float]] = {}
    if "next-item" in plan.config.model.heads:
        counts = fit(train, sizes["item"])
        found = evaluate_baselines(counts, make_batcher(held, plan.config))
    asked = row_targets(plan.config, train), row_targets(plan.config, held)
    if INTENT in plan.config.model.heads and asked[0] is not None and asked[1] is not None:
        for name, metrics in evaluate_intent_baselines((train, asked[0]), (held, asked[1])).items():
            found[name] = found.get(name, {}) | metrics
    return found


def joined_rows(parts: list[ConsumerSequences]) -> ConsumerSequences:
    """Rows of several sites one after another; a consumer seen at two sites is two rows."""
    from common.data.sequences import ConsumerSequences

    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("consumers", "integers", "numeric", "timestamps")
    }
    return ConsumerSequences(offsets=offsets, **joined)
