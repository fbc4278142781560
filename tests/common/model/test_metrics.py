from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import common.model.heads as heads
import common.model.metrics as metrics
from client.training.evaluation import MetricNoise, evaluate, metric_sums
from common.errors import ConfigError
from common.model.batch import Batcher
from common.model.metrics import consumer_metrics, expected_ranks
from common.model.parameters import FlatParameters
from common.model.targets import purchase_intent
from common.privacy.mechanism import HOLDOUT_SIDE
from common.tasks import histogram_auc, metric_names, metric_sensitivity, summarise
from common.trust.randomness import PrivateStream, SeededStream
from tests.common.model.tiny_market import SIZES, random_sequences, sequences_of, small_model
from tests.intent_samples import asked_rows

ALL_HEADS = ["next-item", "next-event", "next-category", "purchase-intent"]


def brute_force(model, sequences, k):
    """Loss, recall, MRR, event accuracy and count by a loop over consumers and steps."""
    total = np.zeros(5)
    batcher = Batcher(sequences)
    for row in range(len(sequences)):
        batch = batcher.packed(np.array([row]))
        if batch.steps == 0 or not (batch.targets["next-item"] > 0).any():
            continue
        hidden = model.hidden_states(batch)
        hits, gains, events = [], [], []
        logits = model.heads["next-item"].logits(hidden, batch).tolist()
        for step, target in enumerate(batch.targets["next-item"].tolist()):
            if target:
                rank = sum(score > logits[step][target] for score in logits[step])
                hits.append(rank < k)
                gains.append((rank < k) / (rank + 1))
        guesses = model.heads["next-event"].logits(hidden, batch).argmax(1)
        for guess, target in zip(guesses.tolist(), batch.targets["next-event"].tolist(), strict=True):
            if target:
                events.append(guess == target)
        loss = min(model.losses(batch).item() / 10, 1)
        total += [1, loss, np.mean(hits), np.mean(gains), np.mean(events)]
    return total


@pytest.mark.parametrize("k", [1, 4])
def test_metric_sums_equal_a_loop_over_consumers_and_steps(monkeypatch, k):
    monkeypatch.setattr(metrics, "rank_metrics", functools.partial(metrics.rank_metrics, k=k))
    sequences = random_sequences(25, seed=3)
    model = small_model().eval()
    np.testing.assert_allclose(metric_sums(model, Batcher(sequences)), brute_force(model, sequences, k), rtol=1e-5)


@pytest.mark.parametrize("cells", [1, 40, 1 << 18])
@pytest.mark.parametrize("targets", ["every", "last"])
def test_logits_in_pieces_are_the_logits_of_the_loss(monkeypatch, cells, targets):
    monkeypatch.setattr(heads, "CELLS_AT_ONCE", cells)
    sequences, names = random_sequences(25, seed=4), ["next-item", "next-event", "next-category"]
    model = small_model(heads=dict.fromkeys(names, 1.0), copy_bonus=2.0).eval()
    batch = Batcher(sequences, names, targets=targets).packed(np.arange(25))
    hidden = model.hidden_states(batch)
    for name, head in model.heads.items():
        asked = batch.target_steps(name, hidden)
        states = asked.hidden.flatten(0, -2)
        pieces = [(piece, logits.clone()) for piece, logits in head.logits_in_pieces(states, asked.batch)]
        assert [i for piece, _ in pieces for i in range(piece.start, piece.stop)] == list(range(len(states)))
        whole = head.logits(asked.hidden, asked.batch).flatten(0, -2)
        torch.testing.assert_close(torch.cat([logits for _, logits in pieces]), whole)


def test_ties_count_with_their_mean_rank_and_nan_never_helps():
    scores = torch.tensor([[5.0, 1.0, 1.0, 1.0], [float("nan"), 2.0, 0.0, 0.0], [1.0, float("nan"), 0.0, 0.0]])
    assert expected_ranks(scores, torch.tensor([2, 1, 1])).tolist() == [2.0, 1.0, 4.0]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), 1e30])
def test_one_consumers_metrics_stay_within_the_public_bound_whatever_the_model_is(broken):
    sequences = random_sequences(30)
    lengths = np.maximum(sequences.lengths - 1, 0)
    values = {"purchase-intent": np.arange(30) % 2.0}
    batcher = Batcher(sequences, ALL_HEADS, asked_rows(lengths, values, SIZES["event"] - 1))
    for fill in (None, broken):
        model = small_model(heads=dict.fromkeys(ALL_HEADS, 1.0))
        flat = FlatParameters(model)
        if fill is not None:
            flat.vector.fill_(fill)
        vectors = consumer_metrics(model, batcher.packed(np.arange(30)))
        assert np.isfinite(vectors).all()
        assert vectors.min() >= 0
        assert vectors.max() <= 1
        assert np.linalg.norm(vectors, axis=1).max() <= metric_sensitivity(ALL_HEADS) + 1e-12


