"""Pseudonyms of real consumers in a run folder: random, so that nobody finds an e-mail address again by trying.

The seed of a simulation is public. It decides, as before, which site and which side of the hold-out a consumer is on, so
that a split repeats; ids and order of the rows that are stored come from the operating system.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.data import EventLog, holdout_mask
from simulations.partition import Partition


def renamed(log: EventLog, key: bytes, fraction: float) -> EventLog:
    """The log under random pseudonyms, each consumer on the side of the hold-out on which they were.

    Guarantee: ids and order tell nothing about the old ids but the side.
    """
    held = holdout_mask(log.consumers, key, fraction)
    fresh = np.empty(len(held), dtype=np.uint64)
    fresh[held], fresh[~held] = _drawn(int(held.sum()), int((~held).sum()), key, fraction)
    ids = np.repeat(fresh, np.diff(log.offsets))
    return EventLog.from_frame(log.frame.with_columns(pl.Series("consumer", ids)))


def with_random_pseudonyms(dealt: Partition, keys: dict[str, bytes], fraction: float) -> Partition:
    """Every site's log ``renamed``; ``keys``: of the hold-outs, by site."""
    sites = (replace(site, log=renamed(site.log, keys[site.name], fraction)) for site in dealt.sites)
    return replace(dealt, sites=tuple(sites))


def _drawn(held: int, trained: int, key: bytes, fraction: float) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Random ids, none twice: so many that the key holds out, and so many that it does not."""
    found = np.empty(0, dtype=np.uint64)
    while True:
        share = fraction if held else 1.0
        more = int(1.2 * max(held / max(share, 1e-9), trained / (1 - fraction))) + 64
        found = np.unique(np.concatenate([found, np.frombuffer(os.urandom(8 * more), dtype=np.uint64)]))
        found = found[np.argsort(np.frombuffer(os.urandom(8 * len(found)), dtype=np.uint64))]
        side = holdout_mask(found, key, fraction)
        if side.sum() >= held and (~side).sum() >= trained:
            return found[side][:held], found[~side][:trained]
