"""What is shown before a federation: who is at several sites, how long the log is, where it has holes, what it can serve."""

from __future__ import annotations

import itertools
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from common.data import EventLog, load_events
from common.data.describe import Description, describe, describe_pieces


def log_of(
    days: list[int], consumers: int = 10, event: str = "purchase", item: str | None = "a", sites: int = 2
) -> EventLog:
    """Every consumer has one event on each day, at a site that changes from day to day."""
    rows = [(who, day, place) for who in range(consumers) for place, day in enumerate(days)]
    start = datetime(2024, 1, 1, 12)
    return EventLog.from_frame(
        pl.DataFrame(
            {
                "consumer": pl.Series([who + 1 for who, _, _ in rows], dtype=pl.UInt64),
                "timestamp": [start + timedelta(days=day) for _, day, _ in rows],
                "event": [event] * len(rows),
                "item": pl.Series([item] * len(rows), dtype=pl.String),
                "site": [f"s{place % sites}" for _, _, place in rows],
            }
        )
    )


def told(description: Description) -> dict[str, str]:
    return dict(description.tasks)


def test_a_hole_in_the_log_is_shown_with_its_length() -> None:
    time = describe(log_of([*range(30), *range(50, 60)])).time
    assert (time.first, time.last, time.days, time.empty) == ("2024-01-01", "2024-02-29", 60, 20)
    assert time.gaps == (("2024-01-30", "2024-02-20", 20),)


def test_a_log_of_every_third_day_has_no_holes() -> None:
    assert describe(log_of(list(range(0, 90, 3)))).time.gaps == ()


def test_consumers_at_several_sites_are_counted() -> None:
    assert describe(log_of([0, 1])).overlap == 1.0
    assert describe(log_of([0, 1], sites=1)).overlap == 0.0


def test_events_of_a_consumer_are_given_at_three_places() -> None:
    assert describe(log_of([0, 1, 2])).per_consumer == (3, 3, 3)
    assert describe(log_of([0])).learnable == 0.0


def test_each_task_says_what_it_lacks() -> None:
    assert not any(told(describe(log_of(list(range(91)))))[task] for task in ("next item", "sales", "anomalies"))
    assert "91 are needed" in told(describe(log_of(list(range(90)))))["sales"]
    assert "names an item" in told(describe(log_of([0, 1], item=None)))["next item"]
    assert told(describe(log_of([0, 1], item=None)))["anomalies"] == ""
    assert "two events" in told(describe(log_of([0])))["next item"]
    assert "before them" in told(describe(log_of([0, 1])))["purchase intent"]
    assert told(describe(log_of([0, 1], event="view")))["sales"] == "no purchase"


def test_an_empty_log_is_described() -> None:
    made = describe(log_of([]))
    assert made.events == 0 and made.time.days == 0 and made.to_json()["time"]["first"] == ""
    assert date(2024, 1, 1).isoformat() not in str(made)


def test_a_log_in_pieces_is_described_as_the_log_in_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    n = 4_000
    lines = pl.DataFrame({
        "consumer": [f"c{i}" for i in rng.integers(0, 300, n)],
        "timestamp": [f"2024-0{1 + i % 9}-{1 + i % 7:02d}T{i % 24:02d}:00:00" for i in range(n)],
        "event": rng.choice(["login", "view", "purchase", "cancel"], n),
        "item": [f"i{i}" for i in rng.zipf(1.5, n) % 90],
        "category": [f"k{i % 7}" for i in range(n)],
        "site": rng.choice(["a", "b", "c", "d"], n, p=[0.6, 0.3, 0.09, 0.01]),
    }).with_columns(item=pl.when(pl.col("event") == "login").then(None).otherwise("item"))  # fmt: skip
    lines.write_csv(tmp_path / "log.csv")
    log, _ = load_events(tmp_path / "log.csv", secret=b"k" * 16)
    cuts = [0, 1, 40, 41, 200, len(log.consumers)]
    pieces = [
        EventLog(log.frame.slice(int(log.offsets[a]), int(log.offsets[b] - log.offsets[a])))
        for a, b in itertools.pairwise(cuts)
    ]
    whole = describe(log)
    assert describe_pieces(pieces) == whole
    # and against plain counts of the frame
    frame, items = log.frame, log.frame["item"].drop_nulls()
    shared = (
        frame.select("item", "site")
        .drop_nulls()
        .unique()
        .group_by("item")
        .len()
        .filter(pl.col("len") >= 3)["item"]
    )
    assert (whole.events, whole.items, whole.shared_items) == (len(frame), items.n_unique(), len(shared))
    assert whole.shared_events == pytest.approx(items.is_in(shared.implode()).mean())
    homes = frame.select("consumer", "site").unique()["consumer"].value_counts()["count"]
    assert whole.overlap == pytest.approx((homes > 1).mean())
    for site in whole.sites:
        own = frame.filter(pl.col("site") == site.site)
        assert (site.consumers, site.events) == (own["consumer"].n_unique(), own.height)
        assert site.items == own["item"].drop_nulls().n_unique()
        assert site.shared_events == pytest.approx(own["item"].drop_nulls().is_in(shared.implode()).mean())
        assert (site.first, site.last) == tuple(
            str(t) for t in (own["timestamp"].dt.to_string().min(), own["timestamp"].dt.to_string().max())
        )
