"""Segments: consumers whose behaviour the model reads alike, named by what they buy. A site's own log, nothing leaves.

A consumer's state is the mean of the model's hidden states over their last events. States are clustered as they were some days
before the end of the log, so what each segment bought in those days is no part of what put a consumer there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from client.scoring.consumers import LocalLog, chunks
from client.scoring.model import SharedModel
from common.data import NO_SITE, EventLog
from common.errors import BadInputError
from common.model import Batcher, whole_rows

MOST, FEWEST_EACH = 12, 5
NOBODY = "no preference"
_CHOICES = range(3, 9)
_SEEDS = (0, 1, 2, 3)
_DIMENSIONS, _SAMPLE, _CHUNK = 10, 1_500, 256
_Z = 1.959964  # of 95 %

States = NDArray[np.float32]


@dataclass(frozen=True)
class Preference:
    """A category or item: share of a segment's consumers who bought it, and of all others; ``bought`` False: had it in any event."""

    what: str
    here: float
    elsewhere: float
    bought: bool = True

    @property
    def words(self) -> str:
        """With both numbers."""
        return f"{self.what} ({self.here:.0%} {'buy' if self.bought else 'look at'} it, {self.elsewhere:.0%} of the others)"


@dataclass(frozen=True)
class Conversion:
    """How many of ``asked`` consumers bought, with the Wilson interval of 95 %; NaN of nobody."""

    asked: int
    bought: int

    @property
    def rate(self) -> float:
        """Share who bought."""
        return self.bought / self.asked if self.asked else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference"."""
        if not self.asked:
            return math.nan, math.nan
        n, p = self.asked, self.rate
        middle, half = p + _Z**2 / (2 * n), _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        scale = 1 + _Z**2 / n
        return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


@dataclass(frozen=True)
class Segment:
    """``size``: consumers now; ``conversion``: of those who were in it before the last days."""

    name: str
    size: int
    prefers: tuple[Preference, ...]
    conversion: Conversion


@dataclass(frozen=True)
class Segments:
    """Shapes: ``consumers: uint64[N]``, ``place: int64[N]`` index of each one's segment, ``states: float32[N, dim]``.

    ``campaigns``: (segment, campaign) -> conversion, "" for all segments; ``agreement``: adjusted Rand index with the same
    clustering from other seeds, 1 for the same; ``since``: conversion counts purchases from this moment on.
    """

    consumers: NDArray[np.uint64]
    place: NDArray[np.int64]
    states: States
    segments: tuple[Segment, ...]
    campaigns: dict[tuple[str, str], Conversion]
    agreement: float
    since: datetime

    def named(self, text: str) -> int:
        """A segment by its number from 1, or by its name. Raises: BadInputError."""
        names = [segment.name for segment in self.segments]
        if text in names:
            return names.index(text)
        if text.isdecimal() and 1 <= int(text) <= len(names):
            return int(text) - 1
        raise BadInputError(f"no segment {text!r}", hint=f"its number, or one of: {', '.join(names)}")


