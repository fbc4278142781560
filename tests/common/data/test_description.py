"""What is shown before a federation: who is at several sites, how long the log is, where it has holes, what it can serve."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl

from common.data import EventLog
from common.data.describe import Description, describe


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
