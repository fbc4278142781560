"""``Query.kind`` -> the function that answers it. A new task is a new head and one entry here.

An answer is one Contribution: bounded, noised, multiplied by the site's public weight. What training looked
like from inside goes to the site's own diagnostics file and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client.site import Site
from common.config import RunConfig
from common.contribution import EVALUATE, STATISTICS, TRAIN, Contribution, Query
from common.errors import ConfigError
from common.plan import METRICS, SERIES, UPDATE, RunPlan

if TYPE_CHECKING:
    from client.training.gradients import GradientEngine
    from common.data.sequences import ConsumerSequences
    from common.model.batch import Batcher
    from common.model.network import SequenceModel
    from common.model.parameters import FlatParameters, ItemRows
    from common.trust.randomness import RandomStream

Vector = NDArray[np.float32]
SiteModel = tuple["ItemRows", "SequenceModel", "FlatParameters"]

# Work that a process need not do twice. Nothing in here is state: every entry follows from its key.
_engines: dict[tuple[Any, ...], GradientEngine] = {}
_ENGINES_KEPT = 64


@dataclass(frozen=True)
class Question:
    """A verified Query with everything a site needs to answer it.

    Shapes: ``model: float32[d]``, the parameters that the Query is about. ``trainer`` and ``micro_batch``
    are the site's own choice of speed.
    """

    query: Query
    plan: RunPlan
    model: Vector
    trainer: str = "fast"
    micro_batch: int = 256


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
    rows, engine = _engine(site, question)
    constants = local_plan(config, plan.population(site.name), len(plan.sites), plan.noise_multiplier, plan.signal)
    stream = PrivateStream() if constants.private else _seeded(config, site, question)
    result = train_locally(engine, rows.restrict(question.model), constants, stream)
    site.note_locally({"round": question.query.round, "kind": TRAIN, **result.diagnostics.summary()})
    update = rows.expand(result.update).astype(np.float64) * plan.weight(site.name)
    return _contribution(question, {UPDATE: update, METRICS: _metric_sums(site, question)})


def _evaluate(site: Site, question: Question) -> Contribution:
    if question.plan.forecasts:
        return _from_release(site, question)
    return _contribution(question, {METRICS: _metric_sums(site, question)})


def _statistics(site: Site, question: Question) -> Contribution:
    """The site's sales series, bounded per consumer and noised: the one answer of a sales run that reads consumers."""
    from client.training.statistics import noised_series, purchases_at
    from common.trust.randomness import PrivateStream

    series = noised_series(purchases_at(site, question.plan), question.plan, PrivateStream())
    return _contribution(question, {SERIES: series})


def _from_release(site: Site, question: Question) -> Contribution:
    """Update and metric sums of the sales model, from nothing but the series that this site has released."""
    from client.training.sales import SalesData, flat_model, measure, train_sales
    from client.training.statistics import kept_release, noise_floor

    plan, config = question.plan, question.plan.config
    data = SalesData.of(kept_release(site, plan), config, noise_floor(plan))
    model, flat = flat_model(config)
    flat.load(question.model)
    parts = {METRICS: measure(model, data, config)}
    if question.query.kind == TRAIN:
        seed = f"fedcart/sales/1\0{config.seed}\0{site.name}\0{question.query.round}".encode()
        update = train_sales(flat, model, data, question.model, config, seed)
        parts[UPDATE] = update.astype(np.float64) * plan.weight(site.name)
    return _contribution(question, parts)


ANSWERS: dict[str, Callable[[Site, Question], Contribution]] = {
    TRAIN: _train,
    EVALUATE: _evaluate,
    STATISTICS: _statistics,
}


def _contribution(question: Question, parts: dict[str, NDArray[np.float64]]) -> Contribution:
    blocks = question.plan.blocks(question.query.kind)
    vector = np.concatenate([parts[block.name] for block in blocks])
    # A diverged step is the coordinator's doing (learning rate, model); refusing it would tell something.
    vector = np.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)
    return Contribution(question.query.digest(), blocks, vector, question.plan.events(question.query.kind))


