"""What the clipped sum guarantees whatever the rows are, and that it depends on nothing it must not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from client.training.dpsgd.arena import Arena
from client.training.dpsgd.clipping import ClippedGradient, clip_factors
from client.training.dpsgd.engine import TapeEngine
from client.training.dpsgd.norms import squared_norms
from client.training.dpsgd.records import Outer
from client.training.dpsgd.rows import RowMap
from client.training.gradients import GradientEngine
from tests.dpsgd_samples import HEADS, batcher_of, default_dtype, model_of, relative_error, taped_sum

CLIP = 0.7


def engine_of(events: list[int], seed: int = 1, micro_batch: int = 256, **choices: Any) -> TapeEngine:
    return TapeEngine(model_of(torch.float32, seed, **choices), batcher_of(events, seed), CLIP, micro_batch)


def total(engine: GradientEngine, rows: list[int]) -> Tensor:
    return engine.clipped_sum(np.array(rows, dtype=np.int64))[0].clone()


FEW = settings(deadline=None, max_examples=6, derandomize=True)
MANY = settings(deadline=None, max_examples=60, derandomize=True)
REMOVALS = given(
    events=st.lists(st.integers(0, 12), min_size=1, max_size=7),
    encoder=st.sampled_from(["lstm", "gru"]),
    tied=st.booleans(),
    scale=st.sampled_from([1e-4, 1.0, 30.0]),
    removed=st.integers(0, 6),
    seed=st.integers(0, 20),
)
ORDERS = given(
    order=st.permutations(list(range(7))),
    micro_batch=st.integers(1, 8),
    encoder=st.sampled_from(["lstm", "gru"]),
    negatives=st.sampled_from([0, 6]),
)


@FEW
@REMOVALS
def test_removing_any_consumer_moves_the_sum_by_at_most_the_clip(**case: Any) -> None:
    check_removal(**case)


@pytest.mark.full
@MANY
@REMOVALS
def test_removing_any_of_many_consumers_moves_the_sum_by_at_most_the_clip(**case: Any) -> None:
    check_removal(**case)


def check_removal(events: list[int], encoder: str, tied: bool, scale: float, removed: int, seed: int) -> None:
    engine = engine_of(events, seed, encoder=encoder, tied=tied)
    engine.parameters.vector.mul_(scale)
    rows = list(range(len(events)))
    removed %= len(rows)
    moved = total(engine, rows) - total(engine, [r for r in rows if r != removed])
    assert float(moved.norm()) <= CLIP * (1 + 1e-5)


def test_the_opacus_path_clips_at_the_same_norm() -> None:
    from client.training.dpsgd.opacus_path import OpacusEngine

    engine = OpacusEngine(model_of(torch.float32, 1), batcher_of([6, 40, 5], 1), CLIP)
    engine.parameters.vector.mul_(10)
    moved = [float((total(engine, [0, 1, 2]) - total(engine, rest)).norm()) for rest in ([0, 2], [0, 1], [1, 2])]
    assert max(moved) <= CLIP * (1 + 1e-5)
    assert max(moved) > 0.9 * CLIP  # somebody is clipped, so a looser clip would show


@pytest.mark.parametrize("row", ["one item again and again", "an unknown item only", "a very long row"])
def test_adversarial_rows_move_the_sum_by_at_most_the_clip(row: str) -> None:
    batcher = batcher_of([6, 300 if "long" in row else 40, 5], seed=2)
    item = {"one item again and again": 3, "an unknown item only": 0, "a very long row": 5}[row]
    batcher.table[6:-5, 0] = item
    batcher._next["next-item"][6:-6] = item
    engine = TapeEngine(model_of(torch.float32, 3), batcher, CLIP)
    engine.parameters.vector.mul_(10)
    moved = total(engine, [0, 1, 2]) - total(engine, [0, 2])
    assert float(moved.norm()) <= CLIP * (1 + 1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30], ids=str)
@pytest.mark.parametrize("encoder", ["lstm", "gru"])
def test_a_consumer_without_a_finite_gradient_adds_exactly_nothing(value: float, encoder: str) -> None:
    events = [5, 6, 7, 3]
    engine = engine_of(events, encoder=encoder, pooling="attention", hidden=5, tied=False)
    batcher = engine.batcher
    for row, start in enumerate(batcher.starts):  # event type 3 belongs to consumer 1 alone
        place = slice(start, start + events[row])
        batcher.table[place, 1] = 3 if row == 1 else np.minimum(batcher.table[place, 1], 2)
    table = engine.model.context["event"].weight
    table.data[3] = value
    with_it, without = total(engine, [0, 1, 2, 3]), total(engine, [0, 2, 3])
    assert bool(torch.isfinite(with_it).all())
    moved = float((with_it - without).norm())
    assert moved <= CLIP * (1 + 1e-5)
    if not np.isfinite(value):
        assert moved <= 1e-6


def test_a_target_that_is_not_a_number_removes_its_consumer_and_nobody_else() -> None:
    engine = engine_of([5, 6, 4])
    assert engine.batcher.row_targets is not None
    without = total(engine, [0, 2])
    # past the check of the batcher: a huge target gives an infinite gradient
    asks = engine.batcher.row_targets.asks
    assert asks is not None
    asks.values[1, -1] = 3e38
    assert relative_error(total(engine, [0, 1, 2]), without) <= 1e-6


@FEW
@ORDERS
def test_order_and_micro_batches_change_nothing(**case: Any) -> None:
    check_order(**case)


@pytest.mark.full
@MANY
@ORDERS
def test_many_orders_and_micro_batches_change_nothing(**case: Any) -> None:
    check_order(**case)


def check_order(order: list[int], micro_batch: int, encoder: str, negatives: int) -> None:
    events = [2, 9, 0, 1, 5, 5, 3]
    choices = {"encoder": encoder, "sampled_negatives": negatives, "layers": 2}
    one = total(engine_of(events, **choices), list(range(7)))
    other = total(engine_of(events, micro_batch=micro_batch, **choices), order)
    assert relative_error(other, one) <= 2e-6


@pytest.mark.parametrize("encoder", ["lstm", "gru"])
def test_packed_rows_do_not_mix_consumers(encoder: str) -> None:
    """Opacus's DPLSTM on an unsorted PackedSequence mixes samples: removing one moves the sum by > C."""
    engine = engine_of([3, 9, 1, 6, 2, 8], encoder=encoder)
    single = sum((total(engine, [r]) for r in range(6)), torch.zeros(engine.parameters.layout.size))
    assert relative_error(total(engine, [4, 0, 5, 1, 3, 2]), single) <= 2e-6


