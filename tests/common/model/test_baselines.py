from __future__ import annotations

import numpy as np
import pytest
import torch

from common.model import batch as batches
from common.model.baselines import BACKOFF, RANKS, asked_steps, evaluate_baselines, fit
from common.model.batch import Batcher
from common.model.metrics import expected_ranks
from tests.common.model.tiny_market import SIZES, random_sequences, sequences_of


@pytest.fixture
def market():
    train = sequences_of([[1, 2, 1, 2, 3], [1, 2, 0, 3], [4]])
    return train, fit(train, items=6)


def test_popularity_is_the_share_of_each_item_and_unknown_items_have_none(market):
    counts = market[1].popularity
    assert counts.tolist() == pytest.approx([0, 3 / 9, 3 / 9, 2 / 9, 1 / 9, 0])


def test_markov_counts_moves_between_known_items_and_skips_events_without_item(market):
    moves = market[1].transitions.toarray()
    assert moves[1, 2] == 3
    assert moves[2, 1] == 1
    assert moves[2, 3] == 2
    assert moves.sum() == 6


def test_similarity_counts_a_consumer_once_per_item(market):
    near = market[1].similarity.toarray()
    assert near[1, 2] == pytest.approx(1.0)
    assert near[1, 3] == pytest.approx(1.0)
    assert near[1, 4] == 0


def dense_scores(counts, sequences):
    """Scores of every item at every step whose next item is known, baseline by baseline, by a loop."""
    scores = {name: [] for name in RANKS}
    for a, b in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True):
        row = sequences.column("item")[a:b].tolist()
        for step, target in enumerate(row[1:]):
            if target == 0:
                continue
            seen = {item: 1.0 + when for when, item in enumerate(row[: step + 1]) if item}
            last = next((item for item in reversed(row[: step + 1]) if item), 0)
            recent = counts.popularity.copy()
            for item, score in seen.items():
                recent[item] = score
            scores["popularity"].append(counts.popularity)
            scores["markov"].append(counts.transitions.toarray()[last] + BACKOFF * counts.popularity)
            scores["item-knn"].append(counts.similarity.toarray()[last] + np.float32(1e-6) * counts.popularity)
            scores["repeat-last"].append(recent)
    return {name: torch.from_numpy(np.stack(rows)) for name, rows in scores.items()}


@pytest.mark.parametrize("name", RANKS)
def test_ranks_are_those_among_the_scores_of_all_items(name):
    train, holdout = random_sequences(40, seed=5), random_sequences(30, seed=6)
    counts = fit(train, SIZES["item"])
    found, expected = [], []
    for row in range(30):  # one consumer at a time: the steps then stand in the order of the loop
        batch = Batcher(holdout).packed(np.array([row]))
        if batch.steps:
            steps = asked_steps(counts, batch)
            found += RANKS[name](counts, steps).tolist()
            expected += steps.target.tolist()
    scores = dense_scores(counts, holdout)[name]
    np.testing.assert_array_equal(found, expected_ranks(scores, torch.tensor(expected)).numpy())


def test_the_latest_item_comes_first_and_popular_ones_behind_those_seen(market):
    counts = market[1]
    steps = asked_steps(counts, Batcher(sequences_of([[3, 1, 0, 2, 3]])).packed(np.array([0])))
    assert steps.last.tolist() == [3, 1, 2]
    assert steps.target.tolist() == [1, 2, 3]
    assert steps.recent.tolist() == [
        1.5,
        2,
        2,
    ]  # behind 3: 1 and 2 are equally popular; then 3 is the oldest of three


def test_metrics_equal_a_loop_over_steps():
    train, holdout = random_sequences(40, seed=1), random_sequences(15, seed=2)
    counts = fit(train, 13)
    found = evaluate_baselines(counts, Batcher(holdout))
    share = counts.popularity
    rank = [(share > s).sum() + ((share == s).sum() - 1) / 2 for s in share]  # ties share their ranks
    total, answered = 0.0, 0
    for a, b in zip(holdout.offsets[:-1], holdout.offsets[1:], strict=True):
        targets = [t for t in holdout.column("item")[a + 1 : b] if t > 0]
        if targets:
            answered += 1
            total += np.mean([1 / (1 + rank[t]) for t in targets])
    assert found["popularity"]["mrr@20"] == pytest.approx(total / answered, rel=1e-6)
    assert found["popularity"]["recall@20"] == pytest.approx(1.0)
    assert set(found) == {"popularity", "markov", "item-knn", "repeat-last", "majority"}


def test_a_large_catalogue_is_scored_in_small_pieces_with_the_same_result(monkeypatch):
    train, holdout = random_sequences(40, seed=1), random_sequences(15, seed=2)
    counts, batcher = fit(train, 13), Batcher(holdout)
    whole, pieces = evaluate_baselines(counts, batcher), []
    monkeypatch.setattr(batches, "SCORES_AT_ONCE", 2 * 13 * batcher.steps.mean())
    monkeypatch.setattr(
        batcher, "packed", lambda rows, packed=batcher.packed: pieces.append(len(rows)) or packed(rows)
    )
    for name, metrics in evaluate_baselines(counts, batcher).items():
        assert metrics == pytest.approx(whole[name], rel=1e-12)
    assert max(pieces) == 2
    assert sum(pieces) == 15


def test_each_baseline_wins_where_its_assumption_holds():
    cycle = [[1 + (s + t) % 12 for t in range(8)] for s in range(12)]
    sequences = sequences_of(cycle)
    counts = fit(sequences, 13)
    found = {n: v.get("mrr@20", 0) for n, v in evaluate_baselines(counts, Batcher(sequences)).items()}
    assert max(found, key=found.get) == "markov"
    assert found["markov"] == pytest.approx(1.0)
    same = sequences_of([[i] * 6 for i in range(1, 13)])
    found = evaluate_baselines(fit(sequences, 13), Batcher(same))
    assert found["repeat-last"]["mrr@20"] == pytest.approx(1.0)


def test_empty_rows_and_an_empty_holdout_are_no_obstacle():
    empty = sequences_of([[], [3]])
    assert evaluate_baselines(fit(empty, 6), Batcher(empty))["markov"]["recall@20"] == 0.0
    none = random_sequences(0)
    assert evaluate_baselines(fit(none, 6), Batcher(none))["majority"]["event_accuracy"] == 0.0


def test_the_last_known_category_is_guessed_again_and_nothing_comes_from_another_consumer():
    categories = [[2, 0, 3, 3, 2], [0, 2, 2], [3]]
    items = [[1, 1, 1, 1, 1], [1, 1, 1], [1]]
    rows = sequences_of(items, category=categories)
    found = evaluate_baselines(fit(rows, 6), Batcher(rows, ["next-item", "next-category"]))
    # first consumer: 2 asks for nothing known (weight 0), 2 -> 3 no, 3 -> 3 yes, 3 -> 2 no; second: nothing -> 2 no, 2 -> 2
    assert found["repeat-last"]["category_accuracy"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    # 2 and 3 occur four and three times: the majority is 2
    assert found["majority"]["category_accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert "event_accuracy" not in found["majority"]
