"""The site's half of tasks on consumers: private training on one part of them, noised metrics on the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from client.models import engine_of, measured_of
from client.site import Question, Site
from common.contribution import EVALUATE, METRICS, TRAIN, UPDATE, Block, Release
from common.privacy import TRAIN_SIDE
from common.tasks import largest_constants, noise_needs, scale_of

if TYPE_CHECKING:
    from common.privacy import Quorum
    from common.trust.randomness import RandomStream


def train(site: Site, question: Question) -> Sequence[Release]:
    """The local steps of a round from the incoming model, and the metrics of that model."""
    from client.training.trainer import local_plan, train_locally
    from common.trust.randomness import PrivateStream

    plan, config = question.plan, question.plan.config
    if plan.quorum:
        return [_shared_sum(site, question, plan.quorum), *evaluate(site, question)]
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
    from client.training.quorum import QuorumMechanism, Share
    from common.trust.randomness import PrivateStream

    plan, config = question.plan, question.plan.config
    if config.privacy.holdout <= 0:
        return [] if plan.quorum else [Release(METRICS, np.zeros(len(plan.metrics)), ())]
    asked = plan.measured(question.query.kind)
    model, rows = measured_of(site, plan, question.model, question.query.kind)
    if plan.quorum:
        needs = noise_needs(plan, question.query.kind, METRICS)
        share = Share(_block_of(question, METRICS), *needs, plan.quorum, asked.side)
        return [QuorumMechanism(share, PrivateStream()).release(evaluation.metric_sums(model, rows))]
    noise = asked.noise if config.privacy.enabled else 0.0
    draw = evaluation.MetricNoise(noise, asked.side, config.privacy.noise == "hardened")
    return [evaluation.evaluate(model, rows, draw, PrivateStream())]


def _shared_sum(site: Site, question: Question, quorum: Quorum) -> Release:
    """The clipped gradient sum of one sampled batch, downhill, with this site's share of the noise on every coordinate.

    Coordinates of items that the site does not stock are noised too: the noise of a row is that of all sites, whoever stocks it.
    """
    from client.training.quorum import QuorumMechanism, Share
    from client.training.trainer import LocalDiagnostics, one_thread, require_clip
    from common.trust.randomness import PrivateStream

    plan = question.plan
    rows, engine = engine_of(site, plan, question.speed)
    constants, block = largest_constants(plan), _block_of(question, UPDATE)
    scale = scale_of(constants)
    share = Share(block, *noise_needs(plan, TRAIN, UPDATE), quorum, TRAIN_SIDE)
    require_clip(engine, constants)
    mechanism, diagnostics = QuorumMechanism(share, PrivateStream()), LocalDiagnostics()
    engine.parameters.load(rows.restrict(question.model))
    with one_thread():
        total, batch = engine.clipped_sum(mechanism.sample(constants.sampling_rate, engine.consumers))
    sums = total.numpy().astype(np.float64)
    noise = block.noise_scale / scale * math.sqrt(len(sums))
    diagnostics.add(batch, constants.clip, float(np.linalg.norm(sums)), noise)
    site.note_locally({"round": question.query.round, "kind": TRAIN, **diagnostics.summary()})
    return mechanism.release(rows.expand(sums) * -scale)


def _block_of(question: Question, name: str) -> Block:
    return next(block for block in question.plan.blocks(question.query.kind) if block.name == name)


def row_targets(_config: Any, _sequences: Any) -> None:
    """Every target is a step's own next event."""


ANSWERS = {TRAIN: train, EVALUATE: evaluate}


def _seeded(site: Site, question: Question) -> RandomStream:
    from client.training.trainer import seeded_stream

    return seeded_stream(question.plan.config.seed, site.name, question.query.round)
