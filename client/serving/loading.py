"""From a released or personal model to the arrays that the engine answers from. The only place here that knows torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from client.scoring.model import SharedModel
from client.serving.engine import Engine, Floats, Layer, Own, Recurrence, RowAnswer, StepHead
from common.errors import BadInputError
from common.model import INTENT, STEP_HEADS


def engine_of(shared: SharedModel) -> Engine:
    """The arrays of a model. Raises: BadInputError for an encoder that is no LSTM and no GRU."""
    model: Any = shared.model
    if model.settings.encoder not in ("lstm", "gru"):
        raise BadInputError(
            f"encoder {model.settings.encoder!r} cannot be served, only lstm and gru can",
            hint="score with `fedcart detect --follow` and `fedcart predict`",
        )
    heads = {name: _step_head(model.heads[name]) for name in shared.heads if name in STEP_HEADS}
    return Engine(_recurrence(model), heads, _intent(model.heads[INTENT]) if INTENT in shared.heads else None)


def _array(tensor: Any) -> Floats:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)


def _recurrence(model: Any) -> Recurrence:
    encoder, layers = model.encoder, []
    for number in range(model.settings.layers):
        names = (f"weight_ih_l{number}", f"weight_hh_l{number}", f"bias_ih_l{number}", f"bias_hh_l{number}")
        layers.append(Layer(*(_array(getattr(encoder, name)) for name in names)))
    attention = None
    if model.attention is not None:
        attention = (_array(model.attention.weight)[0], float(model.attention.bias.detach()[0]))
    return Recurrence(
        items=_array(model.item.weight),
        context={name: _array(table.weight) for name, table in model.context.items()},
        scale=model.settings.context_scale,
        kind=model.settings.encoder,
        layers=tuple(layers),
        projection=None if model.projection is None else _array(model.projection.weight),
        attention=attention,
    )


def _step_head(head: Any) -> StepHead:
    own = None
    if hasattr(head, "shares"):  # a personal mixture around the head
        shares = head.shares
        weights = {"model": shares.network, "transitions": shares.transitions}
        weights |= {"likeness": shares.likeness, "again": shares.again}
        barred = None if head._barred is None else head._barred.numpy()
        own, head = Own(head._counts, weights, barred), head.head
    kind = {"ItemHead": "item", "CategoryHead": "category"}.get(type(head).__name__, "")
    bias = None if head.linear.bias is None else _array(head.linear.bias)
    return StepHead(_array(head.linear.weight), bias, kind, float(getattr(head, "copy_bonus", 0.0)), own)


def _intent(head: Any) -> RowAnswer:
    history = None if head.history is None else _array(head.history.weight)[0]
    return RowAnswer(_array(head.linear.weight)[0], float(head.linear.bias.detach()[0]), history)
