from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from client.training.dpsgd.clipping import clip_factors
from client.training.gradients import PlainEngine
from client.training.trainer import (
    LocalPlan,
    local_plan,
    rounding_slack,
    seeded_stream,
    torch_turn,
    train_locally,
)
from common.errors import ConfigError
from common.model.batch import Batcher
from common.model.network import ModelShape, build_model
from common.model.parameters import FlatParameters, item_rows, layout_of
from common.model.targets import RowTargets
from common.privacy.mechanism import TRAIN_SIDE
from common.run import RunConfig
from common.trust.randomness import PrivateStream, SeededStream
from tests.common.model.tiny_market import SHAPE, SIZES, random_sequences, small_model
from tests.intent_samples import asked_rows

PLAN = LocalPlan(
    population=20, sampling_rate=0.5, steps=3, clip=0.1, noise_multiplier=0.0, optimizer="sgd", learning_rate=0.5
)
VARIANTS = [
    {},
    {"encoder": "gru", "layers": 2, "hidden": 6},
    {"tied": False, "heads": {"next-item": 1.0, "next-event": 0.3, "next-category": 0.2}},
    {"heads": {"next-item": 1.0, "purchase-intent": 0.5}, "pooling": "attention"},
]
ONE_AND_MORE = [VARIANTS[0], *(pytest.param(v, marks=pytest.mark.full) for v in VARIANTS[1:])]


def batcher_of(consumers=20, variant=None, seed=0):
    sequences = random_sequences(consumers, seed=seed)
    heads = list((variant or {}).get("heads", {"next-item": 1, "next-event": 1}))
    targets = None
    if "purchase-intent" in heads:
        lengths = np.maximum(sequences.lengths - 1, 0)
        targets = asked_rows(lengths, {"purchase-intent": np.arange(consumers) % 2.0}, SIZES["event"] - 1)
    return Batcher(sequences, heads, targets)


def opacus_engine(*arguments, **settings):
    """The engine over Opacus, which takes a second to import: where a test runs, not where it is collected."""
    from client.training.dpsgd.opacus_path import OpacusEngine

    return OpacusEngine(*arguments, **settings)


def brute_force_sum(model, batcher, rows, clip):
    """One consumer at a time with plain autograd."""
    flat = FlatParameters(model)
    total = torch.zeros(flat.layout.size)
    for row in rows:
        flat.gradient.zero_()
        loss = model.losses(batcher.packed(np.array([row]))).sum()
        if loss.requires_grad:
            loss.backward()
        norm = flat.gradient.norm()
        total += flat.gradient * min(1.0, clip / max(float(norm), 1e-30))
    return total


@pytest.mark.full
@pytest.mark.parametrize("variant", ONE_AND_MORE)
@pytest.mark.parametrize("clip", [0.1, 1e6])
def test_opacus_sums_equal_a_loop_over_consumers(variant, clip):
    batcher = batcher_of(variant=variant)
    rows = np.arange(20)
    expected = brute_force_sum(small_model(**variant), batcher, rows, clip)
    for micro_batch in (256, 7):
        total, seen = opacus_engine(small_model(**variant), batcher, clip, micro_batch).clipped_sum(rows)
        torch.testing.assert_close(total.float(), expected, rtol=2e-5, atol=2e-6)
        assert len(seen.norms) == len(seen.losses) == 20


