"""Injected anomalies at human pace: slow, with ordinary amounts a day, among the genuine events of their consumers."""

import numpy as np
import polars as pl
import pytest

from common.errors import ConfigError
from simulations.anomalies import PACES, inject
from tests.scoring_samples import market

DAY_US = 86_400_000_000


def injected(pace):
    log = market().log
    after, labels = inject(log, 0.3, seed=4, pace=pace)
    names = ["consumer", "timestamp", "event", "item"]
    added = after.frame.select(names).join(log.frame.select(names), on=names, how="anti", nulls_equal=True)
    return log, after, labels, added


@pytest.mark.parametrize("pace", PACES)
def test_no_genuine_event_is_changed_and_each_chosen_consumer_has_one_kind(pace):
    log, after, labels, _ = injected(pace)
    names = ["consumer", "timestamp", "event", "item"]
    kept = log.frame.select(names).join(after.frame.select(names), on=names, how="anti", nulls_equal=True)
    assert kept.height == 0
    assert len(after) > len(log)
    assert labels["consumer"].n_unique() == len(labels)
    assert labels["kind"].n_unique() == 4


def test_the_paces_take_minutes_days_and_weeks():
    took = {}
    for pace in PACES:
        _, _, labels, _ = injected(pace)
        took[pace] = (labels["end"] - labels["begin"]).median().total_seconds()
    assert took["burst"] < 900
    assert 3_600 < took["hour"] < 5 * 86_400
    assert 3 * 86_400 < took["week"] < 60 * 86_400


@pytest.mark.parametrize("pace", ["hour", "week"])
def test_slow_ones_have_ordinary_amounts_a_day_and_ordinary_pauses(pace):
    log, _, _, added = injected(pace)

    def per_day(frame):
        return frame.group_by("consumer", pl.col("timestamp").dt.date().alias("day")).len()["len"].to_numpy()

    assert np.quantile(per_day(added), 0.95) <= np.quantile(per_day(log.frame), 0.95) + 4  # sittings are whole
    pause_s = added.sort("consumer", "timestamp").select(pl.col("timestamp").diff().over("consumer")).to_series()
    assert (pause_s.drop_nulls().dt.total_seconds() <= 2).mean() < 0.05


def test_slow_ones_lie_among_genuine_events_and_never_before_the_first():
    log, _, labels, _ = injected("week")
    genuine = log.frame.group_by("consumer").agg(
        pl.col("timestamp").min().alias("first"), pl.col("timestamp").max().alias("last")
    )
    both = labels.join(genuine, on="consumer")
    assert (both["begin"] >= both["first"]).all()
    assert (both["begin"] < both["last"]).mean() > 0.9  # the others have been there for hours only


def test_a_small_amount_is_at_least_one_turn():
    _, labels = inject(market().log, 0.3, seed=4, pace="week", amount=0.01)
    least = inject(market().log, 0.3, seed=4, pace="week", amount=0.01)[0]
    assert labels["kind"].n_unique() == 4
    assert len(least) - len(market().log) < 3 * len(labels)


def test_an_unknown_pace_is_refused():
    with pytest.raises(ConfigError, match="no pace is called 'year'"):
        inject(market().log, 0.1, seed=1, pace="year")
