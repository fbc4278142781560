from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from common.errors import ConfigError
from common.model.batch import Batcher
from common.model.network import ModelShape
from common.model.parameters import FlatParameters
from common.model.targets import RowTargets
from tests.common.model.tiny_market import NAMES, SIZES, random_sequences, sequences_of, small_model
from tests.intent_samples import asked_rows

VARIANTS = [
    {},
    {"encoder": "gru"},
    {"layers": 2, "hidden": 6},
    {"tied": False, "copy_bonus": 0.0},
    {"heads": {"next-item": 1.0, "next-event": 0.3, "next-category": 0.2}},
    {"sampled_negatives": 4},
    {"heads": {"next-item": 1.0, "purchase-intent": 0.5}, "pooling": "attention"},
    {"heads": {"purchase-intent": 1.0}},
]


def batcher_for(sequences, variant):
    heads = list(variant.get("heads", {"next-item": 1, "next-event": 1}))
    targets = None
    if "purchase-intent" in heads:
        lengths = np.maximum(sequences.lengths - 1, 0)
        values = {h: (np.arange(len(sequences)) % 2).astype(float) for h in heads if h == "purchase-intent"}
        targets = asked_rows(lengths, values, SIZES["event"] - 1)
    return Batcher(sequences, heads, targets)


def gradient(model, batch):
    flat = FlatParameters(model)
    model.losses(batch).sum().backward()
    return flat.gradient.clone()


@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_and_padded_rows_give_the_same_losses_and_gradients(variant):
    sequences = random_sequences(30)
    batcher = batcher_for(sequences, variant)
    model = small_model(**variant)
    rows = np.random.default_rng(1).permutation(30)
    packed, padded = batcher.packed(rows), batcher.padded(rows)
    assert torch.equal(packed.consumers, padded.consumers)
    torch.testing.assert_close(model.losses(packed), model.losses(padded), rtol=1e-5, atol=1e-6)
    a, b = gradient(model, packed), gradient(model, padded)
    assert a.abs().max() > 0
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_loss_is_the_sum_of_the_losses_of_single_consumers(variant):
    sequences = random_sequences(12)
    batcher = batcher_for(sequences, variant)
    model = small_model(**variant)
    batch = batcher.packed(np.arange(12))
    together = dict(zip(batch.consumers.tolist(), model.losses(batch).tolist(), strict=True))
    for row in range(12):
        assert model.losses(batcher.packed(np.array([row]))).item() == pytest.approx(
            together[row], rel=1e-4, abs=1e-6
        )


def test_packed_rows_are_in_the_order_of_torchs_packed_sequence():
    batch = Batcher(sequences_of([[1, 2], [], [3, 4, 5, 6], [7]])).packed(np.arange(4))
    assert batch.consumers.tolist() == [2, 0, 1, 3]
    assert batch.lengths.tolist() == [3, 1, 0, 0]
    assert batch.batch_sizes.tolist() == [2, 1, 1]
    assert batch.inputs["item"].tolist() == [3, 1, 4, 5]
    assert batch.targets["next-item"].tolist() == [4, 2, 5, 6]
    assert batch.consumer_of_row.tolist() == [0, 1, 0, 0]
    assert batch.step_of_row.tolist() == [0, 0, 1, 2]
    assert batch.last_row[:2].tolist() == [3, 1]
    assert batch.weights["next-item"].tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])


def test_the_last_event_of_a_row_that_is_read_whole_has_no_next_event():
    sequences = sequences_of([[1, 2], [3, 4, 5], []])
    batch = Batcher(sequences, ["next-item"], RowTargets(sequences.lengths, {})).packed(np.arange(3))
    assert batch.inputs["item"].tolist() == [3, 1, 4, 2, 5]
    assert batch.targets["next-item"].tolist() == [4, 2, 5, 0, 0]
    assert batch.weights["next-item"].tolist() == [0.5, 1.0, 0.5, 0.0, 0.0]


def test_consumers_without_a_step_have_no_loss_and_no_gradient():
    batcher = Batcher(sequences_of([[], [4], [1, 2, 3]]))
    model = small_model()
    losses = model.losses(batcher.packed(np.arange(3)))
    assert (losses > 0).tolist() == [True, False, False]
    assert model.losses(batcher.packed(np.array([0, 1]))).tolist() == [0.0, 0.0]
    assert model.losses(batcher.packed(np.array([], dtype=np.int64))).shape == (0,)


def test_the_copy_bonus_is_added_once_to_every_item_seen_so_far_and_to_no_other():
    sequences = sequences_of([[3, 5, 3, 0, 7], [2, 2, 4]])
    batcher = Batcher(sequences)
    with_bonus, without = small_model(copy_bonus=3.0), small_model(copy_bonus=0.0)
    for batch in (batcher.packed(np.arange(2)), batcher.padded(np.arange(2))):
        hidden = with_bonus.hidden_states(batch)
        bonus = with_bonus.heads["next-item"].logits(hidden, batch) - without.heads["next-item"].logits(
            hidden, batch
        )
        bonus = bonus[..., 1:].flatten(0, -2)
        seen = {(0, 0): {3}, (0, 1): {3, 5}, (0, 2): {3, 5}, (0, 3): {3, 5}, (1, 0): {2}, (1, 1): {2}}
        for row in range(len(bonus)):
            place = int(batch.consumer_of_row[row]), int(batch.step_of_row[row])
            boosted = {i + 1 for i in torch.nonzero(bonus[row].abs() > 1e-4)[:, 0].tolist()}
            assert boosted == seen.get(place, set())
            assert bonus[row][bonus[row].abs() > 1e-4].tolist() == pytest.approx([3.0] * len(boosted), abs=1e-4)