@pytest.mark.parametrize("variant", VARIANTS[:2])
def test_plain_sums_equal_a_loop_over_consumers_without_clipping(variant):
    batcher = batcher_of()
    expected = brute_force_sum(small_model(**variant), batcher, np.arange(20), 1e9)
    total, _ = PlainEngine(small_model(**variant), batcher, micro_batch=6).clipped_sum(np.arange(20))
    torch.testing.assert_close(total, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("variant", ONE_AND_MORE)
def test_removing_one_consumer_changes_the_sum_by_at_most_the_clipping_norm(variant):
    engine = opacus_engine(small_model(**variant), batcher_of(variant=variant), clip=0.05)
    rows = np.arange(20)
    whole = engine.clipped_sum(rows)[0].clone()
    for row in rows:
        without = engine.clipped_sum(rows[rows != row])[0]
        assert (whole - without).norm() <= 0.05 * (1 + 1e-4)


def test_a_consumer_with_a_broken_gradient_adds_nothing_and_breaks_nobody():
    sequences = random_sequences(10)
    variant = {"heads": {"next-item": 1.0, "purchase-intent": 1.0}, "history": False}
    lengths = np.maximum(sequences.lengths - 1, 0)
    broken = int(np.argmax(lengths))
    values = np.zeros(10)
    values[broken] = 3e38  # its gradient is infinite, and times zero not a number
    batcher = Batcher(
        sequences, ("next-item", "purchase-intent"), RowTargets(lengths, {"purchase-intent": values})
    )
    engine = opacus_engine(small_model(**variant), batcher, clip=0.1)
    rows = np.arange(10)
    whole = engine.clipped_sum(rows)[0].clone()
    assert torch.isfinite(whole).all()
    torch.testing.assert_close(whole, engine.clipped_sum(rows[rows != broken])[0])


def test_a_model_of_nan_still_gives_a_finite_noisy_update():
    plan = dataclasses.replace(PLAN, noise_multiplier=1.0, steps=1)
    engine = opacus_engine(small_model(), batcher_of(), clip=plan.clip)
    start = np.full(engine.parameters.layout.size, np.nan, dtype=np.float32)
    total, _ = (engine.parameters.load(start), engine.clipped_sum(np.arange(20)))[1]
    assert torch.count_nonzero(total) == 0


def test_clip_factors_never_let_a_norm_pass_the_bound():
    norms = torch.tensor([0.0, 1e-20, 0.5, 1.0, 1.0000001, 7.0, 1e18, float("inf"), float("nan")])
    factors = clip_factors(norms.square(), 1.0)
    assert factors[:3].tolist() == [1, 1, 1]
    assert factors[-2:].tolist() == [0, 0]
    assert (factors[:-2].double() * norms[:-2].double() <= 1).all()


def test_the_update_is_the_sum_of_the_steps_of_a_hand_written_loop():
    start = FlatParameters(small_model()).numpy()
    engine = opacus_engine(small_model(seed=9), batcher_of(), clip=0.1)
    result = train_locally(engine, start, PLAN, SeededStream(4))
    stream, model = SeededStream(4), small_model()
    stream.bytes(7)  # the seed of dropout
    theta = FlatParameters(model)
    for _ in range(3):
        rows = np.flatnonzero(stream.bernoulli(0.5, 20))
        step = brute_force_sum(model, batcher_of(), rows, 0.1) / 10.0  # public: rate * population
        theta = FlatParameters(model)
        theta.vector -= 0.5 * step
    np.testing.assert_allclose(result.update, theta.numpy() - start, rtol=1e-3, atol=1e-6)
    assert result.events == ()


def test_the_same_seed_gives_the_same_bits_and_another_site_other_bits():
    start = FlatParameters(small_model()).numpy()

    def run(site):
        engine = PlainEngine(small_model(dropout=0.3, layers=2), batcher_of())
        begin = FlatParameters(small_model(dropout=0.3, layers=2)).numpy()
        return train_locally(engine, begin, PLAN, seeded_stream(7, site, 1)).update

    assert run("north").tobytes() == run("north").tobytes()
    assert run("north").tobytes() != run("south").tobytes()
    assert len(start) > 0


def test_an_empty_batch_is_a_noised_step_that_is_charged():
    plan = dataclasses.replace(PLAN, noise_multiplier=2.0, sampling_rate=1e-9, steps=2)
    engine = opacus_engine(small_model(), batcher_of(), clip=plan.clip)
    start = engine.parameters.numpy()
    result = train_locally(engine, start, plan, PrivateStream())
    assert result.diagnostics.batch_sizes == [0, 0]
    assert np.count_nonzero(result.update) > 0.99 * len(start)
    assert [(e.steps, e.sub_scope) for e in result.events] == [(2, TRAIN_SIDE)]


def test_noise_has_the_standard_deviation_of_the_plan_on_every_tensor():
    plan = dataclasses.replace(PLAN, noise_multiplier=2.0, steps=1, sampling_rate=1e-9, learning_rate=1.0)
    engine = opacus_engine(small_model(), batcher_of(), clip=plan.clip)
    start = engine.parameters.numpy()
    runs = [train_locally(engine, start, plan, SeededStream(s)).update for s in range(40)]
    for name, (offset, shape) in engine.parameters.layout.entries.items():
        part = np.concatenate([r[offset : offset + int(np.prod(shape))] for r in runs])
        spread = 1 / np.sqrt(2 * len(part))
        assert part.std() == pytest.approx(2.0 * 0.1 / plan.expected_batch, rel=5 * spread), name


def test_the_divisor_and_the_event_do_not_depend_on_the_data():
    plan = dataclasses.replace(PLAN, noise_multiplier=1.0)
    few = train_locally(opacus_engine(small_model(), batcher_of(3), 0.1), start_vector(), plan, PrivateStream())
    many = train_locally(opacus_engine(small_model(), batcher_of(30), 0.1), start_vector(), plan, PrivateStream())
    assert few.events == many.events != ()
    assert plan.expected_batch == 10.0


def start_vector():
    return FlatParameters(small_model()).numpy()


def test_the_proximal_term_pulls_towards_the_incoming_model():
    far = train_locally(PlainEngine(small_model(), batcher_of()), start_vector(), PLAN, SeededStream(2)).update
    near = train_locally(
        PlainEngine(small_model(), batcher_of()),
        start_vector(),
        dataclasses.replace(PLAN, proximal=1.0),
        SeededStream(2),
    ).update
    assert np.linalg.norm(near) < 0.9 * np.linalg.norm(far)


def test_item_rows_outside_the_sites_catalogue_are_exact_zeros():
    mask = np.zeros(SIZES["item"], dtype=bool)
    mask[[2, 5, 6]] = True
    whole = small_model()
    rows = item_rows(layout_of(whole), whole.item_tensors(), mask)
    site = build_model(whole.settings, ModelShape({**SIZES, "item": len(rows.rows)}), seed=1)
    sequences = random_sequences(20)
    table = sequences.integers.copy()
    table[:, 1] = rows.translate(table[:, 1])
    batcher = Batcher(dataclasses.replace(sequences, integers=table))
    engine = opacus_engine(site, batcher, clip=0.1)
    plan = dataclasses.replace(PLAN, noise_multiplier=1.0)
    start = rows.restrict(start_vector())
    assert engine.parameters.layout.size == len(start)
    update = layout_of(whole).split(rows.expand(train_locally(engine, start, plan, SeededStream(3)).update))
    for name in whole.item_tensors():
        touched = np.abs(update[name]).reshape(SIZES["item"], -1).sum(axis=1) > 0
        assert np.flatnonzero(touched).tolist() == [2, 5, 6]
    assert np.count_nonzero(update["context.event.weight"]) == update["context.event.weight"].size


def test_a_restricted_model_scores_its_items_like_the_whole_model():
    mask = np.ones(SIZES["item"], dtype=bool)
    mask[7:] = False
    whole = small_model()
    rows = item_rows(layout_of(whole), whole.item_tensors(), mask)
    site = small_model_of(len(rows.rows))
    FlatParameters(site).load(rows.restrict(start_vector()))
    sequences = random_sequences(5)
    table = sequences.integers.copy()
    table[:, 1] %= 7
    batch = Batcher(dataclasses.replace(sequences, integers=table)).packed(np.arange(5))
    a = whole.heads["next-item"].logits(whole.hidden_states(batch), batch)[:, :7]
    torch.testing.assert_close(a, site.heads["next-item"].logits(site.hidden_states(batch), batch))


def small_model_of(items):
    return build_model(small_model().settings, ModelShape({**SIZES, "item": items}), seed=2)


def test_an_engine_with_another_clip_than_the_plan_is_refused():
    plan = dataclasses.replace(PLAN, noise_multiplier=1.0)
    with pytest.raises(ConfigError, match=r"clips at 0\.3"):
        train_locally(opacus_engine(small_model(), batcher_of(), 0.3), start_vector(), plan, SeededStream(1))


def test_hardened_noise_is_used_when_asked_for():
    plan = dataclasses.replace(PLAN, noise_multiplier=1.0)
    usual = plan.mechanism(plan.clip, SeededStream(1)).noise(1000)
    hard = dataclasses.replace(plan, hardened=True).mechanism(plan.clip, SeededStream(1)).noise(1000)
    assert not np.array_equal(usual, hard)
    assert hard.std() == pytest.approx(plan.clip, rel=0.15)


def test_a_plan_follows_from_settings_and_declarations():
    plan = local_plan(RunConfig(), population=1024, sites=4, noise_multiplier=1.5, signal=300.0)
    assert plan.expected_batch == pytest.approx(0.1 * 1024 * 0.8)
    assert plan.learning_rate == pytest.approx(0.02)  # .02 * sqrt(4), halved at this signal
    assert not local_plan(RunConfig(privacy={"enabled": False}), 1024, 4, 1.5, 300.0).private


def test_private_diagnostics_do_not_show_themselves():
    result = train_locally(PlainEngine(small_model(), batcher_of()), start_vector(), PLAN, SeededStream(2))
    assert "losses" not in repr(result)
    assert repr(result.diagnostics) == "LocalDiagnostics(private)"
    assert SHAPE.sizes["item"] == 13


def test_the_trainerstorch_turn_are_those_of_doubles():
    angle = np.linspace(-np.pi, np.pi, 10_001)
    cosine, sine = torch_turn(angle.copy())
    np.testing.assert_allclose(cosine, np.cos(angle), rtol=0, atol=2.3e-16)
    np.testing.assert_allclose(sine, np.sin(angle), rtol=0, atol=2.3e-16)


def test_noise_is_drawn_in_doubles_and_rounded_once():
    plan = dataclasses.replace(PLAN, noise_multiplier=1.0, clip=1.0)
    noise = plan.mechanism(plan.clip, SeededStream(1)).noise(20_000)
    drawn = np.empty(20_000)
    SeededStream(1).fill_gaussian(drawn)
    slack = 1 + rounding_slack(plan.expected_batch)
    np.testing.assert_allclose(noise, drawn * slack, rtol=1e-12, atol=1e-14)
