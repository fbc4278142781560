"""A wrong use of the engine raises and names the layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from client.training.dpsgd.clipping import ClippedGradient, gradient_views
from client.training.dpsgd.taping import make_taped
from common.errors import BadInputError, LocalProtocolError
from tests.dpsgd_samples import batcher_of, model_of, taped_sum


class Wrong(nn.Module):
    """An embedding, one layer under test, and a loss."""

    def __init__(self, layer: nn.Module | None, use: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__()
        self.item, self.suspect, self.use = nn.Embedding(15, 4), layer, use

    def losses(self, batch: Any) -> torch.Tensor:
        x = self.use(self, self.item(batch.inputs["item"]), batch)
        return x.new_zeros(batch.size).index_add(0, batch.consumer_of_row, x.reshape(len(x), -1).sum(1))


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), nn.SyncBatchNorm(4), nn.InstanceNorm1d(4, affine=True)],
    ids=lambda m: type(m).__name__,
)
def test_a_layer_that_mixes_consumers_is_refused_by_name(layer: nn.Module) -> None:
    with pytest.raises(BadInputError, match=r"'suspect' .*mixes the consumers"):
        make_taped(Wrong(layer, lambda m, x, b: m.suspect(x)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 4, 1),
        nn.RNN(4, 4),
        nn.Bilinear(4, 4, 4),
        nn.PReLU(),
        nn.LSTM(4, 4, bidirectional=True),
        nn.LSTM(4, 4, proj_size=2),
        nn.Embedding(5, 4, max_norm=1.0),
        nn.Embedding(5, 4, scale_grad_by_freq=True),
        nn.LayerNorm((2, 4)),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_layer_without_a_rule_is_refused_by_name(layer: nn.Module) -> None:
    with pytest.raises(BadInputError, match="'suspect'"):
        make_taped(Wrong(layer, lambda m, x, b: m.suspect(x)))


def test_a_parameter_outside_any_layer_is_refused_by_name() -> None:
    model = Wrong(None, lambda m, x, b: x)
    model.query = nn.Parameter(torch.zeros(4))
    with pytest.raises(BadInputError, match="'query'"):
        make_taped(model)


def unsorted(model: Any, x: torch.Tensor, batch: Any) -> torch.Tensor:
    padded = x.new_zeros(3, 4, 4)
    packed = pack_padded_sequence(padded, torch.tensor([2, 4, 3]), batch_first=True, enforce_sorted=False)
    return model.suspect(packed)[0].data


WRONG_USES: dict[str, tuple[nn.Module, Callable[[Any, Any, Any], Any]]] = {
    "rows without an owner": (nn.Linear(4, 4), lambda m, x, b: m.suspect(torch.cat([x, x]))[: len(x)]),
    "padded rows": (nn.Linear(4, 4), lambda m, x, b: m.suspect(x[None])[0]),
    "padded ids": (nn.Embedding(15, 4), lambda m, x, b: m.suspect(b.inputs["item"][None])[0]),
    "padded sequence": (nn.LSTM(4, 4, batch_first=True), lambda m, x, b: m.suspect(x[None])[0][0]),
    "unsorted sequence": (nn.GRU(4, 4, batch_first=True), unsorted),
    "a weight used functionally": (nn.Linear(4, 4), lambda m, x, b: x @ m.suspect.weight),
    "an initial state": (
        nn.LSTM(4, 4),
        lambda m, x, b: m.suspect(PackedSequence(x, b.batch_sizes), (torch.zeros(1, 3, 4),) * 2)[0].data,
    ),
}


@pytest.mark.parametrize("name", WRONG_USES)
def test_a_wrong_use_of_a_layer_raises_with_its_name(name: str) -> None:
    core = ClippedGradient(Wrong(*WRONG_USES[name]), 1.0)
    batcher = batcher_of([3, 5, 4], 1)
    for _ in range(2):  # the error leaves the engine ready for the next batch
        with pytest.raises(BadInputError, match="'suspect"):
            taped_sum(core, batcher, [np.arange(3)])


def test_finish_without_backward_raises() -> None:
    core = ClippedGradient(model_of(torch.float32, 1), 1.0)
    batcher = batcher_of([3, 5, 4], 1)
    views = gradient_views(core.model, torch.zeros(sum(p.numel() for p in core.model.parameters())))
    with pytest.raises(LocalProtocolError, match="no backward"):
        core.finish(views)
    core.begin(batcher.packed(np.arange(3)))
    with pytest.raises(LocalProtocolError, match="never finished"):
        core.begin(batcher.packed(np.arange(3)))
    with pytest.raises(LocalProtocolError, match="no backward"):
        core.finish(views)
    core.begin(batcher.packed(np.arange(3))).sum().backward()
    core.finish(views)
    with pytest.raises(LocalProtocolError, match="no backward"):
        core.finish(views)


def test_padded_batches_and_rows_without_steps_are_refused_by_the_core() -> None:
    core = ClippedGradient(model_of(torch.float32, 1), 1.0)
    batcher = batcher_of([3, 5, 0], 1)
    for batch in (batcher.padded(np.arange(2)), batcher.packed(np.arange(3))):
        with pytest.raises(BadInputError, match="padded or has"):
            core.begin(batch)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_a_clip_that_is_no_bound_is_refused(clip: float) -> None:
    with pytest.raises(BadInputError, match="clipping norm"):
        ClippedGradient(model_of(torch.float32, 1), clip)
