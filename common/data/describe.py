"""Statistics of a log for its owner: per site, per event type, and whether federating can pay.

True counts of one party's own data. They are shown to the operator and never become part of a release.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from common.data.events import EventLog

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
class Description:
    """True counts of a log.

    ``shared_events`` is the share of item events that concern items which at least three sites have;
    ``overlap`` the share of consumers seen at more than one site.
    """

    consumers: int
    events: int
    items: int
    categories: int
    event_types: dict[str, int]
    sites: tuple[SiteStatistics, ...]
    shared_events: float
    overlap: float

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
    )


def _items_of_several_sites(frame: pl.DataFrame) -> pl.Series:
    pairs = frame.select("item", "site").drop_nulls().unique()
    return pairs.group_by("item").len().filter(pl.col("len") >= STOCKISTS)["item"]
