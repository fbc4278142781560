"""Mappings from a foreign file to our event schema: presets for public formats, TOML for your own.

A mapping only names columns, event words and units. It never computes anything from the data.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import BadInputError

EVENT_TYPES = ("login", "view", "search", "favourite", "cart", "purchase", "cancel", "review", "other")
"""The fixed public list. Its order is part of the encoding: append only."""

ITEM_EVENTS = ("view", "favourite", "cart", "purchase", "cancel", "review")
"""Events that mean nothing without an item (a login or a search has none)."""

COLUMNS = ("consumer", "timestamp", "event", "item", "category", "price", "quantity", "site")
TimeUnit = Literal["text", "seconds", "milliseconds", "microseconds"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CancelRule(_Strict):
    """Lines whose ``column`` starts with ``prefix`` are cancellations (quantity may be negative there)."""

    column: str
    prefix: str


class ProductsFile(_Strict):
    """A second file that gives an item its category, and perhaps its ``name``; all are column names."""

    files: tuple[str, ...]
    item: str
    category: str
    name: str = ""


class Mapping(_Strict):
    """How the columns, event words and units of one file become ours.

    ``columns`` maps our names to theirs. ``names`` lists the columns of a file without header, in order.
    ``default_event`` is the event of every line where the file has no event column. ``item_name`` is the
    column with the public name of the line's item; it goes into a catalogue, never into an event.
    """

    name: str
    columns: dict[str, str]
    names: tuple[str, ...] = ()
    separator: str = Field(",", min_length=1, max_length=1)
    events: dict[str, str] = Field(default_factory=dict)
    default_event: str = ""
    time: TimeUnit = "text"
    time_formats: tuple[str, ...] = ()
    cancel: CancelRule | None = None
    price_is_total: bool = False
    products: ProductsFile | None = None
    item_name: str = ""
    max_price: float = Field(100_000.0, gt=0)
    max_quantity: float = Field(10_000.0, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> Mapping:
        unknown = sorted(set(self.columns) - set(COLUMNS))
        if unknown:
            raise ValueError(f"columns has unknown names {unknown}, known: {list(COLUMNS)}")
        missing = [name for name in ("consumer", "timestamp") if name not in self.columns]
        if missing:
            raise ValueError(f"columns must map {missing}")
        if ("event" in self.columns) == bool(self.default_event):
            raise ValueError("give either columns.event or default_event")
        words = {*self.events.values(), *([self.default_event] if self.default_event else [])}
        if words - set(EVENT_TYPES):
            raise ValueError(f"unknown event types {sorted(words - set(EVENT_TYPES))}, known: {list(EVENT_TYPES)}")
        return self

    @property
    def source_columns(self) -> tuple[str, ...]:
        """The columns the file must have, in the order of our schema."""
        extra = (self.cancel.column,) if self.cancel else ()
        wanted = [self.columns[name] for name in COLUMNS if name in self.columns]
        return tuple(dict.fromkeys([*wanted, *extra]))

    def with_site_column(self, column: str) -> Mapping:
        """The same mapping with the site read from another column of the file."""
        return self.model_copy(update={"columns": {**self.columns, "site": column}})


_SAME = {name: name for name in COLUMNS}

PRESETS: dict[str, tuple[Mapping, ...]] = {
    "fedcart": (Mapping(name="fedcart", columns=_SAME),),
    "online-retail": (
        Mapping(
            name="online-retail",
            columns={
                "consumer": "CustomerID",
                "timestamp": "InvoiceDate",
                "item": "StockCode",
                "price": "UnitPrice",
                "quantity": "Quantity",
                "site": "Country",
            },
            default_event="purchase",
            time_formats=("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M", "%Y-%m-%d %H:%M"),
            cancel=CancelRule(column="InvoiceNo", prefix="C"),
            item_name="Description",
        ),
    ),
    "complete-journey": (
        Mapping(
            name="complete-journey",
            columns={
                "consumer": "household_id",
                "timestamp": "transaction_timestamp",
                "item": "product_id",
                "price": "sales_value",
                "quantity": "quantity",
                "site": "store_id",
            },
            default_event="purchase",
            price_is_total=True,
            products=ProductsFile(
                files=("products.csv.gz", "products.csv", "products.parquet"),
                item="product_id",
                category="product_category",
                name="product_type",
            ),
        ),
    ),
    "retailrocket": (
        Mapping(
            name="retailrocket",
            columns={"consumer": "visitorid", "timestamp": "timestamp", "event": "event", "item": "itemid"},
            events={"view": "view", "addtocart": "cart", "transaction": "purchase"},
            time="milliseconds",
        ),
    ),
    "taobao": (
        Mapping(
            name="taobao",
            columns={
                "consumer": "user",
                "timestamp": "time",
                "event": "behaviour",
                "item": "item",
                "category": "category",
            },
            names=("user", "item", "category", "behaviour", "time"),
            events={"pv": "view", "cart": "cart", "fav": "favourite", "buy": "purchase"},
            time="seconds",
        ),
    ),
    "yoochoose": (
        Mapping(
            name="yoochoose",
            columns={"consumer": "session", "timestamp": "time", "item": "item", "category": "category"},
            names=("session", "time", "item", "category"),
            default_event="view",
        ),
        Mapping(
            name="yoochoose",
            columns={
                "consumer": "session",
                "timestamp": "time",
                "item": "item",
                "price": "price",
                "quantity": "quantity",
            },
            names=("session", "time", "item", "price", "quantity"),
            default_event="purchase",
        ),
    ),
    "rees46": (
        Mapping(
            name="rees46",
            columns={
                "consumer": "user_id",
                "timestamp": "event_time",
                "event": "event_type",
                "item": "product_id",
                "category": "category_id",
                "price": "price",
            },
            events={"view": "view", "cart": "cart", "purchase": "purchase", "remove_from_cart": "other"},
        ),
    ),
}

OPTIONAL_COLUMNS = {"fedcart": ("item", "category", "price", "quantity", "site")}
"""Columns a preset reads where the file has them, and does without where not."""


def preset(name: str) -> tuple[Mapping, ...]:
    """The mappings of a preset; more than one where a format has several kinds of file.

    Raises: BadInputError for an unknown name, with the nearest known one.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), PRESETS, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise BadInputError(
        f"unknown format {name!r}, known: {', '.join(PRESETS)}",
        hint=f"{guess}for another file write a mapping, see docs/data.md",
    )


