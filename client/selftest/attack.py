"""An attack on the engine that trains: a lower bound on epsilon beside the accountant's upper bound."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import client.selftest.people as people
import client.training.trainer as trainer
from client.selftest.one_run_audit import OneRunAudit, audit_scores
from client.training.gradients import GradientEngine

CANARIES = 5_000
SIGMA = 1.0  # epsilon about 4.4: here half the noise shows
DELTA = 1e-5


def empirical_audit(canaries: int = CANARIES) -> OneRunAudit:
    """Attack one private training step of the real engine with consumers made for it.

    Every canary is a consumer whose first event is an item of their own, so nearly all of their gradient lies in that
    item's row, where nobody else's does; each is in or out by a fair coin, and all that are in take part.
    """
    from client.selftest.draws import plan_of
    from common.privacy import PldAccountant
    from common.trust.randomness import PrivateStream

    included = np.random.default_rng().random(canaries) < 0.5
    engine = _canaries(canaries, included)
    start = engine.parameters.numpy()
    plan = plan_of(1, population=10.0, sampling_rate=1.0, noise_multiplier=SIGMA)
    result = trainer.train_locally(engine, start, plan, PrivateStream())
    offset, shape = engine.parameters.layout.entries["item.weight"]
    rows = (
        -result.update[offset : offset + int(np.prod(shape))].reshape(shape)[1 : canaries + 1].astype(np.float64)
    )
    scores = rows @ _direction(engine).astype(np.float64)
    accountant = PldAccountant(result.events, discretization=1e-4)
    return audit_scores(scores, included, upper=accountant.epsilon(DELTA), delta=DELTA)


def _canaries(canaries: int, included: np.ndarray) -> GradientEngine:
    from client.training.dpsgd.engine import TapeEngine
    from common.model import Batcher, ModelShape, build_model

    config = people.config_of(
        {"model": {"heads": {"next-item": 1.0}, "context": [], "tied": False, "copy_bonus": 0.0}}
    )
    model = build_model(config.model, ModelShape({"item": canaries + 3}), seed=1)
    with torch.no_grad():
        model.item.weight.mul_(1e-4)  # what else depends on the input is small beside the input's own row
        model.encoder.get_parameter("bias_ih_l0")[
            3 * config.model.hidden :
        ] = -30.0  # output gate shut: the encoder adds nothing
        out: nn.Linear = model.get_submodule("heads.next-item.linear")  # type: ignore[assignment]
        out.weight.zero_()
        out.weight[canaries + 1] = 30.0
    who = np.flatnonzero(included) + 1
    integers = np.stack([who, np.full(len(who), canaries + 1)], axis=1).reshape(-1, 1).astype(np.int32)
    offsets = np.arange(len(who) + 1, dtype=np.int64) * 2
    sequences = people.ConsumerSequences(
        who.astype(np.uint64), offsets, integers, np.zeros((len(integers), 0), dtype=np.float32),
        np.arange(len(integers), dtype=np.int64), ("item",), (),
    )  # fmt: skip
    return TapeEngine(model, Batcher(sequences, ["next-item"]), people.CLIP, 64)


def _direction(engine: GradientEngine) -> np.ndarray:
    """Where a canary's gradient points in its own row: the attacker knows the model."""
    offset, shape = engine.parameters.layout.entries["item.weight"]
    total, _ = engine.clipped_sum(np.arange(min(1, engine.consumers)))
    rows = total[offset : offset + int(np.prod(shape))].reshape(shape).numpy()
    strongest = rows[np.abs(rows).sum(1).argmax()]
    unit: np.ndarray = strongest / max(float(np.linalg.norm(strongest)), 1e-30)
    return unit