def test_the_sensitivity_counts_a_histogram_once():
    assert metric_sensitivity(["next-item", "next-event"]) == pytest.approx(math.sqrt(5))
    assert metric_sensitivity(["purchase-intent"]) == pytest.approx(math.sqrt(3))


def test_released_sums_carry_noise_of_the_stated_size_on_every_coordinate_and_an_event():
    batcher, model = Batcher(random_sequences(10)), small_model()
    drawn, exact = (
        [evaluate(model, batcher, MetricNoise(3.0), PrivateStream()) for _ in range(80)],
        metric_sums(model, batcher),
    )
    noise = np.array([d.vector - exact for d in drawn])
    assert noise.std(axis=0) == pytest.approx(np.full(5, 3 * math.sqrt(5)), rel=0.3)
    (event,) = drawn[0].events
    assert (event.sampling_rate, event.steps, event.sub_scope, event.noise_multiplier) == (
        1.0,
        1,
        HOLDOUT_SIDE,
        3.0,
    )


def test_without_noise_the_release_is_exact_and_uncharged():
    model, batcher = small_model(), Batcher(random_sequences(10))
    release = evaluate(model, batcher, MetricNoise(0.0), SeededStream(1))
    assert np.array_equal(release.vector, metric_sums(model, batcher))
    assert release.events == ()


def test_an_empty_holdout_gives_zeros_and_no_number():
    sums = metric_sums(small_model(), Batcher(random_sequences(0)))
    assert sums.tolist() == [0] * 5
    assert all(math.isnan(v) for v in summarise(["next-item", "next-event"], sums).values())


def test_sums_become_means_and_the_loss_is_in_nats_again():
    named = summarise(["next-item", "next-event"], np.array([10.0, 4.0, 5.0, 2.0, 8.0]))
    assert named == pytest.approx({"loss": 4.0, "recall@20": 0.5, "mrr@20": 0.2, "event_accuracy": 0.8})


def test_the_histogram_auc_is_the_auc_of_scikit_learn():
    rng = np.random.default_rng(0)
    score, label = rng.integers(0, 20, 500), rng.random(500) < 0.3
    score = np.minimum(score + 3 * label, 19)
    bins = [np.bincount(score[label == kind], minlength=20).astype(float) for kind in (False, True)]
    assert histogram_auc(bins[0], bins[1]) == pytest.approx(roc_auc_score(label, score))
    assert math.isnan(histogram_auc(bins[0], np.zeros(20)))


def test_intent_labels_look_only_behind_the_cut():
    rows = [[1, 2, 3, 4], [1, 2], [5, 6, 7], []]
    events = [[1, 4, 1, 4], [4, 4], [4, 1, 1], []]
    sequences = sequences_of(rows, event=events)
    targets = purchase_intent(sequences.column("event"), sequences.offsets, purchase=4, asked=(2, 0))
    assert targets.lengths.tolist() == [2, 0, 1, 0]
    label = targets.values["purchase-intent"]
    assert label[[0, 2]].tolist() == [1.0, 0.0]
    assert np.isnan(label[[1, 3]]).all()
    batch = Batcher(sequences, ["purchase-intent"], targets).packed(np.arange(4))
    assert batch.inputs["item"].tolist() == [1, 5, 2]


def test_an_unknown_head_has_no_metric():
    with pytest.raises(ConfigError, match="next-thing"):
        metric_names(["next-thing"])


def test_a_loss_of_logits_that_lie_far_apart_is_that_of_double_precision_without_denormal_numbers():
    generator = torch.Generator().manual_seed(3)
    logits = 60 * torch.randn(40, 300, generator=generator)
    logits[:, 0] = float("-inf")
    target = torch.randint(1, 300, (40,), generator=generator)
    exact = torch.nn.functional.cross_entropy(logits.double(), target, reduction="none")
    powers = heads.shifted_exp_(logits.clone(), logits.amax(1, keepdim=True))
    assert float(powers.min()) >= torch.finfo(torch.float32).tiny
    found = metrics._cross_entropy_of(logits.clone(), target)
    assert torch.allclose(found.double(), exact, rtol=1e-6, atol=1e-6)
