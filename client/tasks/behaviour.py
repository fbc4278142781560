"""The site's half of tasks on consumers: private training on one part of them, noised metrics on the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from client.models import engine_of, measured_of
from client.site import Question, Site
from common.contribution import EVALUATE, METRICS, TRAIN, UPDATE, Release

if TYPE_CHECKING:
    from common.trust.randomness import RandomStream


def train(site: Site, question: Question) -> Sequence[Release]:
    """The local steps of a round from the incoming model, and the metrics of that model."""
    from client.training.trainer import local_plan, train_locally
    from common.trust.randomness import PrivateStream

    plan, config = question.plan, question.plan.config
    rows, engine = engine_of(site, plan, question.speed)
    constants = local_plan(config, plan.population(site.name), plan.cohort, plan.noise_multiplier, plan.signal)
    stream = PrivateStream() if constants.private else _seeded(site, question)
    result = train_locally(engine, rows.restrict(question.model), constants, stream)
    site.note_locally({"round": question.query.round, "kind": TRAIN, **result.diagnostics.summary()})
    update = Release(UPDATE, rows.expand(result.update), result.events)
    return [update.scaled(plan.weight(site.name)), *evaluate(site, question)]


def evaluate(site: Site, question: Question) -> Sequence[Release]:
    """Bounded metric sums of the incoming model on the part of the held-out consumers whom the question reads, noised if the
    run is private; zeros where nobody is held out."""
    from client.training import evaluation
    from common.trust.randomness import PrivateStream

    plan, config = question.plan, question.plan.config
    if config.privacy.holdout <= 0:
        return [Release(METRICS, np.zeros(len(plan.metrics)), ())]
    asked = plan.measured(question.query.kind)
    model, rows = measured_of(site, plan, question.model, question.query.kind)
    noise = asked.noise if config.privacy.enabled else 0.0
    draw = evaluation.MetricNoise(noise, asked.side, config.privacy.noise == "hardened")
    return [evaluation.evaluate(model, rows, draw, PrivateStream())]


def row_targets(_config: Any, _sequences: Any) -> None:
    """Every target is a step's own next event."""


ANSWERS = {TRAIN: train, EVALUATE: evaluate}


def _seeded(site: Site, question: Question) -> RandomStream:
    from client.training.trainer import seeded_stream

    return seeded_stream(question.plan.config.seed, site.name, question.query.round)
