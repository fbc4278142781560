"""Live answers are those of the batch on a file of the same lines, however dirty the lines are."""

import csv
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from client.anomalies.likelihood import surprise
from client.scoring.predict import intent_scores, predict_next
from client.serving.cleaning import FIELDS, DroppedError
from client.serving.row import MEAN_OF
from common.data import load_events
from common.errors import BadInputError
from tests.serving_samples import KEY, event, make_live

pytestmark = pytest.mark.full

GRU = {"encoder": "gru", "dim": 10, "hidden": 6, "layers": 2, "pooling": "attention"}
GRU["heads"] = {"next-item": 1.0, "next-event": 1.0, "purchase-intent": 1.0}
TIMES = [
    f"2024-05-0{day}{mark}0{hour}:00:0{s}" for day in (1, 2) for mark in "T " for hour in (0, 9) for s in (0, 1)
]
DIRTY_TIMES = ["2024-05-01", "1714554000", "1714554000123", "01.05.2024 09:00", "", "never", "1970-01-01 00:00:00",
               "2099-12-31T00:00:00", "2024-05-01T09:00:00+02:00", "2024-05-01T09:00:00.5"]  # fmt: skip
LINES = st.fixed_dictionaries({
    "consumer": st.sampled_from(["c1", "c2", " c1 ", "7", "7.0", "c1", "c2", "", "NULL", "\ufeffc1", "1.23E+17", "é", "e\u0301"]),
    "timestamp": st.sampled_from([*TIMES, *TIMES, *DIRTY_TIMES]),
    "event": st.sampled_from(["view", "view", "cart", "purchase", "login", "Add to Cart", "refund", "dance", "", "n/a"]),
    "item": st.sampled_from(["item-01", "item-02", "item-03", "item-99", " item-04", "", "none", "12.0", "3E+9"]),
    "category": st.sampled_from(["category-1", "", "-", "x\ufffdy", "category-2 "]),
    "price": st.sampled_from(["", "2.50", "12,50", "$ 3", "0", "-4", "1e9", "nan", "dear", "99.99"]),
    "quantity": st.sampled_from(["", "1", "2", "0", "-1", "many", "99999"]),
})  # fmt: skip


@pytest.fixture(scope="module", params=[{}, {"model": GRU}], ids=["lstm", "gru with attention"])
def live(request, tmp_path_factory):
    return make_live(tmp_path_factory.mktemp("model") / "m", **request.param)


def fresh(live):
    return type(live)(live.shared, live.engine, capacity=1_000, key=KEY)


def pushed(live, lines):
    """A fresh model that was sent these lines; what cannot be used is left out."""
    sent = fresh(live)
    for line in lines:
        try:
            sent.push(*sent.read(line))
        except BadInputError:
            continue
    return sent


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=st.lists(LINES, min_size=1, max_size=30))
def test_live_and_batch_agree_over_dirty_streams(live, tmp_path_factory, lines):
    compare_with_batch(live, lines, tmp_path_factory.mktemp("log") / "log.csv")


@pytest.mark.full
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=st.lists(LINES, min_size=1, max_size=40))
def test_live_and_batch_agree_over_many_dirty_streams(live, tmp_path_factory, lines):
    compare_with_batch(live, lines, tmp_path_factory.mktemp("log") / "log.csv")


def compare_with_batch(live, lines, path):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(lines)
    sent = pushed(live, lines)
    log, report = load_events(path, secret=KEY, tolerant=True)
    assert len(sent.store) == report.consumers
    if not len(log):
        return
    rows = live.shared.sequences(log)
    nats = np.nansum(surprise(live.shared, rows).nats, axis=1)
    probability, following = intent_scores(live.shared, rows), predict_next(live.shared, rows, "item", 5)
    for number, consumer in enumerate(rows.consumers.tolist()):
        row = sent.known(consumer)
        begin, end = rows.offsets[number : number + 2]
        assert row.position == end - begin
        kept = sent.sequences(consumer, row)
        np.testing.assert_array_equal(kept.integers, rows.integers[begin:end])
        np.testing.assert_allclose(kept.numeric, rows.numeric[begin:end], atol=1e-6)
        np.testing.assert_allclose(row.recent, nats[begin + 1 : end][-MEAN_OF:], atol=1e-5, rtol=1e-5)
        assert sent.intent(consumer) == pytest.approx(probability[number], abs=1e-5)
        found = sent.next_items(consumer, 5, frozenset(), exclude_known=False)
        np.testing.assert_allclose([one.share for one in found], following.probabilities[number], atol=1e-5)


def test_the_short_way_and_the_reader_clean_alike(live):
    cleaner = live.encoder.cleaner
    line = dict.fromkeys(FIELDS, "") | event(price="2.50", quantity="3", category="category-1")
    assert cleaner._quick(line) == cleaner._read(line)
    assert cleaner._quick(line | {"price": "12,50"}) is None