@pytest.mark.parametrize("events", [[], [0], [1], [0, 0, 1], [2], [2, 0, 2], [3, 2, 1, 0]], ids=str)
@pytest.mark.parametrize("heads", [["next-item"], sorted(HEADS)], ids=["one-head", "all-heads"])
def test_rows_without_steps_and_empty_batches_are_ordinary(events: list[int], heads: list[str]) -> None:
    engine = TapeEngine(
        model_of(torch.float32, 1, heads={h: HEADS[h] for h in heads}), batcher_of([*events, 4], 1), CLIP
    )
    gradient, diagnostics = engine.clipped_sum(np.arange(len(events)))
    assert bool(torch.isfinite(gradient).all())
    assert len(diagnostics.norms) == len(diagnostics.losses) == len(events)
    if not any(e > 1 for e in events):
        assert float(gradient.norm()) == 0


def test_a_batch_leaves_nothing_behind_for_the_next_one() -> None:
    engine = engine_of([5, 6, 4, 8])
    first = total(engine, [0, 1])
    for between in ([2, 3], []):
        total(engine, between)
        assert torch.equal(total(engine, [0, 1]), first)


def test_a_batch_uses_the_memory_of_the_one_before() -> None:
    engine = engine_of([30] * 8)
    arena = engine.core.tape.arena
    total(engine, list(range(8)))
    blocks, used = [block.data_ptr() for block in arena._blocks], arena._most
    for rows in (list(range(8)), [1, 2], list(range(8))):
        total(engine, rows)
        assert [block.data_ptr() for block in arena._blocks] == blocks
        assert arena._most <= used


