"""The clipped sum: every record's rows weighted by their consumer's factor, one product per weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from client.training.dpsgd.records import Outer, Picked, Record, Summed


def add_weighted(
    records: list[Record], factors: Tensor, gradient: Mapping[int, Tensor], *, fresh: bool = False
) -> None:
    """Add the sum over consumers of ``factors[b] *`` its gradient to ``gradient[id(parameter)]``.

    ``fresh``: overwrite instead, whatever is there (parameters without a record become zeros).

    Shapes: ``factors: [B]``, finite. Guarantee: a consumer with factor 0 adds exactly nothing, also if
    its rows are not finite.
    """
    banned = factors == 0
    any_banned = bool(banned.any())
    written = _overwritten(records) if fresh else set()
    if fresh:
        for key, view in gradient.items():
            if key not in written:
                view.zero_()
    for record in records:
        kept = _without(record, banned) if any_banned else record
        if isinstance(kept, Outer):
            _add_outer(kept, factors, gradient, overwrite=id(kept.weights[0]) in written)
        else:
            _ADD[type(record)](kept, factors, gradient)


def _overwritten(records: list[Record]) -> set[int]:
    """Weights that one product fills as a whole, before anything else is added to them."""
    first: dict[int, Record] = {}
    for record in records:
        for parameter in record.parameters:
            first.setdefault(id(parameter), record)
    whole = [r for r in records if isinstance(r, Outer) and r.columns is None and len(r.weights) == 1]
    return {id(r.weights[0]) for r in whole if first[id(r.weights[0])] is r}


def _without(record: Record, banned: Tensor) -> Record:
    """The record with the rows of banned consumers as zeros (0 * NaN would be NaN)."""
    out = banned[record.rows.consumer][:, None]
    grads = record.grads.masked_fill(out, 0)
    if isinstance(record, Picked):
        return Picked(record.rows, grads, record.table, record.ids)
    if isinstance(record, Summed):
        return Summed(record.rows, grads, record.vector)
    inputs = record.inputs.masked_fill(out, 0)
    scale = None if record.scale is None else record.scale.masked_fill(out[:, 0], 0)
    return Outer(record.rows, grads, record.weights, inputs, record.biases, scale, record.columns)


def _add_outer(record: Outer, factors: Tensor, gradient: Mapping[int, Tensor], *, overwrite: bool) -> None:
    weight = factors if record.rows.single else factors[record.rows.consumer]
    if record.scale is not None:
        weight = weight * record.scale
    turned, scaled = record.grads.t(), record.inputs * weight[:, None]
    if record.columns is None and len(record.weights) == 1:
        out = gradient[id(record.weights[0])]
        _ = torch.mm(turned, scaled, out=out) if overwrite else out.addmm_(turned, scaled)
    else:
        product = torch.mm(turned, scaled)
        for parameter, part in zip(record.weights, product.split(record.widths, dim=1), strict=True):
            out = gradient[id(parameter)]
            _ = out.add_(part) if record.columns is None else out.index_add_(0, record.columns, part)
    if record.biases:
        total = torch.mv(turned, weight)
        for bias in record.biases:
            out = gradient[id(bias)]
            _ = out.add_(total) if record.columns is None else out.index_add_(0, record.columns, total)


def _add_picked(record: Record, factors: Tensor, gradient: Mapping[int, Tensor]) -> None:
    assert isinstance(record, Picked)
    table = gradient[id(record.table)]
    scaled = record.segment_grads * factors[record.segment_consumer][:, None]
    table.view(len(table), -1).index_add_(0, record.segment_id, scaled)


def _add_summed(record: Record, factors: Tensor, gradient: Mapping[int, Tensor]) -> None:
    assert isinstance(record, Summed)
    out = gradient[id(record.vector)]
    out.view(-1).add_(torch.mv(record.totals.t(), factors))


_ADD = {Picked: _add_picked, Summed: _add_summed}