@pytest.mark.parametrize(("wrong", "rule"), [
    ({"consumer": " "}, "no-consumer"), ({"timestamp": "never"}, "no-time"), ({"item": None}, "no-item"),
    ({"timestamp": "1970-01-01"}, "time-out-of-range"), ({"price": "-1"}, "negative-price"),
    ({"consumer": "1.2E+17"}, "rounded-id"), ({"kind": "purchase", "quantity": "0"}, "quantity-not-positive"),
])  # fmt: skip
def test_what_the_reader_drops_is_refused_with_its_rule_and_changes_nothing(live, wrong, rule):
    one = fresh(live)
    with pytest.raises(DroppedError) as refused:
        one.push(*one.read(event(**wrong) if "kind" in wrong else event() | wrong))
    assert refused.value.rule == rule
    assert len(one.store) == 0


def test_a_late_event_is_sorted_in_while_all_events_are_kept_and_appended_after(live):
    lines = [event(at=f"2024-05-01T10:00:{n:02d}", item=f"item-0{n % 7 + 1}") for n in range(12)]
    straight, late = pushed(live, lines), pushed(live, [*lines[:4], *lines[5:]])
    consumer, missing = late.read(lines[4])
    scored = late.push(consumer, missing)
    assert (scored.late, scored.position) == ("sorted in", 4)
    assert late.known(consumer).events == straight.known(consumer).events
    assert late.intent(consumer) == pytest.approx(straight.intent(consumer), abs=1e-6)
    long = pushed(live, [event(at=f"2024-05-01T10:{n // 60:02d}:{n % 60:02d}") for n in range(live.kept + 5)])
    scored = long.push(*long.read(event(at="2024-05-01T09:00:00")))
    assert (scored.late, scored.position) == ("appended", live.kept + 5)


def test_a_date_far_ahead_moves_the_question_of_one_consumer_and_not_of_all(live):
    tomorrow = time.time_ns() // 1_000 + 86_400_000_000
    made = pushed(live, [event("lost", at="2036-12-31T23:59:59"), event("c1")])
    lost = made.known(made.consumer("lost"))
    assert abs(made.clock - tomorrow) < 60_000_000 < lost.last - tomorrow


def test_the_same_line_again_changes_nothing_but_a_day_without_a_clock_may_repeat(live):
    one = pushed(live, [event(), event(), event(price="2")])
    consumer, again = one.read(event())
    assert one.known(consumer).position == 2
    assert one.push(consumer, again).repeated
    days = pushed(live, [event(at="2024-05-01"), event(at="2024-05-01")])
    assert days.known(consumer).position == 2


def test_memory_is_bounded_and_who_was_seen_longest_ago_is_let_go(live):
    small = type(live)(live.shared, live.engine, capacity=3, key=KEY)
    for number, who in enumerate("abcad"):
        small.push(*small.read(event(who, f"2024-05-01T10:00:0{number}")))
    assert (len(small.store), small.store.forgotten) == (3, 1)
    assert small.known(small.consumer("b")) is None
    assert small.known(small.consumer("a")).position == 2


def test_items_beyond_the_kept_events_still_count_as_seen(live):
    lines = [event(at="2024-05-01T08:00:00", item="item-07")]
    lines += [event(at=f"2024-05-01T10:{n // 60:02d}:{n % 60:02d}") for n in range(live.kept + 3)]
    one = pushed(live, lines)
    consumer = one.consumer("c1")
    row = one.known(consumer)
    local = one.encoder.local_item("item-07")
    assert local in row.seen().items
    assert local not in row.table()["item"]
    row.advance(one.read(event(at="2024-05-02T10:00:00", item="item-07"))[1], one.kept, 10**12)
    assert (row.earlier, row.again) == (1, 0)


def test_a_warm_model_goes_on_as_if_the_log_had_been_sent(live, tmp_path):
    lines = [
        event(f"c{n % 3}", f"2024-05-01T10:00:{n:02d}", item=f"item-0{n % 5 + 1}", price="2.5") for n in range(20)
    ]
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(lines)
    warm, sent = fresh(live), pushed(live, lines)
    assert len(warm.warm(load_events(path, secret=KEY)[0])) == 3
    for who in ("c0", "c1", "c2"):
        consumer = sent.consumer(who)
        assert warm.known(consumer) == sent.known(consumer)
        assert warm.push(*warm.read(lines[-1])).repeated


def test_what_is_left_out_has_no_share_and_the_rest_sums_to_one(live):
    one = pushed(live, [event()])
    consumer = one.consumer("c1")
    barred = frozenset({"item-02", "no such item"})
    found = one.next_items(consumer, 1_000, barred, exclude_known=True)
    assert not {"item-01", "item-02"} & {choice.name for choice in found}
    assert sum(choice.share for choice in found) == pytest.approx(1, abs=1e-5)
    for choice in found:
        assert sum(choice.parts.values()) == pytest.approx(choice.share, abs=1e-6)
