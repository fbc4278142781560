"""``Catalogue``: the public list of items, their categories and which site stocks them.

A catalogue is public by declaration: a merchant's price list, for example. One that is built from an
event log reveals which items the consumers touched; it is an uncharged release and says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import common.data.reading as reading
from common.atomic import write_atomic
from common.data.events import EventLog
from common.errors import BadInputError

FORMAT = "fedcart-catalogue/1"
FROM_LOG = "event log (uncharged release)"
DECLARED = "declared by the operator"
WARNING = (
    "built from an event log: it shows which items consumers touched, and no privacy budget was charged for it; "
    "in a deployment declare a catalogue that does not depend on consumers"
)


@dataclass(frozen=True)
class Catalogue:
    """Public items and categories; index 0 is padding and unknown.

    Shapes: item i of ``items`` has index i + 1; ``item_category: int32[items + 1]`` holds the category index
    of each item index (0: none); ``stock[site]: bool[items + 1]``, entry 0 always False. ``names`` is empty
    or has the public name of each item, "" where it has none.
    """

    items: tuple[str, ...]
    categories: tuple[str, ...]
    item_category: NDArray[np.int32]
    source: str
    stock: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = len(self.items) + 1
        if len(set(self.items)) != len(self.items):
            raise BadInputError("the catalogue names an item twice", hint="list each item once")
        if self.names and len(self.names) != len(self.items):
            raise BadInputError(f"the catalogue has {len(self.names)} names for {len(self.items)} items")
        if self.item_category.shape != (rows,):
            raise BadInputError(f"item_category has shape {self.item_category.shape}, expected ({rows},)")
        if self.item_category.size and not 0 <= self.item_category.min() <= self.item_category.max() <= len(
            self.categories
        ):
            raise BadInputError(f"the catalogue refers to a category outside of its {len(self.categories)}")
        wrong = [site for site, mask in self.stock.items() if mask.shape != (rows,)]
        if wrong:
            raise BadInputError(f"stock of site {wrong[0]!r} does not have {rows} entries")

    def __repr__(self) -> str:
        return (
            f"Catalogue({len(self.items)} items, {len(self.categories)} categories, "
            f"{len(self.stock)} sites, {self.source})"
        )

    @property
    def warning(self) -> str:
        """What a reader must be told about this catalogue; empty for a declared one."""
        return WARNING if self.source == FROM_LOG else ""

    def mask(self, site: str) -> NDArray[np.bool_]:
        """Items a site stocks: ``bool[items + 1]``; all of them for a site without a declared stock."""
        everything = np.ones(len(self.items) + 1, dtype=np.bool_)
        everything[0] = False
        return self.stock.get(site, everything)

    def stockists(self) -> NDArray[np.int64]:
        """How many of the sites with declared stock have each item: ``int64[items + 1]``."""
        total = np.zeros(len(self.items) + 1, dtype=np.int64)
        for mask in self.stock.values():
            total += mask
        return total

    def item_index(self, items: pl.Series) -> NDArray[np.int32]:
        """Index of each item, 0 for unknown or missing: ``int32[n]``."""
        return lookup(items, self.items)

    def category_index(self, categories: pl.Series) -> NDArray[np.int32]:
        """Index of each category, 0 for unknown or missing: ``int32[n]``."""
        return lookup(categories, self.categories)

    def digest(self) -> bytes:
        """SHA-256 of items, names and categories in order, and of who stocks what: ``bytes[32]``; not of the source."""
        stock = {site: np.flatnonzero(mask).tolist() for site, mask in sorted(self.stock.items())}
        content = [list(self.items), list(self.categories), self.item_category.tolist(), stock]
        if self.names:
            content.append(list(self.names))
        return hashlib.sha256(b"fedcart/catalogue/1\0" + json.dumps(content, allow_nan=False).encode()).digest()

    def to_json(self) -> dict[str, Any]:
        """Plain values of the whole catalogue, warning included."""
        return {
            "format": FORMAT,
            "source": self.source,
            **({"warning": self.warning} if self.warning else {}),
            "items": list(self.items),
            **({"names": list(self.names)} if self.names else {}),
            "categories": list(self.categories),
            "item_category": self.item_category.tolist(),
            "stock": {site: np.flatnonzero(mask).tolist() for site, mask in self.stock.items()},
        }


def lookup(values: pl.Series, vocabulary: tuple[str, ...]) -> NDArray[np.int32]:
    """Position of each value in a vocabulary plus 1, or 0: ``int32[n]``."""
    if not vocabulary:
        return np.zeros(len(values), dtype=np.int32)
    known = pl.Series(list(vocabulary), dtype=pl.String)
    positions = pl.Series(np.arange(1, len(known) + 1, dtype=np.int32))
    indices = values.cast(pl.String).replace_strict(known, positions, default=0, return_dtype=pl.Int32)
    return indices.fill_null(0).to_numpy().astype(np.int32, copy=False)


def catalogue_from_events(
    log: EventLog, *, max_items: int = 0, with_stock: bool = True, names: Mapping[str, str] | None = None
) -> Catalogue:
    """The most frequent items of a log (all if ``max_items`` is 0), labelled as an uncharged release.

    An item's category is the one it has most often; ``with_stock`` records which items each site sold;
    ``names`` gives items their public names.
    """
    counted = log.frame.drop_nulls("item").group_by("item").len().sort("len", "item", descending=[True, False])
    items = tuple(counted["item"].head(max_items) if max_items else counted["item"])
    pairs = log.frame.drop_nulls(["item", "category"]).group_by("item", "category").len()
    best = pairs.sort("len", "category", descending=[True, False]).unique(
        "item", keep="first", maintain_order=True
    )
    category_of = dict(zip(best["item"], best["category"], strict=True))
    categories = tuple(sorted({category_of[item] for item in items if item in category_of}))
    position = {name: i + 1 for i, name in enumerate(categories)}
    item_category = np.array([0, *(position.get(category_of.get(item, ""), 0) for item in items)], dtype=np.int32)
    stock = _stock_of(log, items) if with_stock and "site" in log.frame.columns else {}
    return Catalogue(items, categories, item_category, FROM_LOG, stock, _named(items, names or {}))


def _named(items: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    labels = tuple(names.get(item, "") for item in items)
    return labels if any(labels) else ()


def _stock_of(log: EventLog, items: tuple[str, ...]) -> dict[str, NDArray[np.bool_]]:
    pairs = log.frame.select("site", "item").drop_nulls().unique()
    stock = {}
    for (site,), rows in pairs.partition_by("site", as_dict=True).items():
        mask = np.zeros(len(items) + 1, dtype=np.bool_)
        mask[lookup(rows["item"], items)] = True
        mask[0] = False
        stock[str(site)] = mask
    return dict(sorted(stock.items()))


def write_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write the catalogue as JSON, atomically. Raises: WorkFailedError if the file cannot be written."""
    text = json.dumps(catalogue.to_json(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    write_atomic(path, text.encode() + b"\n")


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue: our JSON, or a table (CSV, CSV.GZ, Parquet) with columns item, category, name, site.

    In a table all but ``item`` are optional; a line per site and item declares the stock.
    Raises: BadInputError if the file cannot be read or contradicts itself.
    """
    with reading.readable(path):
        with path.open("rb") as file:
            is_json = file.read(1) == b"{"
        return _from_json(path) if is_json else _from_table(path)


def _from_json(path: Path) -> Catalogue:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree.get("format") != FORMAT:
            raise BadInputError(f"{path} has format {tree.get('format')!r}, this program reads {FORMAT!r}")
        items = tuple(str(item) for item in tree["items"])
        stock = {}
        for site, indices in tree["stock"].items():
            stock[site] = np.zeros(len(items) + 1, dtype=np.bool_)
            stock[site][np.array(indices, dtype=np.int64)] = True
            stock[site][0] = False
        categories = tuple(str(name) for name in tree["categories"])
        item_category = np.array(tree["item_category"], dtype=np.int32)
        names = tuple(str(name) for name in tree.get("names", ()))
        return Catalogue(items, categories, item_category, str(tree["source"]), stock, names)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInputError(
            f"{path} is not a catalogue: {type(error).__name__} {error}",
            hint="make one with `fedcart data catalogue FILE`, or give a table with a column `item`",
        ) from None


def _from_table(path: Path) -> Catalogue:
    header = reading.first_line(path)
    if "item" not in header:
        raise BadInputError(
            f"{path} lacks the column item", hint="a catalogue table has item, category, name, site"
        )
    columns = [name for name in ("item", "category", "name", "site") if name in header]
    table = reading.scan(path, columns).select(pl.col(columns).cast(pl.String).str.strip_chars())
    table = table.filter(pl.col("item").is_not_null() & (pl.col("item") != ""))
    if not table.height:
        raise BadInputError(f"{path} names no item", hint="give one line per item")
    table = table.with_columns(
        pl.lit(None, dtype=pl.String).alias(n) for n in ("category", "name", "site") if n not in columns
    )
    first = table.unique("item", keep="first", maintain_order=True)
    categories = tuple(first["category"].drop_nulls().unique().sort())
    items = tuple(first["item"])
    item_category = np.concatenate([[0], lookup(first["category"], categories)]).astype(np.int32)
    stock = _stock_of(EventLog(table), items) if table["site"].null_count() < table.height else {}
    names = _named(items, dict(zip(items, first["name"].fill_null(""), strict=True)))
    return Catalogue(items, categories, item_category, DECLARED, stock, names)