def test_memory_of_an_unusually_large_batch_is_given_back() -> None:
    arena = Arena()
    for megabytes in (1, 64, 1, 1):
        arena.reset()
        arena.take((megabytes << 18,), torch.float32)
    assert sum(block.numel() for block in arena._blocks) <= 8 << 20


def test_state_dict_is_torch_s_own_and_scoring_is_unchanged() -> None:
    model = model_of(torch.float32, 1, layers=2)
    plain = copy.deepcopy(model)
    engine = TapeEngine(model, batcher_of([5, 4], 1), CLIP)
    assert list(model.state_dict()) == list(plain.state_dict())
    batch = engine.batcher.packed(np.arange(2))
    engine.clipped_sum(np.arange(2))
    with torch.no_grad():
        assert torch.equal(model.eval().losses(batch), plain.eval().losses(batch))


def test_rows_that_cancel_are_clipped_on_a_true_norm() -> None:
    """In float32 the Gram form of (g, -g + tiny) is rounding only: it must not come out as a small norm."""
    generator = torch.Generator().manual_seed(1)
    g, a = torch.randn(1, 40, generator=generator), torch.randn(1, 30, generator=generator)
    weight = torch.nn.Parameter(torch.zeros(40, 30))
    for scale in (1e2, 1e4, 1e6):
        small = torch.randn(1, 40, generator=generator)
        grads = torch.cat([scale * g, -scale * g + small])
        record = Outer(RowMap(torch.zeros(2, dtype=torch.int64), 1), grads, (weight,), torch.cat([a, a]))
        true = (grads.double().t() @ record.inputs.double()).norm()
        norm = squared_norms([record], 1).sqrt().double()
        assert float(norm[0]) >= float(true) * (1 - 1e-5)
        factor = clip_factors(norm.float().square(), 1.0)
        added = (grads * factor).t() @ record.inputs
        assert float(added.norm()) <= 1 + 1e-5


@pytest.mark.parametrize("left", [0.1, 0.06, 0.03])
def test_a_norm_that_mostly_cancels_is_taken_in_doubles(left: float) -> None:
    """Between 1/32 and 1/1750 of the rows' squares the Gram form alone would be wrong by more than 1e-5."""
    generator = torch.Generator().manual_seed(1)
    weight, worst = torch.nn.Parameter(torch.zeros(300, 200)), 0.0
    for _ in range(5):
        g, a = torch.randn(1, 300, generator=generator), torch.randn(1, 200, generator=generator)
        small = left * torch.randn(2, 300, generator=generator)
        grads = torch.cat([g, -g]) + small
        record = Outer(RowMap(torch.zeros(2, dtype=torch.int64), 1), grads, (weight,), torch.cat([a, a]))
        true = float((grads.double().t() @ record.inputs.double()).norm())
        worst = max(worst, abs(float(squared_norms([record], 1).sqrt()[0]) / true - 1))
    assert worst <= 2e-7


def test_factors_never_let_a_norm_pass_the_clip() -> None:
    squares = torch.tensor([0.0, 1e-40, 0.48999, 0.49, 0.4900001, 4.0, 1e30, float("inf"), float("nan")])
    factors = clip_factors(squares, 0.7)
    assert factors[:3].tolist() == [1, 1, 1]
    assert factors[-2:].tolist() == [0, 0]
    assert bool((factors[:-2] * squares[:-2].sqrt() <= 0.7).all())


def test_float64_follows_the_model() -> None:
    with default_dtype(torch.float64):
        core = ClippedGradient(model_of(torch.float64, 1), CLIP)
        assert taped_sum(core, batcher_of([4, 5], 1), [np.arange(2)]).dtype == torch.float64


def test_a_batch_of_many_consumers_in_one_piece_is_clipped_like_a_small_one() -> None:
    """A real batch has hundreds: what holds for seven must hold for them."""
    engine = engine_of([1 + i % 9 for i in range(300)], micro_batch=300)
    everybody = list(range(300))
    whole = total(engine, everybody)
    for removed in (0, 150, 299):
        rest = total(engine, everybody[:removed] + everybody[removed + 1 :])
        assert float((whole - rest).norm()) <= CLIP * (1 + 1e-5)
