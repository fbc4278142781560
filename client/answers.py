"""``Query.kind`` -> the function that answers it. A new task is a new head and one entry here.

An answer is one Contribution: bounded, noised, multiplied by the site's public weight. What training looked
like from inside goes to the site's own diagnostics file and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from client.models import engine_of, holdout_of
from client.site import Site
from common.config import PerformanceSettings, RunConfig
from common.contribution import EVALUATE, METRICS, STATISTICS, TRAIN, UPDATE, Contribution, Query, Release
from common.errors import ConfigError
from common.plan import RunPlan
from common.privacy.mechanism import PrivacyEvent

if TYPE_CHECKING:
    from common.trust.randomness import RandomStream

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """A verified Query with everything a site needs to answer it.

    Shapes: ``model: float32[d]``, the parameters that the Query is about. ``speed`` is the site's own choice.
    """

    query: Query
    plan: RunPlan
    model: Vector
    speed: PerformanceSettings = field(default_factory=PerformanceSettings)


def answer(site: Site, question: Question) -> Contribution:
    """Compute the contribution to a question. Nothing is recorded or sent here.

    Raises: ConfigError for a kind of query that this version does not know.
    """
    function = ANSWERS.get(question.query.kind)
    if function is None:
        raise ConfigError(
            f"query kind {question.query.kind!r} is unknown", hint="both sides need the same version"
        )
    return function(site, question)


def _train(site: Site, question: Question) -> Contribution:
    if question.plan.forecasts:
        return _from_release(site, question)
    from client.training.trainer import local_plan, train_locally
    from common.trust.randomness import PrivateStream

    plan, config = question.plan, question.plan.config
    rows, engine = engine_of(site, plan, question.speed)
    constants = local_plan(config, plan.population(site.name), len(plan.sites), plan.noise_multiplier, plan.signal)
    stream = PrivateStream() if constants.private else _seeded(config, site, question)
    result = train_locally(engine, rows.restrict(question.model), constants, stream)
    site.note_locally({"round": question.query.round, "kind": TRAIN, **result.diagnostics.summary()})
    update = Release(UPDATE, rows.expand(result.update).astype(np.float64), result.events)
    return _contribution(question, update.scaled(plan.weight(site.name)), *_metric_sums(site, question))


def _evaluate(site: Site, question: Question) -> Contribution:
    if question.plan.forecasts:
        return _from_release(site, question)
    return _contribution(question, *_metric_sums(site, question))


def _statistics(site: Site, question: Question) -> Contribution:
    """The site's sales series, bounded per consumer and noised: the one answer of a sales run that reads consumers."""
    from client.training.statistics import noised_series, purchases_at
    from common.trust.randomness import PrivateStream

    return _contribution(
        question, noised_series(purchases_at(site, question.plan), question.plan, PrivateStream())
    )


def _from_release(site: Site, question: Question) -> Contribution:
    """Update and metric sums of the sales model, from nothing but the series that this site has released."""
    from client.training.sales import SalesData, flat_model, measure, train_sales
    from client.training.statistics import kept_release, noise_floor

    plan, config = question.plan, question.plan.config
    data = SalesData.of(kept_release(site, plan), config, noise_floor(plan))
    model, flat = flat_model(config)
    flat.load(question.model)
    free: tuple[PrivacyEvent, ...] = ()  # post-processing of what was released and charged in round 0
    releases = [Release(METRICS, measure(model, data, config), free)]
    if question.query.kind == TRAIN:
        seed = f"fedcart/sales/1\0{config.seed}\0{site.name}\0{question.query.round}".encode()
        update = train_sales(flat, model, data, question.model, config, seed)
        releases.append(Release(UPDATE, update.astype(np.float64), free).scaled(plan.weight(site.name)))
    return _contribution(question, *releases)


ANSWERS: dict[str, Callable[[Site, Question], Contribution]] = {
    TRAIN: _train,
    EVALUATE: _evaluate,
    STATISTICS: _statistics,
}


def _contribution(question: Question, *releases: Release) -> Contribution:
    return Contribution.of(question.query, question.plan.blocks(question.query.kind), releases)


def _metric_sums(site: Site, question: Question) -> tuple[Release, ...]:
    """Bounded metric sums of the incoming model on the hold-out, noised if the run is private; none without one."""
    from client.training.evaluation import evaluate
    from common.trust.randomness import PrivateStream

    plan, config = question.plan, question.plan.config
    if config.privacy.holdout <= 0:
        return (Release(METRICS, np.zeros(len(plan.metrics)), ()),)
    model, holdout = holdout_of(site, plan, question.model)
    noise = plan.evaluation_noise if config.privacy.enabled else 0.0
    hardened = config.privacy.noise == "hardened"
    return (evaluate(model, holdout, noise, PrivateStream(), hardened=hardened),)


def _seeded(config: RunConfig, site: Site, question: Question) -> RandomStream:
    from client.training.trainer import seeded_stream

    return seeded_stream(config.seed, site.name, question.query.round)
