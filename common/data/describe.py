"""Statistics of a log for its owner: per site, per event type, and whether federating can pay.

True counts of one party's own data. They are shown to the operator and never become part of a release.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.data.events import EventLog

GAP_DAYS, SHOWN_GAPS = 3, 5
SALES_DAYS = 91
"""A window of 28 days, a horizon of 7 and a test of 28, as the task of sales wants them."""
STOCKISTS = 3
"""Item rows with fewer sites stay local (the default of ``aggregation.min_stockists``)."""


@dataclass(frozen=True)
class SiteStatistics:
    """True counts of one site."""

    site: str
    consumers: int
    events: int
    events_per_consumer: float
    items: int
    purchases: int
    shared_events: float
    first: str
    last: str


@dataclass(frozen=True)
class TimeRange:
    """Days from the first event to the last, and stretches without any: (last day before, first day after, empty days)."""

    first: str = ""
    last: str = ""
    days: int = 0
    empty: int = 0
    gaps: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True)
class Description:
    """True counts of a log.

    ``shared_events`` is the share of item events that concern items which at least three sites have;
    ``overlap`` the share of consumers seen at more than one site; ``shared_items``: at three sites or more;
    ``per_consumer``: events of the consumer at 10, 50 and 90 % of all; ``learnable``: consumers with two events or more;
    ``tasks``: (task, "" or why this log cannot serve it).
    """

    consumers: int
    events: int
    items: int
    categories: int
    event_types: dict[str, int]
    sites: tuple[SiteStatistics, ...]
    shared_events: float
    overlap: float
    shared_items: int = 0
    per_consumer: tuple[int, int, int] = (0, 0, 0)
    learnable: float = 0.0
    time: TimeRange = TimeRange()
    tasks: tuple[tuple[str, str], ...] = ()

    @property
    def advice(self) -> str:
        """What the overlap of the catalogues means for a federation; empty for fewer than three sites."""
        if len(self.sites) < STOCKISTS:
            return ""
        share = f"{self.shared_events:.0%} of the events are on items that at least {STOCKISTS} sites have"
        if self.shared_events >= 0.5:
            return f"{share}: catalogues are shared, so a common model can learn items across sites"
        return f"{share}: catalogues are mostly disjoint, so expect little gain on items from federating"

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {**asdict(self), "advice": self.advice}


def describe(log: EventLog) -> Description:
    """Count what is in a log, in all and per site (one site named "all" where the log has no site column)."""
    frame = log.frame if "site" in log.frame.columns else log.frame.with_columns(pl.lit("all").alias("site"))
    shared = _items_of_several_sites(frame)
    by_site = frame.group_by("site").agg(
        pl.col("consumer").n_unique().alias("consumers"),
        pl.len().alias("events"),
        pl.col("item").drop_nulls().n_unique().alias("items"),
        (pl.col("event") == "purchase").sum().alias("purchases"),
        pl.col("item").drop_nulls().is_in(shared.implode()).mean().fill_null(0.0).alias("shared_events"),
        pl.col("timestamp").min().dt.to_string().alias("first"),
        pl.col("timestamp").max().dt.to_string().alias("last"),
    )
    sites = tuple(
        SiteStatistics(**row, events_per_consumer=row["events"] / row["consumers"])
        for row in by_site.sort("consumers", "site", descending=[True, False]).iter_rows(named=True)
    )
    counts = frame["event"].value_counts()
    of_type = dict(zip(counts["event"].cast(pl.String), counts["count"], strict=True))
    items = frame["item"].drop_nulls()
    lengths = np.diff(log.offsets)
    middle = np.quantile(lengths, (0.1, 0.5, 0.9), method="nearest") if len(lengths) else np.zeros(3)
    homes = frame.select("consumer", "site").unique()["consumer"].value_counts()["count"].to_numpy()
    return Description(
        consumers=len(homes),
        events=frame.height,
        items=items.n_unique(),
        categories=frame["category"].drop_nulls().n_unique(),
        event_types={name: of_type[name] for name in sorted(of_type, key=lambda name: -of_type[name])},
        sites=sites,
        shared_events=int(items.is_in(shared.implode()).sum()) / max(1, len(items)),
        overlap=float(np.mean(homes > 1)) if len(homes) else 0.0,
        shared_items=len(shared),
        per_consumer=(int(middle[0]), int(middle[1]), int(middle[2])),
        learnable=float(np.mean(lengths > 1)) if len(lengths) else 0.0,
        time=_time_range(frame["timestamp"]),
        tasks=_tasks(frame, lengths),
    )


def _time_range(times: pl.Series) -> TimeRange:
    days = times.dt.date().unique().sort()
    if not len(days):
        return TimeRange()
    steps = days.diff().dt.total_days().fill_null(1)
    usual = max(1, int(np.quantile(steps.to_numpy(), 0.95)))
    wide = (steps > max(GAP_DAYS, 2 * usual)).arg_true().to_list()
    longest = sorted(wide, key=lambda place: -int(steps[place]))[:SHOWN_GAPS]
    gaps = tuple((str(days[place - 1]), str(days[place]), int(steps[place]) - 1) for place in sorted(longest))
    whole = (days[-1] - days[0]).days + 1
    return TimeRange(str(days[0]), str(days[-1]), whole, whole - len(days), gaps)


def _tasks(frame: pl.DataFrame, lengths: NDArray[np.int64]) -> tuple[tuple[str, str], ...]:
    """What each task of the program needs of a log, and what of it is not there."""
    has_items = bool(frame["item"].count())
    purchases = frame.filter(pl.col("event") == "purchase")
    others = frame.filter(~pl.col("event").is_in(["purchase", "cancel"]))
    days = (purchases["timestamp"].max() - purchases["timestamp"].min()).days + 1 if purchases.height else 0  # type: ignore[operator, union-attr]
    nothing_follows = "" if (lengths > 1).any() else "no consumer has two events: nothing follows anything"
    one_type = "every event is of one type" if frame["event"].n_unique() < 2 else ""
    only_purchases = "" if purchases.height and others.height else "needs purchases, and events before them"
    too_short = (
        "" if days >= SALES_DAYS else f"purchases of {days} days, {SALES_DAYS} are needed with the usual settings"
    )
    return (
        ("next item", nothing_follows or ("" if has_items else "no line names an item")),
        ("next event", nothing_follows or one_type),
        ("purchase intent", nothing_follows or only_purchases),
        ("sales", "no purchase" if not purchases.height else too_short),
        ("anomalies", nothing_follows),
    )


def _items_of_several_sites(frame: pl.DataFrame) -> pl.Series:
    pairs = frame.select("item", "site").drop_nulls().unique()
    return pairs.group_by("item").len().filter(pl.col("len") >= STOCKISTS)["item"]