def find_segments(
    shared: SharedModel, log: EventLog, count: int = 0, days: int = 28, campaigns: Mapping[int, str] | None = None
) -> Segments:
    """Cluster the consumers of a log. ``count`` 0: the number from 3 to 8 with the best silhouette.

    ``campaigns``: the campaign of each consumer, by pseudonym. Raises: BadInputError for too few consumers or days.
    """
    end: Any = log.frame["timestamp"].max()
    since = _before(end, days)
    earlier = log.where(pl.col("timestamp") < since)
    least = FEWEST_EACH * (count or _CHOICES[0])
    if count and not 2 <= count <= MOST:
        raise BadInputError(f"{count} segments cannot be named", hint=f"2 to {MOST}")
    if len(earlier.consumers) < least:
        raise BadInputError(
            f"{len(earlier.consumers):,} consumers have events before {since:%Y-%m-%d}, {least} are needed",
            hint="give a longer log, fewer --days, or a smaller --k",
        )
    before, now = pooled_states(shared, earlier), pooled_states(shared, log)
    model = _Clusters.of(before, count)
    then, place = model.assign(before), model.assign(now)
    order = np.argsort(-np.bincount(place, minlength=model.count), kind="stable")
    rank = np.argsort(order)
    then, place = rank[then], rank[place]
    buyers = log.where((pl.col("timestamp") >= since) & (pl.col("event") == "purchase")).consumers
    bought = np.isin(earlier.consumers, buyers)
    tells = preferences(log, place, model.count)
    names = _names(tells)
    segments = tuple(
        Segment(names[k], int((place == k).sum()), tells[k], Conversion(int((then == k).sum()), int(bought[then == k].sum())))
        for k in range(model.count)
    )  # fmt: skip
    by_campaign = _by_campaign(earlier.consumers, then, bought, names, campaigns or {})
    return Segments(log.consumers, place, now, segments, by_campaign, model.agreement, since)


def _before(end: datetime, days: int) -> datetime:
    try:
        return end - timedelta(days=days)
    except OverflowError:
        raise BadInputError(f"{days} days reach back before all time", hint="give fewer --days") from None


def pooled_states(shared: SharedModel, log: EventLog) -> States:
    """Mean hidden state of every consumer over their last events: ``float32[N, dim]``."""
    sequences = shared.sequences(log)
    batcher = Batcher(sequences, (), whole_rows(sequences))
    states = np.zeros((len(sequences), shared.model.settings.dim), dtype=np.float32)
    with torch.no_grad():
        for rows in chunks(len(sequences), _CHUNK):
            batch = batcher.packed(rows)
            if batch.steps:
                hidden = shared.model.hidden_states(batch)
                sums = hidden.new_zeros(batch.size, hidden.shape[1]).index_add(0, batch.consumer_of_row, hidden)
                states[batch.consumers.numpy()] = (sums / batch.lengths.clamp(min=1)[:, None]).numpy()
    return states


