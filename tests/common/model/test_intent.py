"""Purchase intent: cuts without leakage, metrics from histograms, baselines."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from common.data.formats import EVENT_TYPES
from common.errors import ConfigError
from common.model.intent_baselines import (
    boosted_trees,
    evaluate_intent_baselines,
    every_ask,
    histogram_metrics,
    intent_table,
)
from common.model.targets import INTENT, dated_intent, row_targets, session_intent
from common.run import build_config
from common.tasks import INTENT_BINS, intent_metrics
from tests.common.model.tiny_market import sequences_of

HOUR = 3_600_000_000
GAP = HOUR // 2
BUY, VIEW = EVENT_TYPES.index("purchase") + 1, EVENT_TYPES.index("view") + 1


def _row(*events):
    """Rows from (hour, bought) pairs: bought flags, timestamps, offsets."""
    stamps = np.array([int(t * HOUR) for row in events for t, _ in row], dtype=np.int64)
    bought = np.array([b for row in events for _, b in row], dtype=bool)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in events])]).astype(np.int64)
    return bought, stamps, offsets


def test_the_last_session_that_is_long_enough_is_cut_after_its_first_events():
    rows = _row(
        [(0, False), (0.1, True), (9, False), (9.1, False), (9.2, True)],  # the second session buys after two
        [(0, False), (0.1, False), (0.2, False), (9, True)],  # the last session is too short
        [(0, True), (5, True)],  # none is long enough
    )
    targets = session_intent(*rows, (2, GAP))
    assert targets.lengths.tolist() == [4, 2, 2]
    np.testing.assert_array_equal(targets.values[INTENT], [1.0, 0.0, np.nan])


def test_a_session_that_ends_at_the_question_is_asked_too_and_bought_nothing():
    """Whether a session goes on is part of the answer: leaving out those that do not would tell it."""
    rows = _row([(0, False), (0.1, True)], [(0, True), (0.1, True), (9, False), (9.1, True)])
    targets = session_intent(*rows, (2, GAP))
    assert targets.lengths.tolist() == [2, 4]
    assert targets.values[INTENT].tolist() == [0.0, 0.0]


def test_earlier_moments_are_earlier_sessions_of_the_same_row():
    rows = _row(
        [(0, False), (0.1, False), (0.2, True), (9, False), (9.1, False), (9.2, False)],
        [(0, False), (0.1, False), (0.2, True)],  # has only one: no earlier moment
    )
    assert session_intent(*rows, (2, GAP)).lengths.tolist() == [5, 2]
    earlier = session_intent(*rows, (2, GAP), back=1)
    assert earlier.lengths.tolist() == [2, 3]
    np.testing.assert_array_equal(earlier.values[INTENT], [1.0, np.nan])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), min_size=1, max_size=20), st.integers(1, 4))
def test_the_cut_depends_on_times_only_and_never_on_purchases(events, after):
    events = sorted(events)
    bought, stamps, offsets = _row(events)
    before = session_intent(bought, stamps, offsets, (after, GAP))
    flipped = session_intent(~bought, stamps, offsets, (after, GAP))
    assert before.lengths.tolist() == flipped.lengths.tolist()
    if np.isfinite(before.values[INTENT][0]):
        cut = int(before.lengths[0])
        later = stamps[cut:][np.cumsum(np.diff(stamps[cut - 1 :]) > GAP) == 0] if cut < len(stamps) else []
        assert before.values[INTENT][0] == bool(bought[cut : cut + len(later)].any())


def test_a_dated_question_reads_nothing_of_its_horizon():
    rows = _row([(1, True), (30, True)], [(1, True), (60, True)], [(30, True)], [(1, False)])
    targets = dated_intent(*rows, (24 * HOUR, 24 * HOUR))
    assert targets.lengths.tolist() == [1, 1, 0, 1]
    np.testing.assert_array_equal(targets.values[INTENT], [1.0, 0.0, np.nan, 0.0])


def test_every_question_is_mapped_from_the_settings_and_tasks_have_their_heads():
    sequences = replace(
        sequences_of([[1, 2, 3, 4]], event=[[VIEW, VIEW, BUY, VIEW]]),
        timestamps=np.array([0, 1, 2, 3], dtype=np.int64) * HOUR,
    )
    asked = {"ask": "events", "horizon": 2}
    targets = row_targets(build_config({"task": "purchase-intent", "intent": asked}), sequences)
    assert targets is not None
    assert (targets.lengths.tolist(), targets.values[INTENT].tolist()) == ([2], [1.0])
    dated = {"ask": "days", "cut": "1970-01-02", "horizon": 3}
    targets = row_targets(build_config({"task": "multi-task", "intent": dated}), sequences)
    assert targets is not None
    assert (targets.lengths.tolist(), targets.values[INTENT].tolist()) == ([4], [0.0])
    assert row_targets(build_config({}), sequences) is None
    override = build_config({"task": "purchase-intent"}, ["intent.ask=days", "intent.cut=2011-11-09"])
    assert override.intent.cut == "2011-11-09"
    assert list(build_config({"task": "purchase-intent"}).model.heads) == [INTENT]


@pytest.mark.parametrize(
    "tree",
    [
        {"task": "next-behaviour", "model": {"heads": {INTENT: 1.0}}},
        {"task": "purchase-intent", "model": {"heads": {"next-item": 1.0}}},
        {"task": "multi-task", "model": {"heads": {INTENT: 1.0}}},
        {"task": "purchase-intent", "intent": {"ask": "days"}},
        {"task": "purchase-intent", "intent": {"cut": "2011-11-09"}},
        {"task": "purchase-intent", "intent": {"ask": "days", "cut": "soon"}},
    ],
)
def test_heads_and_questions_that_do_not_fit_the_task_are_refused(tree):
    with pytest.raises(ConfigError):
        build_config(tree)


def test_histogram_metrics_agree_with_scikit_learn_up_to_the_bins():
    rng = np.random.default_rng(1)
    labels = rng.random(4000) < 0.3
    scores = (np.floor(np.clip(0.3 * labels + 0.6 * rng.random(4000), 0, 0.999) * INTENT_BINS) + 0.5) / INTENT_BINS
    found = histogram_metrics(scores, labels.astype(float))
    assert found["intent_auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert found["intent_ap"] == pytest.approx(average_precision_score(labels, scores))
    above = scores >= found["intent_threshold"]
    assert found["intent_f1"] == pytest.approx(f1_score(labels, above))
    assert found["intent_accuracy"] == pytest.approx(float((above == labels).mean()))
    assert all(f1_score(labels, scores >= t) <= found["intent_f1"] + 1e-9 for t in np.arange(20) / 20)


def test_calibration_error_is_zero_for_honest_scores_and_large_for_inverted_ones():
    middle = (np.arange(INTENT_BINS) + 0.5) / INTENT_BINS
    yes, no = 1000 * middle, 1000 * (1 - middle)
    assert intent_metrics(no, yes)["intent_calibration"] == pytest.approx(0, abs=1e-9)
    assert intent_metrics(yes, no)["intent_calibration"] > 0.3


def test_one_class_only_gives_no_number_instead_of_a_wrong_one():
    assert all(np.isnan(v) for v in histogram_metrics(np.array([0.2, 0.9]), np.zeros(2)).values())
    assert boosted_trees(np.zeros((3, 2)), np.ones(3), np.zeros((2, 2))).tolist() == [1.0, 1.0]


def test_the_table_of_the_baselines_reads_only_what_the_cut_allows():
    sequences = sequences_of([[1, 2, 3], [4, 5]], event=[[VIEW, BUY, BUY], [VIEW, VIEW]])
    targets = row_targets(
        build_config({"task": "purchase-intent", "intent": {"ask": "events", "horizon": 1}}), sequences
    )
    other = sequences_of([[1, 2, 9], [4, 9]], event=[[VIEW, BUY, VIEW], [VIEW, BUY]])
    assert targets is not None
    np.testing.assert_array_equal(intent_table(sequences, targets), intent_table(other, targets))
    found = evaluate_intent_baselines((sequences, targets), (sequences, targets))
    assert set(found) == {"majority", "buys-again", "boosted-trees", "boosted-trees, every ask"}


def test_trees_of_every_ask_learn_from_each_moment_and_read_nothing_behind_it():
    asked = build_config({"task": "purchase-intent", "intent": {"ask": "events", "horizon": 1, "asks": 3}})
    sequences = sequences_of([[1, 2, 3, 4], [4, 5]], event=[[VIEW, VIEW, BUY, VIEW], [VIEW, BUY]])
    other = sequences_of([[1, 2, 3, 9], [4, 5]], event=[[VIEW, VIEW, BUY, BUY], [VIEW, BUY]])
    found = [every_ask(rows, row_targets(asked, rows)) for rows in (sequences, other)]
    table, labels = found[0]
    assert sorted(labels.tolist()) == [
        0.0,
        0.0,
        1.0,
        1.0,
    ]  # three moments of the first consumer, one of the second
    assert len(table) == 4
    np.testing.assert_array_equal(found[0][0], found[1][0])  # the last event of the first is behind all moments
    assert sorted(found[1][1].tolist()) == [0.0, 1.0, 1.0, 1.0]
    third = sequences_of([[1, 2, 9, 4], [4, 5]], event=[[VIEW, VIEW, VIEW, VIEW], [VIEW, BUY]])
    earlier = every_ask(third, row_targets(asked, third))[0]
    np.testing.assert_array_equal(earlier[:2], table[:2])  # asked before the third event
    assert not np.array_equal(earlier, table)


def test_the_last_of_the_moments_is_the_one_that_is_judged():
    asked = build_config({"task": "purchase-intent", "intent": {"ask": "events", "horizon": 1, "asks": 3}})
    sequences = sequences_of([[1, 2, 3, 4], [4, 5]], event=[[VIEW, VIEW, BUY, VIEW], [VIEW, BUY]])
    targets = row_targets(asked, sequences)
    last = targets.moments()[-1]
    np.testing.assert_array_equal(last.lengths, targets.lengths)
    np.testing.assert_array_equal(last.values[INTENT], targets.values[INTENT])
    np.testing.assert_array_equal(intent_table(sequences, last), intent_table(sequences, targets))
