"""One row per consumer, in time order, encoded by public constants; the hold-out does not look at data."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from common.data.catalogue import (
    DECLARED,
    FROM_LOG,
    Catalogue,
    catalogue_from_events,
    read_catalogue,
    write_catalogue,
)
from common.data.events import EVENT_TYPES, EventLog, concatenate, load_events, pseudonym
from common.data.features import GAP_EDGES_S, FeatureSpec, feature_spec, item_mask
from common.data.sequences import ConsumerSequences, build_sequences, holdout_mask
from common.data.split import Split
from common.errors import BadInputError, ConfigError

KEY = b"scope key"
START = datetime(2024, 1, 1, 10)


def make_log(lengths: list[int], seed: int = 0) -> EventLog:
    rng = np.random.default_rng(seed)
    consumer = np.repeat(np.arange(len(lengths)) * 7 + 3, lengths)
    n = len(consumer)
    frame = pl.DataFrame(
        {
            "consumer": pl.Series(consumer, dtype=pl.UInt64),
            "timestamp": [START + timedelta(seconds=int(s)) for s in rng.integers(0, 10**7, size=n)],
            "event": pl.Series(rng.choice(EVENT_TYPES, size=n).tolist(), dtype=pl.Enum(EVENT_TYPES)),
            "item": rng.choice(["a", "b", "c", "d", None], size=n).tolist(),
            "category": rng.choice(["x", "y"], size=n).tolist(),
            "price": pl.Series(rng.uniform(0.1, 900, size=n), dtype=pl.Float32),
            "quantity": pl.Series(rng.integers(1, 9, size=n), dtype=pl.Float32),
        }
    )
    return EventLog.from_frame(frame)


def sequences(log: EventLog, max_events: int = 50) -> ConsumerSequences:
    catalogue = catalogue_from_events(log)
    return build_sequences(log, feature_spec(catalogue), catalogue, max_events=max_events)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=20), st.integers(1, 8))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_each_consumer_is_one_row_with_their_last_events_in_time_order(lengths: list[int], most: int) -> None:
    log = make_log(lengths)
    rows = sequences(log, most)
    assert len(set(rows.consumers.tolist())) == len(rows) == len(lengths)
    assert rows.lengths.tolist() == [min(n, most) for n in lengths]
    for i, consumer in enumerate(rows.consumers):
        mine = log.frame.filter(pl.col("consumer") == consumer).tail(most)
        times = rows.timestamps[rows.offsets[i] : rows.offsets[i + 1]]
        assert times.tolist() == mine["timestamp"].dt.epoch("us").to_list()
        assert (np.diff(times) >= 0).all()


def test_indices_stay_inside_the_declared_sizes() -> None:
    log = make_log([9, 4, 30])
    rows = sequences(log)
    sizes = feature_spec(catalogue_from_events(log)).sizes
    for name in rows.integer_names:
        assert 0 <= rows.column(name).min() <= rows.column(name).max() < sizes[name]
    assert np.isfinite(rows.numeric).all()


def test_take_gives_rows_in_the_order_asked_for() -> None:
    rows = sequences(make_log([3, 1, 5, 2]))
    some = rows.take(np.array([2, 0]))
    assert some.consumers.tolist() == rows.consumers[[2, 0]].tolist()
    assert some.lengths.tolist() == [5, 3]
    assert np.array_equal(some.integers[:5], rows.integers[rows.offsets[2] : rows.offsets[3]])


def test_taking_nothing_gives_nothing() -> None:
    empty = sequences(make_log([3, 1])).take(np.array([], dtype=np.intp))
    assert len(empty) == 0
    assert empty.padded(np.array([], dtype=np.intp))[0].shape == (0, 1, 8)


def test_padding_is_zero_behind_the_end_and_nothing_is_lost() -> None:
    rows = sequences(make_log([3, 1, 5]))
    integers, numeric, lengths = rows.padded(np.array([0, 2]))
    assert integers.shape == (2, 5, 8)
    assert numeric.shape == (2, 5, 3)
    assert lengths.tolist() == [3, 5]
    assert not integers[0, 3:].any()
    assert not numeric[0, 3:].any()
    assert np.array_equal(integers[1], rows.integers[rows.offsets[2] :])


def test_an_event_is_encoded_by_hand_as_expected() -> None:
    frame = pl.DataFrame(
        {
            "consumer": pl.Series([5, 5], dtype=pl.UInt64),
            "timestamp": [datetime(2024, 2, 3, 23, 0), datetime(2024, 2, 4, 0, 0)],  # Saturday, Sunday
            "event": ["view", "purchase"],
            "item": ["lamp", "unknown thing"],
            "category": ["light", "light"],
            "price": [2.0, None],
            "quantity": [None, 3.0],
        }
    )
    catalogue = Catalogue(("desk", "lamp"), ("light",), np.array([0, 0, 1], dtype=np.int32), DECLARED)
    rows = build_sequences(EventLog.from_frame(frame), feature_spec(catalogue), catalogue)
    first, second = (dict(zip(rows.integer_names, line.tolist(), strict=True)) for line in rows.integers)
    assert first == {
        "event": 2, "item": 2, "category": 1, "price": 5, "gap": 0, "hour": 24, "weekday": 6, "month": 2
    }  # fmt: skip
    assert second["item"] == 0
    assert second["price"] == 0
    assert second["gap"] == 1 + sum(edge <= 3_600 for edge in GAP_EDGES_S)
    assert (second["hour"], second["weekday"]) == (1, 7)
    assert rows.numeric[0].tolist() == pytest.approx([np.log1p(2) / 4, 0, 0])
    assert rows.numeric[1].tolist() == pytest.approx([0, np.log1p(3) / 2, np.log1p(3_600) / 10])


def test_items_outside_of_the_catalogue_fall_into_hashed_buckets_behind_it() -> None:
    log = make_log([40, 40])
    catalogue = Catalogue(("a",), (), np.zeros(2, dtype=np.int32), DECLARED)
    spec = feature_spec(catalogue, item_buckets=16)
    items = build_sequences(log, spec, catalogue).column("item")
    assert spec.sizes["item"] == 18
    known = log.frame["item"].to_numpy() == "a"
    missing = log.frame["item"].is_null().to_numpy()
    assert (items[known] == 1).all()
    assert (items[missing] == 0).all()
    assert items[~known & ~missing].min() >= 2


def test_encoding_one_consumer_does_not_depend_on_the_others() -> None:
    log = make_log([6, 9, 4])
    catalogue = catalogue_from_events(log)
    spec = feature_spec(catalogue)
    together = build_sequences(log, spec, catalogue)
    for i, consumer in enumerate(together.consumers):
        alone = build_sequences(log.where(pl.col("consumer") == consumer), spec, catalogue)
        assert np.array_equal(alone.integers, together.take(np.array([i])).integers)
        assert np.array_equal(alone.numeric, together.take(np.array([i])).numeric)


def test_the_hold_out_depends_on_the_key_and_the_id_only() -> None:
    few, many = make_log([4] * 50, seed=1), make_log([9] * 200, seed=2)
    held_few, held_many = (Split(KEY, 0.3).of(sequences(log)).holdout for log in (few, many))
    shared = set(sequences(few).consumers.tolist())
    assert set(held_few.consumers.tolist()) == set(held_many.consumers.tolist()) & shared
    other_key = Split(b"another key", 0.3).of(sequences(few)).holdout
    assert set(other_key.consumers.tolist()) != set(held_few.consumers.tolist())


def test_where_a_consumer_falls_does_not_depend_on_who_else_is_there() -> None:
    ids = np.random.default_rng(1).integers(0, 2**64, size=64, dtype=np.uint64)
    together = holdout_mask(ids, KEY, 0.5)
    assert together.tolist() == [bool(holdout_mask(ids[i : i + 1], KEY, 0.5)[0]) for i in range(len(ids))]
    assert holdout_mask(ids[::-1], KEY, 0.5).tolist() == together[::-1].tolist()


def test_train_and_hold_out_are_disjoint_and_complete() -> None:
    rows = sequences(make_log([2] * 300))
    sides = Split(KEY, 0.2).of(rows)
    assert sorted([*sides.train.consumers, *sides.holdout.consumers]) == sorted(rows.consumers)
    assert not set(sides.train.consumers) & set(sides.holdout.consumers)
    assert len(sides.validation) == 0


def test_the_hold_out_is_about_the_fraction_asked_for() -> None:
    ids = np.arange(20_000, dtype=np.uint64)
    assert abs(holdout_mask(ids, KEY, 0.2).mean() - 0.2) < 0.015  # over 5 standard deviations
    assert not holdout_mask(ids, KEY, 0.0).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_an_impossible_hold_out_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError):
        holdout_mask(np.arange(3, dtype=np.uint64), KEY, fraction)


def test_pseudonyms_never_contain_the_original_and_need_the_secret(tmp_path: Path) -> None:
    ids = [f"customer-{i}@example.org" for i in range(100)]
    path = tmp_path / "log.csv"
    path.write_text("consumer,timestamp,event,item\n" + "".join(f"{i},2024-01-01,view,lamp\n" for i in ids))
    log, report = load_events(path, "fedcart", secret=b"one")
    other, _ = load_events(path, "fedcart", secret=b"two")
    everything = log.frame.write_csv() + repr(log) + repr(report)
    assert not any(original in everything for original in ids)
    assert "example.org" not in everything
    assert not set(log.consumers) & set(other.consumers)
    assert set(log.consumers.tolist()) == {pseudonym(original, b"one") for original in ids}


def test_the_spec_survives_json_and_its_digest_tells_specs_apart() -> None:
    spec = feature_spec(None, item_buckets=100, category_buckets=8)
    assert FeatureSpec.from_json(spec.to_json()) == spec
    assert FeatureSpec.from_json(spec.to_json()).digest() == spec.digest()
    assert feature_spec(None, item_buckets=101, category_buckets=8).digest() != spec.digest()
    with pytest.raises(BadInputError):
        FeatureSpec.from_json({"colour": 1})


def test_a_spec_refuses_another_catalogue() -> None:
    log = make_log([4, 4])
    mine = catalogue_from_events(log)
    other = Catalogue(("z",), (), np.zeros(2, dtype=np.int32), DECLARED)
    with pytest.raises(ConfigError, match="catalogue"):
        build_sequences(log, feature_spec(mine), other)
    with pytest.raises(ConfigError):
        feature_spec(None)


def test_a_catalogue_from_a_log_says_that_it_is_an_uncharged_release(tmp_path: Path) -> None:
    built = catalogue_from_events(make_log([30]), max_items=2)
    assert len(built.items) == 2
    assert built.source == FROM_LOG
    path = tmp_path / "catalogue.json"
    write_catalogue(built, path)
    assert "no privacy budget was charged" in path.read_text()
    again = read_catalogue(path)
    assert (again.items, again.categories, again.source) == (built.items, built.categories, built.source)
    assert again.digest() == built.digest()


def test_a_declared_catalogue_is_read_from_a_table_with_stock(tmp_path: Path) -> None:
    path = tmp_path / "stock.csv"
    path.write_text("item,category,site\nlamp,light,north\ndesk,wood,north\nlamp,light,south\n")
    catalogue = read_catalogue(path)
    assert catalogue.source == DECLARED
    assert not catalogue.warning
    assert catalogue.items == ("lamp", "desk")
    assert catalogue.mask("south").tolist() == [False, True, False]
    assert catalogue.mask("elsewhere").tolist() == [False, True, True]
    assert catalogue.stockists().tolist() == [0, 2, 1]
    spec = feature_spec(catalogue, item_buckets=2)
    assert item_mask(spec, catalogue, "south").tolist() == [False, True, False, True, True]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"format": "other"}',
        '{"format": "fedcart-catalogue/1", "items": ["a"]}',
        '{"format":"fedcart-catalogue/1","source":"s","items":["a"],"categories":[],"item_category":[0,5],"stock":{}}',
        '{"format":"fedcart-catalogue/1","source":"s","items":["a"],"categories":[],"item_category":[0],"stock":{}}',
        '{"format":"fedcart-catalogue/1","source":"s","items":["a"],"categories":[],"item_category":[0,0],"stock":{"n":[9]}}',
        "name\nlamp\n",
        "item\n\n",
        "",
    ],
)
def test_a_damaged_catalogue_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    path.write_text(text)
    with pytest.raises(BadInputError):
        read_catalogue(path)


def test_an_empty_log_has_no_rows() -> None:
    empty = concatenate([])
    assert len(empty.consumers) == 0
    assert len(build_sequences(empty, feature_spec(None, item_buckets=4))) == 0