class _Clusters:
    """Centres of standardised states on their main axes; how much they owe to chance."""

    def __init__(self, axes: Any, centres: Any, agreement: float) -> None:
        self._axes, self._centres, self.agreement = axes, centres, agreement
        self.count = int(centres.n_clusters)

    @staticmethod
    def of(states: States, count: int) -> _Clusters:
        """Fit, on one thread: several mostly wait for each other. The same states give the same centres."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        with threadpool_limits(1):
            return _Clusters._fit(states, count)

    @staticmethod
    def _fit(states: States, count: int) -> _Clusters:
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA
        from sklearn.metrics import adjusted_rand_score, silhouette_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        axes = make_pipeline(StandardScaler(), PCA(min(_DIMENSIONS, *states.shape), random_state=0))
        places = axes.fit_transform(states.astype(np.float64))
        if not count:
            sample = np.random.default_rng(0).permutation(len(places))[:_SAMPLE]
            able = [k for k in _CHOICES if k * FEWEST_EACH <= len(places)]
            labels = {k: KMeans(k, n_init=2, random_state=0).fit(places).labels_[sample] for k in able}
            fit = {k: silhouette_score(places[sample], one) for k, one in labels.items() if len(set(one)) > 1}
            count = max(fit, key=lambda k: fit[k], default=_CHOICES[0])
        runs = [KMeans(count, n_init=5, random_state=seed).fit(places) for seed in _SEEDS]
        best = min(runs, key=lambda run: run.inertia_)
        others = [adjusted_rand_score(best.labels_, run.labels_) for run in runs if run is not best]
        return _Clusters(axes, best, float(np.mean(others)))

    def assign(self, states: States) -> NDArray[np.int64]:
        """The nearest centre of each state: ``int64[N]``."""
        return np.asarray(self._centres.predict(self._axes.transform(states.astype(np.float64))), dtype=np.int64)


def preferences(log: EventLog, place: NDArray[np.int64], count: int) -> list[tuple[Preference, ...]]:
    """What each segment's consumers buy more often than the others, the clearest first, at most three.

    Categories, or items where there are fewer than three categories; of purchases, or of all events where nobody bought. Only
    what at least five of them buy, and more often beyond chance, counts: at 5 %, shared out among all that is compared.
    """
    bought = log.frame.filter(pl.col("event") == "purchase")
    frame = bought if bought.height else log.frame
    column = "category" if frame["category"].drop_nulls().n_unique() >= 3 else "item"
    pairs = frame.filter(pl.col(column).is_not_null()).select("consumer", column).unique()
    rows = np.searchsorted(log.consumers, pairs["consumer"].to_numpy())
    names = pairs[column].unique().sort()
    table = np.zeros((count, len(names)))
    np.add.at(table, (place[rows], np.searchsorted(names.to_numpy(), pairs[column].to_numpy())), 1.0)
    sizes = np.bincount(place, minlength=count).astype(np.float64)[:, None]
    rest, others = table.sum(axis=0) - table, np.maximum(sizes.sum() - sizes, 1.0)
    here, there = table / np.maximum(sizes, 1.0), rest / others
    pooled = (table + rest) / (sizes + others)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / np.maximum(sizes, 1.0) + 1 / others), 1e-12))
    clear = (here - there) / spread
    beyond = NormalDist().inv_cdf(1 - 0.025 / table.size)
    return [
        tuple(
            Preference(str(names[int(j)]), float(here[k, j]), float(there[k, j]), bool(bought.height))
            for j in np.argsort(-clear[k], kind="stable")[:3]
            if clear[k, j] > beyond and table[k, j] >= FEWEST_EACH
        )
        for k in range(count)
    ]


def _names(tells: Sequence[tuple[Preference, ...]]) -> list[str]:
    """One name for each segment, no two the same."""
    names: list[str] = []
    for prefers in tells:
        words = [one.what for one in prefers] or [NOBODY]
        long = (" + ".join(words[: n + 1]) for n in range(len(words)))
        name = next((one for one in long if one not in names), words[0])
        names.append(name if name not in names else f"{name} {sum(n.startswith(name) for n in names) + 1}")
    return names


def _by_campaign(
    consumers: NDArray[np.uint64],
    place: NDArray[np.int64],
    bought: NDArray[np.bool_],
    names: Sequence[str],
    campaigns: Mapping[int, str],
) -> dict[tuple[str, str], Conversion]:
    if not campaigns:
        return {}
    told = np.array([campaigns.get(int(who), "") for who in consumers], dtype=object)

    def rows() -> Iterator[tuple[tuple[str, str], Conversion]]:
        for campaign in sorted({str(one) for one in told}):
            here = told == campaign
            yield ("", campaign), Conversion(int(here.sum()), int(bought[here].sum()))
            for k, name in enumerate(names):
                both = here & (place == k)
                yield (name, campaign), Conversion(int(both.sum()), int(bought[both].sum()))

    return dict(rows())


def campaigns_of(log: EventLog) -> dict[int, str]:
    """The last campaign that each consumer's events name, of a log that was read with that column as its site."""
    if "site" not in log.frame.columns:
        return {}
    named = log.frame.filter(pl.col("site").is_not_null() & ~pl.col("site").is_in(["", NO_SITE]))
    last = named.group_by("consumer", maintain_order=True).last().select("consumer", "site")
    return dict(zip(last["consumer"].to_list(), last["site"].to_list(), strict=True))


def audience_table(found: Segments, log: LocalLog, only: int | None = None) -> dict[str, list[Any]]:
    """Consumer and segment, of all or of one segment."""
    rows = [row for row, place in enumerate(found.place) if only in (None, int(place))]
    return {
        "consumer": [log.shown(int(found.consumers[row])) for row in rows],
        "segment": [int(found.place[row]) + 1 for row in rows],
        "name": [found.segments[int(found.place[row])].name for row in rows],
    }
