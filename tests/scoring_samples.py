"""A small marketplace, a model folder as a run leaves it, and an event file, for tests of local use."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from common.data.catalogue import Catalogue, write_catalogue
from common.data.events import EventLog
from common.data.features import feature_spec
from common.data.sequences import build_sequences
from common.data.writing import write_frame
from common.model.batch import Batcher
from common.model.network import ModelShape, build_model
from common.model.parameters import FlatParameters
from common.model.targets import row_targets
from common.run import RunConfig, RunPlan, build_config
from server.result import write_model
from simulations.synthetic import SyntheticMarket, SyntheticSpec, generate
from tests.guard_samples import COORDINATOR

HEADS = {"next-item": 1.0, "next-event": 0.5, "next-category": 0.5, "purchase-intent": 1.0}
TREE = {
    "task": "multi-task",
    "seed": 3,
    "privacy": {"enabled": False},
    "model": {"dim": 12, "hidden": 12, "heads": HEADS},
    "features": {"max_events": 40},
}


_trained: dict[tuple[str, int, int], np.ndarray] = {}  # test modules share what was trained once


@cache
def market(anomalies: float = 0.0) -> SyntheticMarket:
    """A tiny marketplace of one merchant."""
    spec = SyntheticSpec(sites=1, consumers=160, items=40, categories=8, tastes=4, anomalies=anomalies)
    return generate(spec, seed=5)


def config_of(**tree: object) -> RunConfig:
    """Settings of the sample model with some changed."""
    return build_config({**TREE, **tree})


def write_model_folder(
    folder: Path, config: RunConfig, catalogue: Catalogue | None, log: EventLog | None = None, steps: int = 0
) -> RunPlan:
    """Write a run's model files; with ``steps`` the model is trained a little on the log."""
    spec = feature_spec(catalogue, item_buckets=config.features.item_buckets)
    model = build_model(config.model, ModelShape(spec.sizes), config.seed)
    flat = FlatParameters(model)
    if log is not None and steps:
        key = (config.public_json(), id(log), steps)
        if key not in _trained:
            _train(config, model, log, steps, (spec, catalogue))
            _trained[key] = flat.numpy()
        flat.load(_trained[key])
    features = json.dumps(spec.to_json(), sort_keys=True, separators=(",", ":"))
    plan = RunPlan("sample", config.public_json(), (("merchant-1", 256),), features, flat.layout.size, 0.0, 0.0)
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, plan, flat.numpy(), {"rounds": 1}, COORDINATOR)
    if catalogue is not None:
        write_catalogue(catalogue, folder / "catalogue.json")
    return plan


def _train(config, model, log, steps, features) -> None:
    import torch

    sequences = build_sequences(log, *features, max_events=config.features.max_events)
    batcher = Batcher(sequences, list(config.model.heads), row_targets(config, sequences))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    rng = np.random.default_rng(0)
    torch.set_num_threads(1)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=False)
        model.losses(batcher.packed(rng.choice(len(batcher), 64, replace=False))).mean().backward()
        optimizer.step()


def original_name(pseudonym: int) -> str:
    """The id under which the sample file knows a consumer of the marketplace."""
    return f"c{pseudonym:016x}"


def write_events(log: EventLog, path: Path) -> Path:
    """Write a log as a file of the fedcart format, ids as text."""
    frame = log.frame
    ids = pl.Series([original_name(c) for c in frame["consumer"]], dtype=pl.String)
    write_frame(frame.with_columns(ids.alias("consumer")), path)
    return path