def load_mapping(path: Path) -> Mapping:
    """Read a mapping from TOML. Raises: BadInputError for a missing, malformed or contradictory file."""
    hint = "see docs/data.md for an example of a mapping"
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        return Mapping.model_validate({"name": path.stem, **tree})
    except FileNotFoundError:
        raise BadInputError(f"no such mapping file: {path}", hint="check the path") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInputError(f"{path} is not a readable TOML file: {error}", hint=hint) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "mapping"
        message = first["msg"].removeprefix("Value error, ")
        raise BadInputError(f"{path}: {where}: {message[:1].lower()}{message[1:]}", hint=hint) from None


def missing_columns(mapping: Mapping, header: Sequence[str]) -> list[str]:
    """Required columns of the mapping that the file lacks, in the order of the schema."""
    have = set(header)
    optional = {
        mapping.columns[name] for name in OPTIONAL_COLUMNS.get(mapping.name, ()) if name in mapping.columns
    }
    return [column for column in mapping.source_columns if column not in have and column not in optional]


def guess_format(first_line: Sequence[str]) -> str:
    """The preset that the first line of a file fits, or "" if none does."""
    for name, mappings in PRESETS.items():
        for mapping in mappings:
            if not mapping.names and not missing_columns(mapping, first_line):
                return name
    if len(first_line) == 5 and first_line[3] in ("pv", "buy", "cart", "fav"):
        return "taobao"
    if (
        len(first_line) in (4, 5)
        and first_line[0].isdigit()
        and first_line[1][:4].isdigit()
        and "T" in first_line[1]
    ):
        return "yoochoose"
    return ""


def resolve_site_column(wanted: str, mapping: Mapping, header: Sequence[str]) -> str:
    """The file's column that a user means by ``--split-by``: exact, without case, or without ``_id``.

    Raises: BadInputError naming the columns of the file.
    """
    if wanted == "site" and "site" in mapping.columns:
        return mapping.columns["site"]
    folded = {column.lower(): column for column in reversed(header)}
    for name in (wanted.lower(), f"{wanted.lower()}_id"):
        if name in folded:
            return folded[name]
    raise BadInputError(
        f"no column {wanted!r} to split by, the file has: {', '.join(header)}",
        hint="--split-by takes a column of the file, or 'consumers' or 'items' with --sites N",
    )