def test_the_copy_bonus_of_the_next_category_goes_to_the_last_known_one_and_to_no_other():
    items, categories = [[3, 5, 3, 2, 7], [2, 2, 4], [1]], [[0, 2, 0, 1, 1], [1, 0, 2], [2]]
    batcher = Batcher(sequences_of(items, category=categories), ["next-item", "next-category"])
    heads = {"next-item": 1.0, "next-category": 1.0}
    with_bonus, without = small_model(copy_bonus=3.0, heads=heads), small_model(copy_bonus=0.0, heads=heads)
    for batch in (batcher.packed(np.arange(3)), batcher.padded(np.arange(3))):
        hidden = with_bonus.hidden_states(batch)
        bonus = with_bonus.heads["next-category"].logits(hidden, batch)
        bonus = (bonus - without.heads["next-category"].logits(hidden, batch))[..., 1:].flatten(0, -2)
        last = {(0, 0): 0, (0, 1): 2, (0, 2): 2, (0, 3): 1, (1, 0): 1, (1, 1): 1}
        for row in torch.nonzero(batch.valid.flatten())[:, 0].tolist():
            place = int(batch.consumer_of_row[row]), int(batch.step_of_row[row])
            expected = [3.0 if category == last[place] else 0.0 for category in range(1, bonus.shape[1] + 1)]
            assert bonus[row].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_residual_path_adds_the_embedding_to_the_encoder_output():
    model = small_model()
    batch = Batcher(random_sequences(8)).packed(np.arange(8))
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
    torch.testing.assert_close(model.hidden_states(batch), model.embed(batch.inputs))


def test_a_tied_model_has_one_item_matrix_and_an_untied_model_two():
    tied, untied = small_model(tied=True), small_model(tied=False)
    assert tied.heads["next-item"].linear.weight is tied.item.weight
    assert tied.item_tensors() == ("item.weight", "heads.next-item.linear.bias")
    assert "heads.next-item.linear.weight" in untied.item_tensors()


def test_unknown_items_are_never_predicted_and_never_learnt():
    model = small_model()
    batch = Batcher(random_sequences(20)).packed(np.arange(20))
    logits = model.heads["next-item"].logits(model.hidden_states(batch), batch)
    assert torch.isneginf(logits[:, 0]).all()
    flat = FlatParameters(model)
    model.losses(batch).sum().backward()
    assert torch.count_nonzero(model.item.weight.grad[0]) == 0
    assert torch.isfinite(flat.gradient).all()


@settings(deadline=None, max_examples=12, derandomize=True)
@given(step=st.integers(0, 6), seed=st.integers(0, 50), variant=st.sampled_from(VARIANTS[:4]))
def test_changing_the_future_does_not_change_past_predictions(step, seed, variant):
    rng = np.random.default_rng(seed)
    row = rng.integers(1, 13, 9)
    changed = row.copy()
    changed[step + 1 :] = rng.integers(1, 13, 8 - step)
    model = small_model(**variant)
    answers = []
    for items in (row, changed):
        batch = Batcher(sequences_of([items.tolist()])).packed(np.array([0]))
        answers.append(model.heads["next-item"].logits(model.hidden_states(batch), batch)[: step + 1])
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)


def test_parameters_follow_from_the_seed_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = FlatParameters(small_model(seed=3)).vector
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, FlatParameters(small_model(seed=3)).vector)
    assert not torch.equal(first, FlatParameters(small_model(seed=4)).vector)


def test_attention_shares_sum_to_one_over_existing_steps():
    variant = VARIANTS[6]
    model = small_model(**variant)
    batcher = batcher_for(random_sequences(10), variant)
    for batch in (batcher.packed(np.arange(10)), batcher.padded(np.arange(10))):
        share = model.attention_weights(model.hidden_states(batch), batch).reshape(-1)
        total = torch.zeros(10).index_add(0, batch.consumer_of_row, share)
        torch.testing.assert_close(total, (batch.lengths > 0).float())


def test_impossible_models_are_refused_with_a_hint():
    with pytest.raises(ConfigError, match="no head named 'next-thing'"):
        small_model(heads={"next-thing": 1.0})
    with pytest.raises(ConfigError, match="catalogue"):
        ModelShape(dict.fromkeys(NAMES, 1))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(seed=st.integers(0, 1000))
def test_weights_of_a_consumer_sum_to_one_or_zero_in_both_layouts(seed):
    batcher = Batcher(random_sequences(15, seed=seed))
    for batch in (batcher.packed(np.arange(15)), batcher.padded(np.arange(15))):
        total = torch.zeros(15).index_add(0, batch.consumer_of_row, batch.weights["next-item"].reshape(-1))
        assert ((total - 1).abs().lt(1e-5) | (total == 0)).all()


def test_what_an_event_is_beside_its_item_enters_scaled_so_that_it_takes_its_share_of_the_clip_only() -> None:
    model = small_model()
    inputs = Batcher(random_sequences(8)).packed(np.arange(8)).inputs
    x = model.embed(inputs)
    items = model.item(inputs["item"]) * (inputs["item"] > 0)[..., None]
    context = sum(table(inputs[name]) for name, table in model.context.items())
    torch.testing.assert_close(x - items, model.settings.context_scale * context)
    assert model.settings.context_scale == 0.5
