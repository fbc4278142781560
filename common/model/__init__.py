"""The shared sequence model: network, heads, batches, parameters, metrics, baselines."""

from common.model.batch import RECENT, Batch, Batcher
from common.model.encoders import on_rows
from common.model.heads import ClassHead, ItemHead, RowHead, shifted_exp_
from common.model.metrics import consumer_metrics
from common.model.network import ModelShape, SequenceModel, build_model
from common.model.parameters import (
    FlatParameters,
    StockedModel,
    Vector,
    check_layout,
    item_rows,
    layout_of,
    load_model,
    save_model,
)
from common.model.sales_network import (
    OwnPart,
    SalesModel,
    SeriesWindows,
    build_sales_model,
    corrections,
    first_origin,
    forecasts,
    make_windows,
    normalised,
    own_bias,
    own_part,
)
from common.model.targets import INTENT, STEP_HEADS, RowTargets, asked_now, history_at, row_targets, whole_rows

__all__ = [
    "INTENT",
    "RECENT",
    "STEP_HEADS",
    "Batch",
    "Batcher",
    "ClassHead",
    "FlatParameters",
    "ItemHead",
    "ModelShape",
    "OwnPart",
    "RowHead",
    "RowTargets",
    "SalesModel",
    "SequenceModel",
    "SeriesWindows",
    "StockedModel",
    "Vector",
    "asked_now",
    "build_model",
    "build_sales_model",
    "check_layout",
    "consumer_metrics",
    "corrections",
    "first_origin",
    "forecasts",
    "history_at",
    "item_rows",
    "layout_of",
    "load_model",
    "make_windows",
    "normalised",
    "on_rows",
    "own_bias",
    "own_part",
    "row_targets",
    "save_model",
    "shifted_exp_",
    "whole_rows",
]
