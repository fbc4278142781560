"""``FeatureSpec``: how an event becomes numbers, by public constants only.

Nothing here is learnt from data, so encoding costs no privacy budget: event types are a fixed list, items
come from a public catalogue or hashed buckets, price and time gap fall into fixed logarithmic buckets.
"""

from __future__ import annotations

import calendar
import hashlib
import itertools
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import common.wire as wire
from common.data.catalogue import Catalogue
from common.data.events import EventLog
from common.data.formats import EVENT_TYPES
from common.errors import BadInputError, ConfigError

_MINUTE, _HOUR, _DAY = 60.0, 3_600.0, 86_400.0
PRICE_EDGES = tuple(float(2**k) / 4 for k in range(16))
GAP_EDGES_S = (
    *(1.0, 5.0, 15.0, _MINUTE, 5 * _MINUTE, 30 * _MINUTE),
    *(2 * _HOUR, 12 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY, 90 * _DAY),
)
CALENDAR = {"hour": 24, "weekday": 7, "month": 12}
INTEGER_NAMES = ("event", "item", "category", "price", "gap", *CALENDAR)
NUMERIC_NAMES = ("log_price", "log_quantity", "log_gap")


@dataclass(frozen=True)
class FeatureSpec:
    """The public constants of the encoding; two parties with equal digests encode alike.

    Item indices: 0 padding and unknown, then the catalogue, then ``item_buckets`` hashed buckets for items
    outside of it (none: they are unknown). Categories likewise.
    Units: ``price_edges`` in the currency of the log, ``gap_edges_s`` in seconds; numeric features are
    log(1 + x) divided by ``numeric_scales``.
    """

    catalogue_items: int = 0
    catalogue_categories: int = 0
    catalogue_digest: str = ""
    item_buckets: int = 0
    category_buckets: int = 0
    event_types: tuple[str, ...] = EVENT_TYPES
    price_edges: tuple[float, ...] = PRICE_EDGES
    gap_edges_s: tuple[float, ...] = GAP_EDGES_S
    numeric_scales: tuple[float, ...] = (4.0, 2.0, 10.0)

    def __post_init__(self) -> None:
        counts = (self.catalogue_items, self.catalogue_categories, self.item_buckets, self.category_buckets)
        if min(counts) < 0:
            raise ConfigError(f"a feature spec has negative counts: {counts}")
        if self.catalogue_items + self.item_buckets < 1:
            raise ConfigError("no item can be encoded", hint="give a catalogue or features.item_buckets")
        if tuple(self.event_types) != EVENT_TYPES:
            raise ConfigError(
                "the event types differ from this program's list", hint="use the same version at every site"
            )
        for name in ("price_edges", "gap_edges_s"):
            edges = getattr(self, name)
            if any(a >= b for a, b in itertools.pairwise(edges)):
                raise ConfigError(f"{name} must rise: {edges}")

    @property
    def sizes(self) -> dict[str, int]:
        """Number of embedding rows of each integer feature, padding row 0 included."""
        return {
            "event": len(self.event_types) + 1,
            "item": 1 + self.catalogue_items + self.item_buckets,
            "category": 1 + self.catalogue_categories + self.category_buckets,
            "price": len(self.price_edges) + 2,
            "gap": len(self.gap_edges_s) + 2,
            **{name: size + 1 for name, size in CALENDAR.items()},
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values, for settings and model files."""
        return asdict(self)

    def canonical(self) -> str:
        """Canonical JSON, as a run's plan carries it."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> FeatureSpec:
        """Rebuild a spec from ``to_json``. Raises: BadInputError if fields are unknown or of a wrong type."""
        try:
            fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in tree.items()}
            return cls(**fields)
        except TypeError as error:
            raise BadInputError(f"not a feature spec: {error}", hint="the file is of another version") from None

    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes: ``bytes[32]``."""
        return wire.digest(self, domain="feature-spec")


def feature_spec(catalogue: Catalogue | None, *, item_buckets: int = 0, category_buckets: int = 0) -> FeatureSpec:
    """The default constants for a catalogue, for hashed buckets, or for both.

    Raises: ConfigError if there is neither.
    """
    if catalogue is None:
        return FeatureSpec(item_buckets=item_buckets, category_buckets=category_buckets)
    return FeatureSpec(
        catalogue_items=len(catalogue.items),
        catalogue_categories=len(catalogue.categories),
        catalogue_digest=catalogue.digest().hex(),
        item_buckets=item_buckets,
        category_buckets=category_buckets,
    )


def value_name(spec: FeatureSpec, feature: str, index: int) -> str:
    """What a value of an integer feature means, in words: event type, hour, weekday, month, bucket of price or gap.

    ``index`` is at least 1; items and categories are named by a catalogue, not here.
    """
    if feature == "event":
        return spec.event_types[index - 1]
    if feature == "hour":
        return f"{index - 1:02d}:00"
    if feature == "weekday":
        return calendar.day_name[index - 1]
    if feature == "month":
        return calendar.month_name[index]
    edges = {"price": spec.price_edges, "gap": spec.gap_edges_s}.get(feature, ())
    unit = " s" if feature == "gap" else ""
    if not 1 <= index <= len(edges) + 1:
        return str(index)
    if index == 1:
        return f"below {edges[0]:g}{unit}"
    return (
        f"{edges[-1]:g}{unit} and more"
        if index > len(edges)
        else f"{edges[index - 2]:g} to {edges[index - 1]:g}{unit}"
    )


def item_mask(spec: FeatureSpec, catalogue: Catalogue | None, site: str) -> NDArray[np.bool_]:
    """Item rows a site may train: ``bool[sizes["item"]]``; its stock and every hashed bucket, never row 0."""
    mask = np.ones(spec.sizes["item"], dtype=np.bool_)
    mask[0] = False
    if catalogue is not None:
        mask[: spec.catalogue_items + 1] = catalogue.mask(site)
    return mask


@dataclass(frozen=True)
class EncodedEvents:
    """Encoded lines of a log. Shapes: ``integers: int32[R, F]``, ``numeric: float32[R, G]``."""

    integers: NDArray[np.int32]
    numeric: NDArray[np.float32]
    timestamps: NDArray[np.int64]


def encode(
    log: EventLog, spec: FeatureSpec, catalogue: Catalogue | None, rows: NDArray[np.intp] | None = None
) -> EncodedEvents:
    """Encode the events of a log, or those at the positions ``rows``.

    The time gap is taken to the consumer's previous event in the whole log.
    Raises: ConfigError if the catalogue is not the one the spec was made for.
    """
    if spec.catalogue_items and (catalogue is None or catalogue.digest().hex() != spec.catalogue_digest):
        raise ConfigError("the catalogue is not the one of the feature spec", hint="use the run's catalogue file")
    gap_s = _gaps(log)
    frame = log.frame
    if rows is not None:
        frame, gap_s = frame[rows], gap_s[rows]
    price, quantity = (frame[name].to_numpy() for name in ("price", "quantity"))
    item = _coded(frame["item"], catalogue.items if catalogue else (), spec.item_buckets)
    integers = np.empty((frame.height, len(INTEGER_NAMES)), dtype=np.int32)
    integers[:, 0] = frame["event"].to_physical().to_numpy().astype(np.int32) + 1
    integers[:, 1] = item
    integers[:, 2] = _categories(frame["category"], item, catalogue, spec)
    integers[:, 3] = _bucket(price, spec.price_edges)
    integers[:, 4] = _bucket(gap_s, spec.gap_edges_s)
    time = frame["timestamp"]
    integers[:, 5] = time.dt.hour().to_numpy().astype(np.int32) + 1
    integers[:, 6] = time.dt.weekday().to_numpy()
    integers[:, 7] = time.dt.month().to_numpy()
    numeric = np.stack([price, quantity, gap_s.astype(np.float32)], axis=1)
    numeric = np.log1p(np.nan_to_num(numeric, nan=0.0)) / np.array(spec.numeric_scales, dtype=np.float32)
    return EncodedEvents(integers, numeric.astype(np.float32), time.to_physical().to_numpy())


def _gaps(log: EventLog) -> NDArray[np.float64]:
    """Seconds since the consumer's event before, NaN for the first: ``float64[events]``."""
    time = log.frame["timestamp"].to_physical().to_numpy()
    gap = np.full(len(time), np.nan)
    gap[1:] = np.diff(time) / 1e6
    gap[log.offsets[:-1]] = np.nan
    return gap


