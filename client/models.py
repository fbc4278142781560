"""The site's model and gradient engine of a run, kept in the process; parameters are loaded anew for every round.

The model is the run's with the item rows of this site's catalogue only. Nothing here reads a question: what is
kept follows from the plan, the site's prepared rows and its own choice of speed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client.prepared import PreparedConsumers
from client.site import Site
from client.tasks.half import half_of
from common.errors import ConfigError
from common.run import PerformanceSettings, RunConfig, RunPlan

if TYPE_CHECKING:
    from client.training.gradients import GradientEngine
    from common.data import ConsumerSequences
    from common.model import Batcher, FlatParameters, SequenceModel, StockedModel

Vector = NDArray[np.float32]
SiteModel = tuple["StockedModel", "SequenceModel", "FlatParameters"]

# Work that a process need not do twice. Nothing in here is state: every entry follows from its key.
# They hold the sites that a worker of a simulation serves in turn: one more than fit would mean none is ever found.
_engines: dict[tuple[object, ...], GradientEngine] = {}
_measured: dict[tuple[object, ...], tuple[PreparedConsumers, Batcher]] = {}
_ENGINES_KEPT = 256
_MEASURED_KEPT = 1_024


def engine_of(site: Site, plan: RunPlan, speed: PerformanceSettings) -> tuple[StockedModel, GradientEngine]:
    """The gradient engine over the site's training rows, and how its model sits in the global vector."""
    prepared = site.prepared(plan)
    rows = _cached_rows(plan, prepared.mask.tobytes())
    key = (site.kit.path, plan, speed.trainer, speed.micro_batch)
    if key not in _engines:
        _make_room(_engines, _ENGINES_KEPT)
        _engines[key] = _make_engine(plan, speed, localize(prepared.sides.train, rows), len(rows.rows))
    return rows, _engines[key]


def measured_of(site: Site, plan: RunPlan, parameters: Vector, kind: str) -> tuple[SequenceModel, Batcher]:
    """The site's model with these global parameters ``float32[d]``, and the consumers on whom such a query measures it."""
    rows, model, flat = site_model(site, plan)
    flat.load(rows.restrict(parameters))
    side = plan.measured(kind).side
    prepared, key = site.prepared(plan), (site.kit.path, plan, side)
    if key not in _measured or _measured[key][0] is not prepared:  # other rows: the log or its key changed
        _make_room(_measured, _MEASURED_KEPT)
        _measured[key] = prepared, make_batcher(localize(getattr(prepared.sides, side), rows), plan.config, side)
    return model, _measured[key][1]


def _make_room(kept: dict[tuple[object, ...], Any], most: int) -> None:
    while len(kept) >= most:
        kept.pop(next(iter(kept)))


def site_model(site: Site, plan: RunPlan) -> SiteModel:
    """The site's smaller model (its own item rows only) and how it sits in the global vector; kept per process."""
    return _cached_model(plan, site.prepared(plan).mask.tobytes())


def make_batcher(sequences: ConsumerSequences, config: RunConfig, side: str = "") -> Batcher:
    """Batches of rows with every target that the run's task asks for.

    ``side``: the part that the rows are of, empty for training; where a run is cut in time, the other two are asked from their
    dates on.
    """
    from common.model import Batcher
    from common.privacy import HOLDOUT_SIDE, TRAIN_SIDE

    targets, dates = half_of(config.task).row_targets(config, sequences), config.training.dates_us
    asked = None
    if dates is not None and side not in ("", TRAIN_SIDE):
        asked = sequences.timestamps >= dates[side == HOLDOUT_SIDE]
    return Batcher(sequences, list(config.model.heads), targets, config.model.targets, asked)


def localize(sequences: ConsumerSequences, rows: StockedModel) -> ConsumerSequences:
    """Sequences with item ids of the site's smaller model; items outside its catalogue become unknown."""
    integers = sequences.integers.copy()
    column = sequences.integer_names.index("item")
    integers[:, column] = rows.translate(integers[:, column])
    return replace(sequences, integers=integers)


@lru_cache(maxsize=256)
def _cached_rows(plan: RunPlan, mask: bytes) -> StockedModel:
    from common.data import FeatureSpec
    from common.model import ModelShape, build_model, item_rows, layout_of

    sizes = FeatureSpec.from_json(json.loads(plan.features)).sizes
    whole = build_model(plan.config.model, ModelShape(sizes), plan.config.seed)
    layout = layout_of(whole)
    if layout.size != plan.parameters:
        raise ConfigError(
            f"this program builds {layout.size} parameters, the run says {plan.parameters}",
            hint="both sides need the same version",
        )
    return item_rows(layout, whole.item_tensors(), np.frombuffer(mask, dtype=np.bool_))


@lru_cache(maxsize=256)
def _cached_model(plan: RunPlan, mask: bytes) -> SiteModel:
    from common.data import FeatureSpec
    from common.model import FlatParameters, ModelShape, build_model

    rows, sizes = _cached_rows(plan, mask), FeatureSpec.from_json(json.loads(plan.features)).sizes
    local = build_model(plan.config.model, ModelShape(sizes | {"item": len(rows.rows)}), plan.config.seed)
    return rows, local, FlatParameters(local)


def _make_engine(
    plan: RunPlan, speed: PerformanceSettings, train: ConsumerSequences, items: int
) -> GradientEngine:
    from common.data import FeatureSpec
    from common.model import ModelShape, build_model

    config = plan.config
    sizes = FeatureSpec.from_json(json.loads(plan.features)).sizes
    model = build_model(config.model, ModelShape(sizes | {"item": items}), config.seed)
    return make_engine(model, make_batcher(train, config), config, speed.trainer, speed.micro_batch)


def make_engine(
    model: SequenceModel, batcher: Batcher, config: RunConfig, trainer: str, micro_batch: int
) -> GradientEngine:
    """Make the engine over training consumers: plain without privacy; the fast tape, or stock Opacus hooks, with it.

    ``trainer`` and ``micro_batch`` change speed only.
    """
    if not config.privacy.enabled:
        from client.training.gradients import PlainEngine

        return PlainEngine(model, batcher, micro_batch)
    if trainer == "opacus":
        from client.training.dpsgd.opacus_path import OpacusEngine

        return OpacusEngine(model, batcher, config.privacy.clip, micro_batch)
    from client.training.dpsgd.engine import TapeEngine

    return TapeEngine(model, batcher, config.privacy.clip, micro_batch)
