"""The tape's clipped sum against a loop over consumers with torch's own layers and autograd."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from client.training.dpsgd.clipping import ClippedGradient
from tests.dpsgd_samples import (
    HEADS,
    TOLERANCE,
    batcher_of,
    brute_force,
    default_dtype,
    model_of,
    relative_error,
    taped_sum,
)

ARCHITECTURES = {
    "events": st.lists(st.integers(0, 9), min_size=1, max_size=8),
    "encoder": st.sampled_from(["lstm", "gru"]),
    "layers": st.integers(1, 3),
    "hidden": st.sampled_from([6, 5]),
    "tied": st.booleans(),
    "pooling": st.sampled_from(["last", "attention"]),
    "sampled_negatives": st.sampled_from([0, 0, 7]),
    "heads": st.sets(st.sampled_from(sorted(HEADS)), min_size=1),
    "copy_bonus": st.sampled_from([0.0, 3.0]),
    "item_bias": st.booleans(),
    "targets": st.sampled_from(["every", "last"]),
    "clip": st.sampled_from([0.01, 0.5, 3.0, 1e4]),
    "seed": st.integers(0, 99),
}


def check(dtype: torch.dtype, events: list[int], clip: float, seed: int, heads: set[str], **choices: Any) -> None:
    batcher = batcher_of(events, seed, targets=choices["targets"])
    weights = {name: HEADS[name] for name in sorted(heads)}
    with default_dtype(dtype):
        model = model_of(dtype, seed, heads=weights, **choices)
        rows = np.arange(len(events))
        want = brute_force(copy.deepcopy(model), batcher, rows, clip)
        half = len(rows) // 2
        got = taped_sum(ClippedGradient(model, clip), batcher, [rows[:half], rows[half:]])
    assert relative_error(got, want) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@settings(deadline=None, max_examples=12, derandomize=True)
@given(**ARCHITECTURES)
def test_clipped_sum_equals_a_loop_over_consumers(dtype: torch.dtype, **case: Any) -> None:
    check(dtype, **case)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@settings(deadline=None, max_examples=250, derandomize=True)
@given(**ARCHITECTURES)
def test_clipped_sum_equals_a_loop_over_consumers_in_many_architectures(dtype: torch.dtype, **case: Any) -> None:
    check(dtype, **case)


@pytest.mark.parametrize("encoder", ["lstm", "gru"])
@pytest.mark.parametrize("hidden", [6, 24])
def test_long_and_short_rows_choose_either_form_of_the_norm(encoder: str, hidden: int) -> None:
    batcher = batcher_of([70, 66, 2, 1, 3, 40], seed=1)
    with default_dtype(torch.float64):
        model = model_of(torch.float64, 1, encoder=encoder, hidden=hidden)
        want = brute_force(copy.deepcopy(model), batcher, np.arange(6), 0.3)
        got = taped_sum(ClippedGradient(model, 0.3), batcher, [np.arange(6)])
    assert relative_error(got, want) <= 1e-9


def test_wide_catalogue_takes_the_norm_of_one_consumer_at_a_time() -> None:
    batcher = batcher_of([9, 4, 2, 7], seed=3, items=1_500)
    with default_dtype(torch.float64):
        for tied in (True, False):
            model = model_of(torch.float64, 2, tied=tied, items=1_500)
            want = brute_force(copy.deepcopy(model), batcher, np.arange(4), 0.3)
            got = taped_sum(ClippedGradient(model, 0.3), batcher, [np.arange(4)])
            assert relative_error(got, want) <= 1e-9


def test_one_layer_called_twice_is_clipped_as_one() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.item, self.linear = torch.nn.Embedding(15, 5), torch.nn.Linear(5, 5)
            self.norm = torch.nn.LayerNorm(5)

        def losses(self, batch: Any) -> torch.Tensor:
            x = self.norm(self.linear(torch.tanh(self.linear(self.item(batch.inputs["item"])))))
            x = self.norm(x + self.item(batch.targets["next-item"]))
            return x.new_zeros(batch.size).index_add(0, batch.consumer_of_row, (x**3).sum(1))

    batcher = batcher_of([5, 3, 6, 2], seed=4)
    with default_dtype(torch.float64):
        torch.manual_seed(1)
        model = Twice()
        want = brute_force(copy.deepcopy(model), batcher, np.arange(4), 0.5)
        got = taped_sum(ClippedGradient(model, 0.5), batcher, [np.arange(4)])
    assert relative_error(got, want) <= 1e-9


def test_dropout_between_layers_draws_a_mask_for_each_step_and_scales_what_is_left() -> None:
    model = model_of(torch.float32, 1, layers=2, dropout=0.5)
    batcher = batcher_of([8] * 6, seed=1)
    core = ClippedGradient(model, 1.0)
    sums = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        sums.append(taped_sum(core, batcher, [np.arange(6)]))
    assert torch.equal(sums[0], sums[1])
    assert not torch.equal(sums[0], sums[2])
    assert float(sums[2].norm()) <= 6.0
