"""Plain rows: equal sites, items only, lengths between two bounds. What comparisons of systems are run on.

An item is followed by its successor half of the time, and by a popular item otherwise: enough to learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.data import EVENT_TYPES, Catalogue, EventLog, pseudonym
from common.errors import ConfigError
from simulations.synthetic import FIRST_DAY, original_id, secret_of, site_names

SOURCE = "plain rows (public)"
_FOLLOWS = 0.5
_PAUSE_US = 30 * 1_000_000
_DAY_US = 86_400 * 1_000_000


@dataclass(frozen=True)
class RowsSpec:
    """Public constants of the rows. ``lengths``: fewest and most events of a consumer, uniform between them."""

    sites: int
    consumers: int
    items: int
    lengths: tuple[int, int]

    def __post_init__(self) -> None:
        if self.sites < 1 or self.consumers < self.sites:
            raise ConfigError(
                f"{self.consumers} consumers over {self.sites} sites is not possible",
                hint="at least one site, and one consumer per site",
            )
        if not 1 <= self.lengths[0] <= self.lengths[1]:
            raise ConfigError(
                f"rows of {self.lengths[0]} to {self.lengths[1]} events are not possible",
                hint="data.lengths is [fewest, most], at least 1",
            )


def generate_rows(spec: RowsSpec, seed: int) -> tuple[EventLog, Catalogue]:
    """Generate the log and its public catalogue, stocked by every site; the same for the same spec and seed."""
    rng = np.random.default_rng(seed)
    secret = secret_of(seed)
    drawn = np.array([pseudonym(original_id(p), secret) for p in range(spec.consumers)], dtype=np.uint64)
    consumer = np.sort(drawn)
    site = rng.permutation(np.arange(spec.consumers) % spec.sites)
    lengths = rng.integers(spec.lengths[0], spec.lengths[1] + 1, spec.consumers)
    row = np.repeat(np.arange(spec.consumers), lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    number = np.arange(offsets[-1]) - offsets[row]
    begin_us = _first_us() + rng.integers(0, 180, spec.consumers) * _DAY_US
    names = tuple(f"item-{i:0{len(str(spec.items))}d}" for i in range(1, spec.items + 1))
    frame = pl.DataFrame(
        {
            "consumer": pl.Series(consumer[row]),
            "timestamp": pl.Series(begin_us[row] + number * _PAUSE_US).cast(pl.Datetime("us")),
            "event": pl.repeat("view", len(row), dtype=pl.Enum(EVENT_TYPES), eager=True),
            "item": pl.Series(names).gather(pl.Series(_walk(spec, lengths, offsets, rng).astype(np.uint32))),
            "category": pl.repeat("everything", len(row), dtype=pl.String, eager=True),
            "price": pl.repeat(None, len(row), dtype=pl.Float32, eager=True),
            "quantity": pl.repeat(None, len(row), dtype=pl.Float32, eager=True),
            "site": pl.Series(site_names(spec.sites)).gather(pl.Series(site[row].astype(np.uint32))),
        }
    )
    return EventLog(frame), _catalogue(spec, names)


def _first_us() -> int:
    return int((FIRST_DAY - datetime(1970, 1, 1)).total_seconds()) * 1_000_000


def _walk(
    spec: RowsSpec, lengths: NDArray[np.int64], offsets: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Item of every event: ``int64[R]`` in ``[0, items)``. One pass per position, over all rows at once."""
    popularity = 1.0 / np.arange(1, spec.items + 1)
    cdf = np.cumsum(popularity) / popularity.sum()
    total = int(offsets[-1])
    item = np.minimum(np.searchsorted(cdf, rng.random(total)), spec.items - 1)
    follows = rng.random(total) < _FOLLOWS
    successor = rng.permutation(spec.items)
    for t in range(1, int(lengths.max())):
        at = offsets[:-1][lengths > t] + t
        at = at[follows[at]]
        item[at] = successor[item[at - 1]]
    return item


def _catalogue(spec: RowsSpec, names: tuple[str, ...]) -> Catalogue:
    category = np.ones(spec.items + 1, dtype=np.int32)
    category[0] = 0
    everything = np.ones(spec.items + 1, dtype=np.bool_)
    everything[0] = False
    return Catalogue(names, ("everything",), category, SOURCE, dict.fromkeys(site_names(spec.sites), everything))
