"""Segments: found again whatever the seed, named by what they buy, conversion with the known interval."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import client.scoring.segments as segments
from client.scoring.maps import consumer_map, item_map
from client.scoring.model import open_model
from client.scoring.segments import Conversion, campaigns_of, find_segments, pooled_states, preferences
from common.data.events import EventLog, load_events
from common.errors import BadInputError
from common.model.batch import Batcher
from common.model.targets import whole_rows
from tests.scoring_samples import config_of, market, write_model_folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue)
    return open_model(path)


@pytest.fixture(scope="module")
def found(shared):
    return find_segments(shared, market().log, 4, 10)


def test_a_consumers_state_is_the_mean_of_their_hidden_states(shared):
    sequences = shared.sequences(market().log)
    states = pooled_states(shared, market().log)
    for row in (0, 7, 100):
        batch = Batcher(sequences, (), whole_rows(sequences)).packed(np.array([row]))
        hidden = shared.model.hidden_states(batch).detach().numpy()
        np.testing.assert_allclose(states[row], hidden.mean(axis=0), atol=1e-5)


def test_the_same_log_gives_the_same_segments_and_every_consumer_is_in_one(shared, found):
    again = find_segments(shared, market().log, 4, 10)
    np.testing.assert_array_equal(found.place, again.place)
    assert found.segments == again.segments
    assert sum(one.size for one in found.segments) == len(market().log.consumers)
    sizes = [one.size for one in found.segments]
    assert sizes == sorted(sizes, reverse=True)
    assert len({one.name for one in found.segments}) == 4


def test_groups_that_are_there_are_found_whatever_the_seed_and_their_number_too():
    rng = np.random.default_rng(3)
    truth = np.repeat(np.arange(4), 60)
    states = (rng.normal(0, 6, (4, 12))[truth] + rng.normal(0, 1, (240, 12))).astype(np.float32)
    clusters = segments._Clusters.of(states, 0)
    assert clusters.count == 4 and clusters.agreement == 1.0
    place = clusters.assign(states)
    assert all(len(set(place[truth == k])) == 1 for k in range(4)) and len(set(place)) == 4
    noise = segments._Clusters.of(rng.normal(size=(240, 12)).astype(np.float32), 8)
    assert noise.agreement < segments_unsure()


def segments_unsure() -> float:
    from cli.segments import UNSURE

    return UNSURE


def test_a_segment_is_named_by_what_its_consumers_buy_more_often_than_the_others():
    rows = [
        {"consumer": who, "timestamp": i, "event": "purchase", "category": kind, "item": kind}
        for who in range(60)
        for i, kind in enumerate(["milk", ("tea", "cups", "bread")[who % 3]])
    ]
    frame = pl.DataFrame(rows).with_columns(
        pl.col("consumer").cast(pl.UInt64), pl.col("timestamp").cast(pl.Datetime("us"))
    )
    tells = preferences(EventLog.from_frame(frame), np.arange(60) % 3, 3)
    assert [[one.what for one in prefers] for prefers in tells] == [["tea"], ["cups"], ["bread"]]
    assert (tells[0][0].here, tells[0][0].elsewhere) == (1.0, 0.0)
    nobody = preferences(EventLog.from_frame(frame), np.arange(60) // 3 % 2, 2)
    assert nobody == [(), ()]  # what is no more frequent than chance names nothing
    assert segments._names(nobody) == ["no preference", "no preference 2"]
    assert segments._names([tells[0], tells[0]]) == ["tea", "tea 2"]


def test_wilson_intervals_are_the_known_ones():
    assert Conversion(10, 0).interval == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert Conversion(100, 50).interval == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert np.isnan(Conversion(0, 0).rate)


def test_conversion_counts_who_bought_later_by_where_they_were_before(shared, found):
    log = market().log
    earlier = log.where(pl.col("timestamp") < found.since)
    late = log.frame.filter((pl.col("timestamp") >= found.since) & (pl.col("event") == "purchase"))
    bought = np.isin(earlier.consumers, late["consumer"].unique().to_numpy())
    assert sum(one.conversion.asked for one in found.segments) == len(earlier.consumers)
    assert sum(one.conversion.bought for one in found.segments) == bought.sum() > 0


def test_conversion_by_campaign_adds_up_to_that_of_all(shared):
    log = market().log
    mail = pl.when(pl.col("consumer") % 3 == 0).then(pl.lit("mail")).otherwise(pl.lit(None, pl.String))
    told = campaigns_of(EventLog(log.frame.with_columns(mail.alias("site"))))
    assert set(told.values()) == {"mail"} and all(who % 3 == 0 for who in told)
    assert campaigns_of(EventLog(log.frame.drop("site"))) == {}
    found = find_segments(shared, log, 3, 10, told)
    whole = {c: v for (s, c), v in found.campaigns.items() if not s}
    assert set(whole) == {"", "mail"}
    for number, one in enumerate(found.segments):
        parts = [found.campaigns[one.name, campaign] for campaign in whole]
        assert sum(p.asked for p in parts) == one.conversion.asked, number
        assert sum(p.bought for p in parts) == one.conversion.bought


def test_a_campaign_is_the_last_that_events_name_also_where_later_ones_name_none(tmp_path):
    file = tmp_path / "log.csv"
    rows = ["c1,2024-01-01,view,i1,mail", "c1,2024-01-02,view,i1,", "c2,2024-01-01,view,i1,"]
    file.write_text("\n".join(["consumer,timestamp,event,item,utm", *rows]) + "\n")
    log, _ = load_events(file, "fedcart", site_column="utm", secret=b"k" * 32)
    assert list(campaigns_of(log).values()) == ["mail"]


def test_what_nobody_bought_is_not_called_bought():
    log = market().log
    views = EventLog(log.frame.with_columns(pl.lit("view", dtype=log.frame["event"].dtype).alias("event")))
    place = np.zeros(len(views.consumers), dtype=np.int64)
    place[: len(place) // 2] = 1
    mine = np.isin(views.frame["consumer"].to_numpy(), views.consumers[: len(place) // 2])
    views = EventLog(views.frame.with_columns(pl.Series("category", np.where(mine, "tea", views.frame["item"]))))
    first = preferences(views, place, 2)[1][0]
    assert first.what == "tea" and "buy" not in first.words


def test_too_few_consumers_or_too_many_segments_are_refused(shared):
    few = market().log.where(pl.col("consumer").is_in(market().log.consumers[:8]))
    with pytest.raises(BadInputError, match="consumers have events before"):
        find_segments(shared, few, 3, 10)
    with pytest.raises(BadInputError, match="13 segments"):
        find_segments(shared, market().log, 13, 10)


@pytest.mark.full
def test_maps_are_the_same_on_every_call_and_name_items_but_no_consumer(shared, found):
    people, things = consumer_map(found), item_map(shared, market().log)
    assert people.pca.shape == people.tsne.shape == (len(found.place), 2)
    assert not any(people.told) and not any(people.labels)
    np.testing.assert_array_equal(people.tsne, consumer_map(found).tsne)
    assert set(things.labels) - {""} <= set(market().catalogue.items)
    assert 0 < things.kept <= 1
