"""Pseudonyms of real consumers in a run folder: random, so that nobody finds an e-mail address again by trying.

The seed of a simulation is public. It decides, as before, which site and which part of the split a consumer is in, so
that a split repeats; ids and order of the rows that are stored come from the operating system.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.data import EventLog, Split
from simulations.partition import Partition


def renamed(log: EventLog, split: Split) -> EventLog:
    """The log under random pseudonyms, each consumer in the part of the split in which they were.

    Guarantee: ids and order tell nothing about the old ids but the part.
    """
    parts = _parts(log.consumers, split)
    fresh = np.empty(len(log.consumers), dtype=np.uint64)
    for part, ids in zip(parts, _drawn([int(part.sum()) for part in parts], split), strict=True):
        fresh[part] = ids
    ids = np.repeat(fresh, np.diff(log.offsets))
    return EventLog.from_frame(log.frame.with_columns(pl.Series("consumer", ids)))


def with_random_pseudonyms(dealt: Partition, splits: dict[str, Split]) -> Partition:
    """Every site's log ``renamed``; ``splits`` by site."""
    sites = (replace(site, log=renamed(site.log, splits[site.name])) for site in dealt.sites)
    return replace(dealt, sites=tuple(sites))


def _parts(consumers: NDArray[np.uint64], split: Split) -> list[NDArray[np.bool_]]:
    chooses, reported = split.masks(consumers)
    return [~(chooses | reported), chooses, reported]


def _drawn(counts: list[int], split: Split) -> list[NDArray[np.uint64]]:
    """Random ids, none twice: so many for each part."""
    chooses = split.holdout * split.validation
    shares = (1 - split.holdout, chooses, split.holdout - chooses)
    more = (
        int(
            1.2
            * max(count / max(share, 1e-9) if count else 0 for count, share in zip(counts, shares, strict=True))
        )
        + 64
    )
    found = np.empty(0, dtype=np.uint64)
    while True:
        found = np.unique(np.concatenate([found, np.frombuffer(os.urandom(8 * more), dtype=np.uint64)]))
        found = found[np.argsort(np.frombuffer(os.urandom(8 * len(found)), dtype=np.uint64))]
        parts = _parts(found, split)
        if all(part.sum() >= count for part, count in zip(parts, counts, strict=True)):
            return [found[part][:count] for part, count in zip(parts, counts, strict=True)]