def _bucket(values: NDArray[Any], edges: tuple[float, ...]) -> NDArray[np.int32]:
    """0 for a missing value, else 1 + the number of edges at or below it."""
    bucket = np.searchsorted(np.array(edges, dtype=np.float64), values, side="right") + 1
    return np.where(np.isnan(values), 0, bucket).astype(np.int32)


def _coded(values: pl.Series, vocabulary: tuple[str, ...], buckets: int) -> NDArray[np.int32]:
    """Vocabulary index, else a hashed bucket behind the vocabulary, else 0."""
    distinct = values.drop_nulls().unique()
    position = {name: i for i, name in enumerate(vocabulary, start=1)}
    codes = [position.get(name) or hashed_bucket(name, len(vocabulary), buckets) for name in distinct]
    coded = values.replace_strict(distinct, pl.Series(codes, dtype=pl.Int32), default=0, return_dtype=pl.Int32)
    return coded.fill_null(0).to_numpy()


def hashed_bucket(name: str, first: int, buckets: int) -> int:
    """Public bucket of a name behind ``first`` known ones, 0 where there are no buckets."""
    if not buckets:
        return 0
    number = int.from_bytes(
        hashlib.blake2b(name.encode(), digest_size=8, person=b"fedcart-bucket").digest(), "little"
    )
    return first + 1 + number % buckets


def _categories(
    column: pl.Series, item: NDArray[np.int32], catalogue: Catalogue | None, spec: FeatureSpec
) -> NDArray[np.int32]:
    """The catalogue's category of a known item, else the event's own category."""
    own = _coded(column, catalogue.categories if catalogue else (), spec.category_buckets)
    if catalogue is None:
        return own
    known = np.where(
        item <= spec.catalogue_items, catalogue.item_category[np.minimum(item, spec.catalogue_items)], 0
    )
    return np.where(known > 0, known, own).astype(np.int32)
