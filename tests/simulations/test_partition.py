"""Dealing a log to sites: nobody is lost without a word, and only declared populations decide."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from common.data.catalogue import catalogue_from_events
from common.data.events import EventLog
from common.errors import BadInputError
from simulations.partition import ASSUMPTION, Partition, declared_population, partition
from simulations.synthetic import SyntheticSpec, generate


def log_of(sizes: dict[str, int], events: int = 3) -> EventLog:
    """``sizes[site]`` consumers per site, each with a few events."""
    site = np.repeat(list(sizes), list(sizes.values()))
    consumer = np.repeat(np.arange(len(site)), events)
    moment = [datetime(2024, 1, 1) + timedelta(minutes=int(i)) for i in range(len(consumer))]
    return EventLog.from_frame(
        pl.DataFrame(
            {
                "consumer": pl.Series(consumer, dtype=pl.UInt64),
                "timestamp": moment,
                "event": ["view"] * len(consumer),
                "item": [f"i{i % 7}" for i in range(len(consumer))],
                "site": np.repeat(site, events).tolist(),
            }
        )
    )


def everyone(made: Partition) -> list[int]:
    return sorted(int(c) for site in made.sites for c in site.log.consumers)


@given(st.integers(1, 100_000))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_the_declared_population_is_the_next_power_of_two(consumers: int) -> None:
    declared = declared_population(consumers)
    assert consumers <= declared < 2 * consumers
    assert declared & (declared - 1) == 0


def test_natural_sites_keep_their_consumers_and_say_the_assumption() -> None:
    made = partition(log_of({"north": 40, "south": 20}), min_population=10)
    assert made.names == ("north", "south")
    assert [len(site.log.consumers) for site in made.sites] == [40, 20]
    assert [site.population for site in made.sites] == [64, 32]
    assert made.notes == (ASSUMPTION,)


def test_small_sites_are_merged_into_one_rest_and_named() -> None:
    made = partition(log_of({"big": 60, "tiny": 3, "small": 8}), min_population=10)
    assert made.names == ("big", "rest")
    assert len(made.sites[1].log.consumers) == 11
    assert everyone(made) == list(range(71))
    assert "tiny (4)" in made.notes[1]
    assert "tiny (4)" in made.sites[1].note


def test_small_sites_are_left_out_when_asked_and_named() -> None:
    made = partition(log_of({"big": 60, "tiny": 3, "small": 8}), min_population=10, small="drop")
    assert made.names == ("big",)
    assert "left out: small (8), tiny (4)" in made.notes[1]


def test_a_rest_that_is_still_too_small_is_left_out() -> None:
    made = partition(log_of({"big": 60, "tiny": 3}), min_population=10)
    assert made.names == ("big",)
    assert "left out" in made.notes[1]


def test_a_site_is_judged_by_its_declared_population_not_by_its_true_count() -> None:
    made = partition(log_of({"a": 33, "b": 64}), min_population=64)
    assert made.names == ("a", "b")  # 33 is declared as 64


def test_a_real_site_named_rest_is_not_mixed_up_with_the_merged_one() -> None:
    made = partition(log_of({"rest": 60, "x": 9, "y": 9}), min_population=20)
    assert made.names == ("rest", "rest (merged)")


def test_a_merged_consumer_of_two_small_sites_is_one_consumer() -> None:
    frame = log_of({"a": 6, "b": 6}).frame
    both = EventLog.from_frame(frame.with_columns((pl.col("consumer") % 9).alias("consumer")))  # 0-5; 6-8 and 0-2
    made = partition(both, min_population=9)
    assert made.names == ("rest",)
    assert len(made.sites[0].log.consumers) == 9
    assert made.sites[0].log.frame["consumer"].is_sorted()


@pytest.mark.parametrize("sites", [1, 3, 10])
def test_dealing_by_consumer_loses_nobody_and_leaves_no_site_empty(sites: int) -> None:
    log = log_of({"x": 31})
    made = partition(log, by="consumers", sites=sites, min_population=1)
    assert everyone(made) == list(range(31))
    assert len(made.sites) == sites
    assert sum(len(site.log) for site in made.sites) == len(log)
    counts = [len(site.log.consumers) for site in made.sites]
    assert max(counts) - min(counts) <= 1


def test_dealing_by_consumer_follows_the_seed() -> None:
    log = log_of({"x": 31})
    first, again, other = (partition(log, by="consumers", sites=2, seed=s, min_population=1) for s in (1, 1, 2))
    assert first.sites[0].log.frame.equals(again.sites[0].log.frame)
    assert not first.sites[0].log.frame.equals(other.sites[0].log.frame)


@pytest.mark.full
def test_dealing_by_taste_gives_sites_that_differ_more_than_by_chance() -> None:
    log = generate(SyntheticSpec(sites=1, consumers=600, items=120, categories=10, tastes=5), seed=1).log

    def spread(by: str) -> float:
        made = partition(log, by=by, sites=4, min_population=1)  # type: ignore[arg-type]
        assert everyone(made) == sorted(log.consumers.tolist())
        shares = []
        for site in made.sites:
            counts = dict(site.log.frame["category"].drop_nulls().value_counts().iter_rows())
            total = sum(counts.values())
            shares.append([counts.get(f"category-{i:02d}", 0) / total for i in range(1, 11)])
        return float(np.std(shares, axis=0).sum())

    assert spread("items") > 3 * spread("consumers")


def test_the_pooled_log_names_the_sites_as_dealt() -> None:
    made = partition(log_of({"big": 60, "tiny": 3, "small": 8}), min_population=10)
    pooled = made.log()
    assert pooled.sites == ("big", "rest")
    assert set(catalogue_from_events(pooled).stock) == {"big", "rest"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"by": "consumers", "sites": 0}, "0 sites"),
        ({"by": "consumers", "sites": 99}, "99 sites are more than the 30 consumers"),
        ({"by": "column", "column": "planet"}, "planet"),
        ({"min_population": 1_000}, "none of the 1 sites"),
        pytest.param({"by": "items", "sites": 20, "min_population": 1}, "7 items", marks=pytest.mark.full),
    ],
)
def test_an_impossible_split_is_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        partition(log_of({"x": 30}), **arguments)  # type: ignore[arg-type]
