"""Statistics of a log for its owner: per site, per event type, and whether federating can pay.

True counts of one party's own data. They are shown to the operator and never become part of a release.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
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
    return describe_pieces([log])


def describe_pieces(pieces: Iterable[EventLog]) -> Description:
    """``describe`` of a log in pieces, each consumer whole in one of them; memory for a piece, and for what is counted."""
    counts = _Counts()
    for piece in pieces:
        counts.add(piece)
    return counts.description()


@dataclass
class _Counts:
    """What adds up over pieces. ``items``: events of each item at each site; ``sites``: sums and ends of each."""

    sites: pl.DataFrame | None = None
    items: pl.DataFrame | None = None
    categories: set[str] = field(default_factory=set)
    types: Counter[str] = field(default_factory=Counter)
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    consumers: int = 0
    at_several: int = 0
    days: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.Date))
    bought: list[datetime] = field(default_factory=list)

    def add(self, log: EventLog) -> None:
        """Count a piece."""
        frame = log.frame if "site" in log.frame.columns else log.frame.with_columns(pl.lit("all").alias("site"))
        by_site = frame.group_by("site").agg(
            pl.col("consumer").n_unique().cast(pl.Int64).alias("consumers"),
            pl.len().cast(pl.Int64).alias("events"),
            (pl.col("event") == "purchase").sum().cast(pl.Int64).alias("purchases"),
            pl.col("timestamp").min().alias("first"),
            pl.col("timestamp").max().alias("last"),
        )
        self.sites = _merged(self.sites, by_site, "site")
        touched = frame.drop_nulls("item").group_by("site", "item").agg(pl.len().cast(pl.Int64).alias("events"))
        self.items = _merged(self.items, touched, "site", "item")
        self.categories |= set(frame["category"].drop_nulls().unique())
        counts = frame["event"].value_counts()
        self.types.update(dict(zip(counts["event"].cast(pl.String), counts["count"], strict=True)))
        self.lengths.append(np.diff(log.offsets))
        homes = frame.select("consumer", "site").unique()["consumer"].value_counts()["count"]
        self.consumers, self.at_several = self.consumers + len(homes), self.at_several + int((homes > 1).sum())
        self.days = pl.concat([self.days, frame["timestamp"].dt.date()]).unique().sort()
        bought = frame.filter(pl.col("event") == "purchase")["timestamp"]
        self.bought = [end(times) for end in (min, max) if (times := [*self.bought, *_ends(bought)])]

    def description(self) -> Description:
        """What all pieces together have."""
        sites = self.sites if self.sites is not None else _merged(None, _NO_SITE, "site")
        items = self.items if self.items is not None else _NO_ITEM
        of_item = items.group_by("item").agg(pl.len().alias("sites"))
        shared = of_item.filter(pl.col("sites") >= STOCKISTS)["item"]
        inside = items["item"].is_in(shared.implode())
        lengths = np.concatenate(self.lengths) if self.lengths else np.zeros(0, dtype=np.int64)
        low, middle, high = (
            np.quantile(lengths, (0.1, 0.5, 0.9), method="nearest") if len(lengths) else np.zeros(3)
        )
        return Description(
            consumers=self.consumers,
            events=int(sites["events"].sum()),
            items=of_item.height,
            categories=len(self.categories),
            event_types=dict(sorted(self.types.items(), key=lambda pair: -pair[1])),
            sites=_site_statistics(sites, items.with_columns(inside.alias("shared"))),
            shared_events=int(items["events"].filter(inside).sum()) / max(1, int(items["events"].sum())),
            overlap=self.at_several / self.consumers if self.consumers else 0.0,
            shared_items=len(shared),
            per_consumer=(int(low), int(middle), int(high)),
            learnable=float(np.mean(lengths > 1)) if len(lengths) else 0.0,
            time=_time_range(self.days),
            tasks=self._tasks(lengths),
        )

    def _tasks(self, lengths: NDArray[np.int64]) -> tuple[tuple[str, str], ...]:
        """What each task of the program needs of a log, and what of it is not there."""
        has_items = self.items is not None and self.items.height > 0
        others = any(count for name, count in self.types.items() if name not in ("purchase", "cancel"))
        days = (self.bought[1] - self.bought[0]).days + 1 if self.bought else 0
        nothing_follows = "" if (lengths > 1).any() else "no consumer has two events: nothing follows anything"
        one_type = "every event is of one type" if len(self.types) < 2 else ""
        only_purchases = "" if self.bought and others else "needs purchases, and events before them"
        too_short = (
            ""
            if days >= SALES_DAYS
            else f"purchases of {days} days, {SALES_DAYS} are needed with the usual settings"
        )
        return (
            ("next item", nothing_follows or ("" if has_items else "no line names an item")),
            ("next event", nothing_follows or one_type),
            ("purchase intent", nothing_follows or only_purchases),
            ("sales", "no purchase" if not self.bought else too_short),
            ("anomalies", nothing_follows),
        )


_NO_SITE = pl.DataFrame(
    schema={"site": pl.String, "consumers": pl.Int64, "events": pl.Int64, "purchases": pl.Int64,
            "first": pl.Datetime("us"), "last": pl.Datetime("us")}
)  # fmt: skip
_NO_ITEM = pl.DataFrame(schema={"site": pl.String, "item": pl.String, "events": pl.Int64})


def _merged(before: pl.DataFrame | None, more: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """Counts of two pieces: sums, and the earlier first and the later last."""
    if before is None:
        return more
    ends = [pl.col("first").min(), pl.col("last").max()] if "first" in more.columns else []
    sums = [pl.col(name).sum() for name in more.columns if name not in (*keys, "first", "last")]
    return pl.concat([before, more]).group_by(*keys).agg(*sums, *ends).select(more.columns)


def _ends(times: pl.Series) -> list[datetime]:
    return [times.min(), times.max()] if len(times) else []  # type: ignore[list-item]


def _site_statistics(sites: pl.DataFrame, items: pl.DataFrame) -> tuple[SiteStatistics, ...]:
    """Largest site first. ``items``: events of each item at each site, and whether it is shared."""
    touched = items.group_by("site").agg(
        pl.len().cast(pl.Int64).alias("items"),
        (pl.col("events").filter(pl.col("shared")).sum() / pl.col("events").sum()).alias("shared_events"),
    )
    rows = sites.join(touched, on="site", how="left", nulls_equal=True).with_columns(
        pl.col("items").fill_null(0),
        pl.col("shared_events").fill_null(0.0),
        pl.col("first").dt.to_string(),
        pl.col("last").dt.to_string(),
    )
    return tuple(
        SiteStatistics(**row, events_per_consumer=row["events"] / row["consumers"])
        for row in rows.sort("consumers", "site", descending=[True, False]).iter_rows(named=True)
    )


def _time_range(days: pl.Series) -> TimeRange:
    """``days``: those with an event, ascending, each once."""
    if not len(days):
        return TimeRange()
    steps = days.diff().dt.total_days().fill_null(1)
    usual = max(1, int(np.quantile(steps.to_numpy(), 0.95)))
    wide = (steps > max(GAP_DAYS, 2 * usual)).arg_true().to_list()
    longest = sorted(wide, key=lambda place: -int(steps[place]))[:SHOWN_GAPS]
    gaps = tuple((str(days[place - 1]), str(days[place]), int(steps[place]) - 1) for place in sorted(longest))
    whole = (days[-1] - days[0]).days + 1
    return TimeRange(str(days[0]), str(days[-1]), whole, whole - len(days), gaps)