def _metric_sums(site: Site, question: Question) -> NDArray[np.float64]:
    """Bounded metric sums of the incoming model on the hold-out, noised if the run is private."""
    from client.training.evaluation import evaluate
    from common.trust.randomness import PrivateStream

    plan, config = question.plan, question.plan.config
    if config.privacy.holdout <= 0:
        return np.zeros(len(plan.metrics))
    model, holdout = _loaded(site, plan, question.model)
    noise = plan.evaluation_noise if config.privacy.enabled else 0.0
    hardened = config.privacy.noise == "hardened"
    return evaluate(model, holdout, noise, PrivateStream(), hardened=hardened).released


def exact_metric_sums(site: Site, plan: RunPlan, model: Vector) -> NDArray[np.float64]:
    """Exact metric sums on the hold-out: ``float64[m]``. ORACLE: only a simulation may look at them."""
    from client.training.evaluation import metric_sums

    return metric_sums(*_loaded(site, plan, model))


def _loaded(site: Site, plan: RunPlan, parameters: Vector) -> tuple[SequenceModel, Batcher]:
    """The site's model with these parameters, and its hold-out."""
    rows, model, flat = _model(site, plan)
    flat.load(rows.restrict(parameters))
    return model, make_batcher(localize(site.prepared(plan).holdout, rows), plan.config)


def make_batcher(sequences: ConsumerSequences, config: RunConfig) -> Batcher:
    """Batches of rows with every target that the run's task asks for."""
    from common.model.batch import Batcher
    from common.model.targets import row_targets

    return Batcher(sequences, list(config.model.heads), row_targets(config, sequences), config.model.targets)


def localize(sequences: ConsumerSequences, rows: ItemRows) -> ConsumerSequences:
    """Sequences with item ids of the site's smaller model; items outside its catalogue become unknown."""
    integers = sequences.integers.copy()
    column = sequences.integer_names.index("item")
    integers[:, column] = rows.translate(integers[:, column])
    return replace(sequences, integers=integers)


def _model(site: Site, plan: RunPlan) -> SiteModel:
    """The site's smaller model (its own item rows only) and how it sits in the global vector; kept per process."""
    return _cached_model(plan, site.prepared(plan).mask.tobytes())


@lru_cache(maxsize=32)
def _cached_model(plan: RunPlan, mask: bytes) -> SiteModel:
    from common.data.features import FeatureSpec
    from common.model.network import ModelShape, build_model
    from common.model.parameters import FlatParameters, item_rows, layout_of

    sizes = FeatureSpec.from_json(json.loads(plan.features)).sizes
    whole = build_model(plan.config.model, ModelShape(sizes), plan.config.seed)
    layout = layout_of(whole)
    if layout.size != plan.parameters:
        raise ConfigError(
            f"this program builds {layout.size} parameters, the run says {plan.parameters}",
            hint="both sides need the same version",
        )
    rows = item_rows(layout, whole.item_tensors(), np.frombuffer(mask, dtype=np.bool_))
    local = build_model(plan.config.model, ModelShape(sizes | {"item": len(rows.rows)}), plan.config.seed)
    return rows, local, FlatParameters(local)


def _engine(site: Site, question: Question) -> tuple[ItemRows, GradientEngine]:
    """The gradient engine over the site's training rows; parameters are loaded anew for every round."""
    plan = question.plan
    prepared = site.prepared(plan)
    rows, _, _ = _model(site, plan)
    key = (site.kit.path, plan, question.trainer, question.micro_batch)
    if key not in _engines:
        while len(_engines) >= _ENGINES_KEPT:
            _engines.pop(next(iter(_engines)))
        _engines[key] = _make_engine(question, localize(prepared.train, rows), len(rows.rows))
    return rows, _engines[key]


def _make_engine(question: Question, train: ConsumerSequences, items: int) -> GradientEngine:
    from client.training.engines import make_engine
    from common.data.features import FeatureSpec
    from common.model.network import ModelShape, build_model

    config = question.plan.config
    sizes = FeatureSpec.from_json(json.loads(question.plan.features)).sizes
    model = build_model(config.model, ModelShape(sizes | {"item": items}), config.seed)
    return make_engine(model, make_batcher(train, config), config, question.trainer, question.micro_batch)


def _seeded(config: RunConfig, site: Site, question: Question) -> RandomStream:
    from client.training.trainer import seeded_stream

    return seeded_stream(config.seed, site.name, question.query.round)
