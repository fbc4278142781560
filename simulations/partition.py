"""Deal one event log to sites: by a column of the log (natural sites), by consumer (IID), by taste (non-IID).

Small sites are merged or left out by a rule on *declared* populations, never on true counts; what was done
with each is said in words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.data import EventLog, concatenate
from common.errors import BadInputError

By = Literal["column", "consumers", "items"]
Small = Literal["merge", "drop"]

REST = "rest"
ASSUMPTION = (
    "declared population of a simulated site = its number of consumers rounded up to a power of two; "
    "in a deployment the site's operator declares it"
)
_NAMED_AT_MOST = 12
_DIMENSIONS = 16


@dataclass(frozen=True)
class SitePart:
    """One simulated site: its events and its declared (public) number of consumers."""

    name: str
    log: EventLog
    population: int
    note: str = ""


@dataclass(frozen=True)
class Partition:
    """The sites of a simulation, by name, and what was merged or left out, in words."""

    by: str
    sites: tuple[SitePart, ...]
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sites, in order."""
        return tuple(site.name for site in self.sites)

    def stock(self) -> EventLog:
        """Item, category and site of all events, in no order and of nobody: what a catalogue is made from."""
        light = (site.log.frame.select("item", "category", pl.lit(site.name).alias("site")) for site in self.sites)
        return EventLog(pl.concat(light))

    def log(self) -> EventLog:
        """All events of all sites, the site column holding these sites' names."""
        frames = [site.log.frame.with_columns(pl.lit(site.name).alias("site")) for site in self.sites]
        return concatenate(EventLog(frame) for frame in frames)


def declared_population(consumers: int) -> int:
    """The public stand-in for a site's number of consumers: the next power of two."""
    return 1 << max(0, consumers - 1).bit_length()


def partition(
    log: EventLog,
    *,
    by: By = "column",
    column: str = "site",
    sites: int = 8,
    seed: int = 1,
    min_population: int = 100,
    small: Small = "merge",
) -> Partition:
    """Deal a log to sites. ``sites`` and ``seed`` count where the split is not a column.

    A site whose declared population is below ``min_population`` is merged into one site "rest" or left
    out; a "rest" that is still too small is left out.
    Raises: BadInputError for 0 sites, more sites than consumers, a column without values, or if no site
    is large enough.
    """
    if by == "column":
        parts = _by_column(log, column)
    else:
        consumers = len(log.consumers)
        if sites < 1:
            raise BadInputError(f"{sites} sites are not possible", hint="give at least 1, 8 is the default")
        if sites > consumers:
            raise BadInputError(
                f"{sites} sites are more than the {consumers} consumers of the log", hint="give fewer sites"
            )
        assigned = _deal(consumers, sites, seed) if by == "consumers" else _by_taste(log, sites, seed)
        parts = _by_assignment(log, assigned, sites)
    ready = [_site_part(name, part) for name, part in parts.items()]
    return _without_small(by, ready, min_population, small)


def _site_part(name: str, log: EventLog) -> SitePart:
    return SitePart(name, log, declared_population(len(log.consumers)))


def _by_column(log: EventLog, column: str) -> dict[str, EventLog]:
    if column not in log.frame.columns or not log.frame[column].count():
        raise BadInputError(
            f"the log has no column {column!r} to split by",
            hint="map a column to `site`, or deal by consumer with --sites N",
        )
    frames = log.frame.drop_nulls(column).partition_by(column, as_dict=True, maintain_order=True)
    return {str(name): EventLog(frame) for (name,), frame in sorted(frames.items(), key=lambda pair: str(pair[0]))}


def _by_assignment(log: EventLog, assigned: NDArray[np.int64], sites: int) -> dict[str, EventLog]:
    """``assigned: int64[consumers]`` holds the site number of each consumer."""
    width = len(str(sites))
    names = pl.Series([f"site-{i:0{width}d}" for i in range(1, sites + 1)])
    events = np.repeat(assigned, np.diff(log.offsets)).astype(np.uint32)
    return _by_column(EventLog(log.frame.with_columns(names.gather(pl.Series(events)).alias("site"))), "site")


def _deal(consumers: int, sites: int, seed: int) -> NDArray[np.int64]:
    """Equal shares in random order, so that no site is empty: ``int64[consumers]``."""
    return np.random.default_rng(seed).permutation(np.arange(consumers) % sites)


def _by_taste(log: EventLog, sites: int, seed: int) -> NDArray[np.int64]:
    """Consumers grouped by the items they touch: ``int64[consumers]``. An empty group stays empty."""
    from scipy.sparse import csr_matrix
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    touched = log.frame["item"]
    names = touched.drop_nulls().unique().sort()
    if len(names) < sites:
        raise BadInputError(f"{len(names)} items cannot form {sites} groups", hint="give fewer sites")
    numbers = pl.Series(np.arange(len(names), dtype=np.int64))
    column = touched.replace_strict(names, numbers, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy()
    row = np.repeat(np.arange(len(log.offsets) - 1), np.diff(log.offsets))
    known = column >= 0
    counts = csr_matrix(
        (np.ones(known.sum()), (row[known], column[known])), shape=(len(log.offsets) - 1, len(names))
    )
    counts.data = np.log1p(counts.data)
    rarity = np.log(counts.shape[0] / np.maximum(1, np.diff(counts.tocsc().indptr)))
    weighted = normalize(counts.multiply(rarity).tocsr())
    if min(weighted.shape) > _DIMENSIONS + 1:
        weighted = TruncatedSVD(_DIMENSIONS, random_state=seed).fit_transform(weighted)
    group: NDArray[np.int64] = KMeans(sites, n_init=2, random_state=seed).fit_predict(weighted).astype(np.int64)
    return group


def _without_small(by: str, parts: list[SitePart], min_population: int, small: Small) -> Partition:
    """Apply the rule on declared populations and say what it did."""
    kept = [part for part in parts if part.population >= min_population]
    low = [part for part in parts if part.population < min_population]
    notes = [ASSUMPTION]
    if low and small == "merge":
        merged = concatenate(part.log for part in low)
        taken = {part.name for part in kept}
        rest = _site_part(REST if REST not in taken else f"{REST} (merged)", merged)
        named = _named(low)
        if rest.population >= min_population:
            kept.append(replace(rest, note=f"merged from {named}"))
            notes.append(
                f"{len(low)} sites with a declared population below {min_population} were merged into "
                f"{rest.name!r}: {named}"
            )
        else:
            small = "drop"
    if low and small == "drop":
        notes.append(
            f"{len(low)} sites with a declared population below {min_population} were left out: {_named(low)}"
        )
    if not kept:
        raise BadInputError(
            f"none of the {len(parts)} sites has a declared population of {min_population} or more",
            hint="lower data.min_population, or deal the consumers to fewer sites",
        )
    return Partition(by, tuple(kept), tuple(notes))


def _named(parts: list[SitePart]) -> str:
    shown = ", ".join(f"{part.name} ({part.population})" for part in parts[:_NAMED_AT_MOST])
    more = len(parts) - _NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown
