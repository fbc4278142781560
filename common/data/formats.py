"""``Mapping``: what the columns, words and units of a foreign file mean; TOML for your own, ``presets`` for public formats.

A mapping only names columns, event words and units. It never computes anything from the data.
"""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import BadInputError

EVENT_TYPES = ("login", "view", "search", "favourite", "cart", "purchase", "cancel", "review", "other")
"""The fixed public list. Its order is part of the encoding: append only."""

ITEM_EVENTS = ("view", "favourite", "cart", "purchase", "cancel", "review")
"""Events that mean nothing without an item (a login or a search has none)."""

COLUMNS = ("consumer", "timestamp", "event", "item", "category", "price", "quantity", "site")
MAX_PRICE = 100_000.0
"""What one piece costs at most, unless a mapping says otherwise."""

TimeUnit = Literal["text", "seconds", "milliseconds", "microseconds", "nanoseconds", "excel", "order"]


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


class JoinedFile(_Strict):
    """A second file with columns that the lines of the first lack: orders beside order lines. All are column names.

    ``key`` is in both files; ``here`` is its name in the first where that differs.
    """

    files: tuple[str, ...]
    key: str
    here: str = ""
    columns: tuple[str, ...]


class Mapping(_Strict):
    """How the columns, event words and units of one file become ours.

    ``columns`` maps our names to theirs. ``names`` lists the columns of a file without header, in order.
    ``default_event`` is the event of every line where the file has no event column. ``item_name`` is the
    column with the public name of the line's item; it goes into a catalogue, never into an event.
    ``separator`` "" is read off the header, " " means aligned columns; ``encoding`` "" is UTF-8 or what the file declares.
    ``time_zone`` is the shop's: times without a zone are on its clock, all others are moved to it. ``time_of_day`` is a
    column with the clock where ``timestamp`` is the date. ``fill_by``: lines with the same value there share what only the
    first of them names (consumer, timestamp, event, site).
    """

    name: str
    columns: dict[str, str]
    names: tuple[str, ...] = ()
    separator: str = Field("", max_length=1)
    encoding: str = ""
    events: dict[str, str] = Field(default_factory=dict)
    default_event: str = ""
    time: TimeUnit = "text"
    time_formats: tuple[str, ...] = ()
    time_of_day: str = ""
    time_zone: str = "UTC"
    decimal: Literal[".", ","] = "."
    nulls: tuple[str, ...] | None = None
    fill_by: str = ""
    cancel: CancelRule | None = None
    price_is_total: bool = False
    products: ProductsFile | None = None
    orders: JoinedFile | None = None
    item_name: str = ""
    max_price: float = Field(MAX_PRICE, gt=0)
    max_quantity: float = Field(10_000.0, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> Mapping:
        from common.data.values.times import known_zone

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
        if self.encoding and not known_encoding(self.encoding):
            raise ValueError(
                f"encoding {self.encoding!r} is unknown; for example utf-8, cp1252, gb18030, shift_jis"
            )
        if not known_zone(self.time_zone):
            raise ValueError(f"time_zone {self.time_zone!r} is unknown; for example Europe/Berlin")
        return self

    @property
    def source_columns(self) -> tuple[str, ...]:
        """The columns the file must have, in the order of our schema."""
        extra = (self.cancel.column if self.cancel else "", self.time_of_day, self.fill_by)
        joined = self.orders.columns if self.orders else ()
        wanted = [self.columns[name] for name in COLUMNS if name in self.columns]
        key = (self.orders.here or self.orders.key,) if self.orders else ()
        return tuple(n for n in dict.fromkeys([*wanted, *extra, *key]) if n and n not in joined)

    @property
    def has_items(self) -> bool:
        """Whether the file says what its events are about."""
        return "item" in self.columns

    @property
    def constant_features(self) -> tuple[str, ...]:
        """Features of an event that are the same in every line of such a file, by what the mapping says of it."""
        categories = "category" in self.columns or self.products is not None
        told = {
            "event": "event" in self.columns or self.cancel is not None,
            "category": categories,
            "price": "price" in self.columns or self.orders is not None,
        }
        return tuple(name for name, varies in told.items() if not varies)

    def with_site_column(self, column: str) -> Mapping:
        """The same mapping with the site read from another column of the file."""
        return self.model_copy(update={"columns": {**self.columns, "site": column}})

    def fitted(self, header: Sequence[str]) -> Mapping:
        """The same mapping with the names as the file spells them: case and blanks around a name do not matter."""
        spelled: dict[str, str] = {}
        for name in reversed(header):
            spelled[name.strip().casefold()] = name

        def real(name: str) -> str:
            return name if not name or name in header else spelled.get(name.strip().casefold(), name)

        return self.model_copy(
            update={
                "columns": {ours: real(theirs) for ours, theirs in self.columns.items()},
                "cancel": self.cancel and self.cancel.model_copy(update={"column": real(self.cancel.column)}),
                "time_of_day": real(self.time_of_day),
                "fill_by": real(self.fill_by),
                "item_name": real(self.item_name),
            }
        )

    def to_toml(self) -> str:
        """The mapping as a file that ``load_mapping`` reads, without what is as usual."""
        usual = {name: entry.default for name, entry in type(self).model_fields.items()}
        tree: dict[str, Any] = self.model_dump(mode="json", exclude_none=True, exclude={"name"})
        kept = {name: value for name, value in tree.items() if value not in (usual[name], [], {}, "")}
        return tomli_w.dumps(dict(sorted(kept.items(), key=lambda pair: isinstance(pair[1], dict))))


def known_encoding(name: str) -> bool:
    """Whether Python can read it as text."""
    try:
        return codecs.lookup(name)._is_text_encoding
    except LookupError:
        return False


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


def missing_columns(mapping: Mapping, header: Sequence[str], optional: Sequence[str] = ()) -> list[str]:
    """Required columns of the mapping that the file lacks, in the order of the schema. ``optional``: our names."""
    have = set(header)
    free = {mapping.columns[name] for name in optional if name in mapping.columns}
    return [column for column in mapping.source_columns if column not in have and column not in free]


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
