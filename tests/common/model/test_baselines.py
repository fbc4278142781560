from __future__ import annotations

import numpy as np
import pytest

from common.model import batch as batches
from common.model.baselines import BACKOFF, SCORERS, evaluate_baselines, fit
from common.model.batch import Batcher
from tests.common.model.tiny_market import random_sequences, sequences_of


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


def test_scores_by_hand(market):
    counts = market[1]
    batch = Batcher(sequences_of([[3, 1, 0, 2, 3]])).packed(np.array([0]))
    asked = np.array([0, 2, 3])  # the next item is known behind steps 0, 2 and 3
    last = np.array([3, 1, 2])  # the latest known item at each of them
    scores = {name: scorer(counts, batch, asked, last) for name, scorer in SCORERS.items()}
    np.testing.assert_allclose(scores["popularity"], np.repeat(counts.popularity[None], 3, axis=0))
    wanted = counts.transitions.toarray()[[3, 1, 2]] + BACKOFF * counts.popularity
    np.testing.assert_allclose(scores["markov"], wanted)
    recent = [np.argsort(-row)[:3].tolist() for row in scores["repeat-last"]]
    assert recent[0][0] == 3
    assert recent[1][:2] == [1, 3]
    assert recent[2] == [2, 1, 3]


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
