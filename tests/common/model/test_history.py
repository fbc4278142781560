"""Counts of a consumer's past, and the moments at which purchase intent is asked."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.data.formats import EVENT_TYPES
from common.errors import ConfigError
from common.model.batch import Batcher
from common.model.history import Moments, history, history_width
from common.model.network import ModelShape, build_model
from common.model.targets import INTENT, asked_now, row_targets
from common.run import build_config
from tests.common.model.tiny_market import SIZES, random_sequences

TYPES, MINUTE, DAY = len(EVENT_TYPES), 60_000_000, 86_400_000_000
GAP = 30 * MINUTE
BUY = EVENT_TYPES.index("purchase") + 1


def market(consumers=40, longest=14, seed=3):
    """Random rows in sessions a day apart, with every event type."""
    rng = np.random.default_rng(seed)
    sequences = random_sequences(consumers, longest, seed)
    integers = sequences.integers.copy()
    integers[:, 0] = rng.integers(0, TYPES + 1, len(integers))
    integers[rng.random(len(integers)) < 0.3, 0] = BUY
    pause = np.where(rng.random(len(integers)) < 0.3, rng.integers(1, 40, len(integers)) * DAY // 2, 2 * MINUTE)
    return replace(sequences, integers=integers, timestamps=np.cumsum(pause).astype(np.int64))


def slow_history(sequences, event, time):
    """One moment by plain loops."""
    row = int(np.searchsorted(sequences.offsets, event, side="right")) - 1
    past = range(int(sequences.offsets[row]), event + 1)
    kind, item = sequences.column("event").tolist(), sequences.column("item").tolist()
    stamps = sequences.timestamps.tolist()
    breaks = [i for i in past if i == past[0] or stamps[i] - stamps[i - 1] > GAP]
    session = [i for i in past if i >= breaks[-1]]
    before = [i for i in past if i < event and item[i] == item[event] and item[event] > 0]
    bought = [i for i in past if kind[i] == BUY]
    days = [(time - stamps[i]) / DAY for i in (past[0], event, bought[-1] if bought else event)]
    usual = (stamps[event] - stamps[past[0]]) / DAY / max(1, len(breaks) - 1)
    found = []
    for name in range(1, TYPES + 1):
        found += [math.log1p(sum(kind[i] == name for i in part)) / 2 for part in (past, session)]
        found += [float(kind[event] == name), float(kind[event] == name and bool(before))]
    found += [math.log1p(len(past)) / 4, math.log1p(len(session)) / 2, math.log1p(len(before)) / 2]
    found += [math.log1p(usual) / 5, math.log1p(days[1] / (usual + 3)) if len(breaks) > 1 else 0.0]
    found += [math.log1p(len(breaks)) / 2, float(bool(before)), float(any(i in session for i in before))]
    found += [float(bool(bought)), math.log1p(days[0]) / 5, math.log1p(days[1]) / 5]
    return [*found, math.log1p(days[2]) / 5 if bought else 0.0]


def test_the_counts_are_those_of_a_plain_loop():
    sequences = market()
    events = np.arange(len(sequences.timestamps))
    times = sequences.timestamps + np.arange(len(events)) % 3 * DAY
    found = history(sequences, Moments(events, times), TYPES, GAP)
    assert found.shape == (len(events), history_width(TYPES))
    expected = [slow_history(sequences, int(e), int(t)) for e, t in zip(events, times, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "question",
    [
        {"ask": "session", "after": 2},
        {"ask": "events", "horizon": 2},
        {"ask": "days", "cut": "1971-06-01", "horizon": 40},
    ],
)
def test_no_moment_reads_what_it_is_asked_about_and_the_last_one_is_judged(question):
    config = build_config({"task": "purchase-intent", "intent": {**question, "asks": 3}})
    sequences = market()
    targets = row_targets(config, sequences)
    assert targets is not None
    asks = targets.asks
    np.testing.assert_array_equal(asks.values[:, -1], targets.values[INTENT])
    np.testing.assert_array_equal(asks.steps[:, -1], targets.lengths - 1)
    assert np.isfinite(asks.values).sum(axis=0).min() > 5
    known = np.isfinite(asks.values)
    assert (asks.steps[known] < targets.lengths.repeat(3).reshape(-1, 3)[known]).all()
    for row, moment in zip(*np.nonzero(known), strict=True):
        behind = int(sequences.offsets[row] + asks.steps[row, moment]) + 1
        integers = sequences.integers.copy()
        integers[behind:, :2] = 1
        other = row_targets(config, replace(sequences, integers=integers))
        assert asks.steps[row, moment] == other.asks.steps[row, moment]
        np.testing.assert_array_equal(asks.history[row, moment], other.asks.history[row, moment])


def test_earlier_sessions_are_asked_about_like_the_last_one():
    config = build_config({"task": "purchase-intent", "intent": {"after": 2, "asks": 2}})
    sequences = market()
    targets = row_targets(config, sequences)
    assert targets is not None
    for row in np.flatnonzero(np.isfinite(targets.asks.values[:, 0])):
        # without the last session, that long, the one before is judged in the same way
        begin = int(targets.asks.steps[row, 1]) - 1
        first = sequences.take(np.array([row]))
        shorter = replace(
            first,
            offsets=np.array([0, begin]),
            integers=first.integers[:begin],
            numeric=first.numeric[:begin],
            timestamps=first.timestamps[:begin],
        )
        judged = row_targets(config, shorter)
        assert judged.values[INTENT][0] == targets.asks.values[row, 0]
        assert judged.lengths[0] - 1 == targets.asks.steps[row, 0]
        np.testing.assert_array_equal(judged.asks.history[0, -1], targets.asks.history[row, 0])


def test_a_prediction_is_asked_behind_the_last_event_and_at_one_time():
    config = build_config({"task": "purchase-intent", "intent": {"ask": "days", "cut": "1971-01-01"}})
    sequences = market()
    latest = int(sequences.timestamps.max())
    now, later = asked_now(config, sequences), asked_now(config, sequences, latest + 9 * DAY)
    there = sequences.lengths > 0
    assert now.asks.steps[:, 0].tolist() == (sequences.lengths - 1).tolist()
    expected = np.log1p((latest - sequences.timestamps[sequences.offsets[1:] - 1]) / DAY) / 5
    since_last = history_width(TYPES) - 2
    np.testing.assert_allclose(now.asks.history[there, 0, since_last], expected[there], rtol=1e-5)
    assert (later.asks.history[there, 0, since_last] > now.asks.history[there, 0, since_last]).all()
    assert not now.asks.history[~there].any()


def test_the_loss_is_the_mean_over_the_moments_that_have_an_answer():
    config = build_config({"task": "purchase-intent", "intent": {"after": 2, "asks": 3}})
    targets = row_targets(config, market())
    assert targets is not None
    row = int(np.flatnonzero(np.isfinite(targets.asks.values).sum(axis=1) == 2)[0])
    head = asked_model()
    batch = Batcher(market(), (INTENT,), targets).packed(np.array([row]))
    hidden = head.hidden_states(batch).detach()
    known = np.flatnonzero(np.isfinite(targets.asks.values[row]))
    logits = [float(head.answers(INTENT, hidden, batch, int(m)).detach()) for m in known]
    labels = targets.asks.values[row, known]
    expected = np.mean([np.logaddexp(0, z) - label * z for z, label in zip(logits, labels, strict=True)])
    assert float(head.losses(batch).detach()) == pytest.approx(expected, rel=1e-5)


def asked_model():
    """A model of intent with counts that matter, over the sizes of the market."""
    settings = build_config({"task": "purchase-intent", "model": {"dim": 8, "hidden": 8}}).model
    model = build_model(settings, ModelShape({**SIZES, "event": TYPES + 1}), 1)
    with torch.no_grad():
        model.heads[INTENT].history.weight.normal_(generator=torch.Generator().manual_seed(0))
    return model


def test_a_head_that_counts_refuses_a_batch_without_a_history():
    model = asked_model()
    batch = Batcher(market(), ()).packed(np.arange(4))
    with pytest.raises(ConfigError, match="history"):
        model.answers(INTENT, model.hidden_states(batch), batch)
