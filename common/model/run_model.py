"""The network that a run trains, whatever its task: one place that knows which class that is."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.model.network import ModelShape, SequenceModel, build_model
from common.model.parameters import item_index, layout_of
from common.model.sales_network import SalesModel, build_sales_model
from common.run import RunConfig
from common.tasks import task_named


def run_model(config: RunConfig, features: str) -> SequenceModel | SalesModel:
    """The shared model of a run at its initial parameters; ``features`` is the plan's JSON of the feature spec."""
    from common.data import FeatureSpec

    if task_named(config.task).network == "sales":
        return build_sales_model(config.model, config.sales.horizon, config.seed)
    return build_model(config.model, ModelShape(FeatureSpec.from_json(json.loads(features)).sizes), config.seed)


def item_rows_of(model: nn.Module) -> NDArray[np.int32]:
    """Catalogue row of each coordinate, -1 where it belongs to no item: ``int32[d]``."""
    if isinstance(model, SequenceModel):
        return item_index(model)
    return np.full(layout_of(model).size, -1, dtype=np.int32)
