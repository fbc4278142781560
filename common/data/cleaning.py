"""Cleaning with a count and a reason for every line that is dropped and every value that is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

import common.data.reading as reading
from common.data.formats import COLUMNS, EVENT_TYPES, ITEM_EVENTS, Mapping
from common.errors import BadInputError

EARLIEST = datetime(1995, 1, 1)
LATEST = datetime(2100, 1, 1)
WARN_SHARE = 0.01
"""A file that loses more than this share of its lines is reported with a warning."""

MALFORMED = "another number of fields than the header, or a quote that does not end in its line"
_TEXT_TIMES = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_OFFSET_TIMES = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z")
_MICROSECONDS = {"seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1}


@dataclass(frozen=True)
class RuleCount:
    """One rule of cleaning: ``found`` lines meet it, of these ``dropped`` were left out because of it.

    ``action`` is "dropped" or what was changed instead. A line that breaks two dropping rules is found by
    both and dropped by the first.
    """

    rule: str
    reason: str
    action: str
    found: int
    dropped: int = 0


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning did with a file: every line is kept or dropped for a stated reason.

    ``sites_lost`` names the sites that appear in the file but have no usable line.
    """

    source: str
    format: str
    lines: int
    kept: int
    consumers: int
    items: int
    sites: int
    sites_lost: tuple[str, ...]
    first: str
    last: str
    rules: tuple[RuleCount, ...]

    @property
    def dropped(self) -> int:
        """Lines that were left out."""
        return self.lines - self.kept

    @property
    def status(self) -> str:
        """ "ok", or "warn" if more than 1 % of the lines were dropped or an event word was unknown."""
        losses = self.dropped > WARN_SHARE * self.lines
        return "warn" if losses or self.found("unknown-event") else "ok"

    def found(self, rule: str) -> int:
        """Lines that met a rule."""
        return next((count.found for count in self.rules if count.rule == rule), 0)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {**asdict(self), "dropped": self.dropped, "status": self.status}


def read_lines(path: Path, mapping: Mapping, header: list[str]) -> tuple[pl.DataFrame, int]:
    """All well-formed lines of a file as typed columns, unreadable values missing; and how many lines were none.

    Columns: see ``typed_lines``.
    """
    lines = reading.read_lines(path, mapping.names, mapping.separator, columns_read(mapping, header))
    return typed_lines(lines.frame, mapping), lines.malformed


def columns_read(mapping: Mapping, header: Sequence[str]) -> list[str]:
    """The columns of a file or table that a mapping reads, of those that are there."""
    wanted = [*mapping.columns.values(), *([mapping.cancel.column] if mapping.cancel else [])]
    return [name for name in dict.fromkeys(wanted) if name in header]


def typed_lines(frame: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """Lines as they were read, as typed columns; unreadable values are missing. Every line is typed alone.

    Columns: those of the schema (``consumer`` still the original id), ``cancelled`` and, for counting,
    ``bad_price``, ``bad_quantity``, ``unknown_event``.
    """
    columns = {ours: theirs for ours, theirs in mapping.columns.items() if theirs in frame.columns}
    wanted = [pl.col(theirs).alias(ours) for ours, theirs in columns.items()]
    wanted += [pl.lit(None, dtype=pl.String).alias(ours) for ours in COLUMNS[:-1] if ours not in columns]
    if mapping.cancel:
        mark = pl.col(mapping.cancel.column).cast(pl.String).str.starts_with(mapping.cancel.prefix)
        wanted.append(mark.fill_null(value=False).alias("cancelled"))
    else:
        wanted.append(pl.lit(value=False).alias("cancelled"))
    raw = frame.select(wanted)
    return raw.with_columns(
        _text(raw["consumer"]),
        _times(raw["timestamp"], mapping),
        *_event_columns(raw, mapping),
        _text(raw["item"]),
        _text(raw["category"]),
        *_number_columns(raw, "price"),
        *_number_columns(raw, "quantity"),
        *([_text(raw["site"])] if "site" in raw.columns else []),
    )


def clean(
    lines: pl.DataFrame, mapping: Mapping, source: str, malformed: int = 0
) -> tuple[pl.DataFrame, CleaningReport]:
    """Apply every rule, sort by consumer and time, and report. ``malformed``: lines that could not be read as such."""
    usable, count = judge(lines, mapping)
    settled = settle(usable, mapping)
    count = count + Counted(malformed=malformed, repeats=settled.repeats, disorder=settled.disorder)
    return settled.frame, _report(
        settled.frame, (lines, malformed), (source, mapping.name), report_rules(mapping, count)
    )


@dataclass(frozen=True)
class Counted:
    """How many lines each rule found and dropped, of one batch or of many. Adds up."""

    lines: int = 0
    found: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    malformed: int = 0
    repeats: int = 0
    disorder: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True)
class Settled:
    """Kept lines in the columns and order of an event log, the number of repeats left out and of lines out of order."""

    frame: pl.DataFrame
    repeats: int
    disorder: int


def judge(lines: pl.DataFrame, mapping: Mapping) -> tuple[pl.DataFrame, Counted]:
    """The lines that no rule about a single line drops, as they were, and what the rules found.

    Guarantee: each line is judged alone, so a log that is judged in batches gives the same lines and sums.
    """
    rules = _rules(mapping)
    hits = lines.select(rule.found.fill_null(value=False).sum().alias(rule.name) for rule in rules).row(
        0, named=True
    )
    drops = [(rule.name, rule.drops) for rule in rules if rule.drops is not None]
    reason = pl.coalesce(
        *(pl.when(condition).then(pl.lit(i, dtype=pl.Int8)) for i, (_, condition) in enumerate(drops)),
        pl.lit(-1, dtype=pl.Int8),
    )
    reasons = lines.select(reason.alias("reason"))["reason"].to_numpy()
    dropped = np.bincount(reasons + 1, minlength=len(drops) + 1)[1:]
    counts = Counter({name: int(n) for (name, _), n in zip(drops, dropped, strict=True) if n})
    found = Counter({name: int(n) for name, n in hits.items() if n})
    return lines.filter(pl.Series(reasons < 0)), Counted(lines.height, found, counts)


def settle(usable: pl.DataFrame, mapping: Mapping) -> Settled:
    """Sort judged lines by consumer and time, leave out repeats, and make every change of the rules.

    Guarantee: what becomes of a consumer's lines depends on that consumer's lines only.
    """
    order, repeats, disorder = _order(usable)
    return Settled(_repair(usable, mapping)[order], repeats, disorder)


def report_rules(mapping: Mapping, count: Counted) -> tuple[RuleCount, ...]:
    """The counts in the order in which the rules are applied."""
    rules = [
        RuleCount(rule.name, rule.reason, rule.action, count.found[rule.name], count.dropped[rule.name])
        for rule in _rules(mapping)
    ]
    if count.malformed:
        rules.insert(0, RuleCount("malformed", MALFORMED, "dropped", count.malformed, count.malformed))
    rules.append(RuleCount("duplicate", "the same line again", "dropped", count.repeats, count.repeats))
    rules.append(
        RuleCount("out-of-order", "earlier than the line before of its consumer", "sorted", count.disorder)
    )
    return tuple(rules)


def refuse_unusable(report: CleaningReport) -> None:
    """Return if a file has a usable line. Raises: BadInputError with the reasons, for the operator's eyes."""
    if report.kept:
        return
    if not report.lines:
        raise BadInputError(f"{report.source} has a header but no lines", hint="export the events again")
    reasons = ", ".join(f"{r.dropped} {r.rule}" for r in report.rules if r.dropped)
    raise BadInputError(
        f"none of the {report.lines} lines of {report.source} is usable: {reasons}",
        hint="check the format and the units of the time column",
    )


def empty_report(source: str, format_name: str) -> CleaningReport:
    """The report of a file in which nothing is."""
    return CleaningReport(source, format_name, 0, 0, 0, 0, 0, (), "", "", ())


def add_product_categories(frame: pl.DataFrame, mapping: Mapping, path: Path) -> pl.DataFrame:
    """Give items their category from the products file beside ``path``, where the mapping names one.

    Raises: BadInputError if the file is there but cannot be read or lacks its columns.
    """
    spec = mapping.products
    if spec is None:
        return frame
    beside = next((path.parent / name for name in spec.files if (path.parent / name).exists()), None)
    if beside is None:
        return frame
    header = reading.first_line(beside)
    missing = [column for column in (spec.item, spec.category) if column not in header]
    if missing:
        raise BadInputError(
            f"{beside} lacks the columns {', '.join(missing)}", hint="see `products` in docs/data.md"
        )
    with reading.readable(beside):
        products = reading.scan(beside, (), ",").select(
            pl.col(spec.item).cast(pl.String).alias("item"),
            pl.col(spec.category).cast(pl.String).alias("category"),
        )
        known = products.drop_nulls().unique("item", keep="first", maintain_order=True).collect()
    category = frame["item"].replace_strict(known["item"], known["category"], default=None, return_dtype=pl.String)
    return frame.with_columns(category.fill_null(frame["category"]).alias("category"))


class _Rule(NamedTuple):
    name: str
    reason: str
    action: str
    found: pl.Expr
    drops: pl.Expr | None


def _rules(mapping: Mapping) -> list[_Rule]:
    """Dropping rules first, in the order in which a line is charged to them. Conditions on unrepaired lines."""
    price, quantity, time = pl.col("price"), pl.col("quantity"), pl.col("timestamp")
    cancel = pl.col("cancelled") | (pl.col("event") == "cancel")
    no_time, no_item = time.is_null(), pl.col("item").is_null() & pl.col("event").is_in(ITEM_EVENTS)
    outside = (time < EARLIEST) | (time >= LATEST)
    bought = (quantity <= 0) & (pl.col("event") == "purchase") & ~cancel
    removed = "value removed"
    return [
        _Rule("no-consumer", "no consumer id", "dropped", *[pl.col("consumer").is_null()] * 2),
        _Rule("no-time", "time missing or unreadable", "dropped", no_time, no_time),
        _Rule("time-out-of-range", "before 1995 or after 2099", "dropped", outside, outside),
        _Rule("no-item", "an event on an item that names none", "dropped", no_item, no_item),
        _Rule("negative-price", "price below zero", "dropped", price < 0, price < 0),
        _Rule("quantity-not-positive", "zero or below; kept if a cancellation", "dropped", quantity <= 0, bought),
        _Rule("cancellation", "marked as cancelled", "event becomes cancel", pl.col("cancelled"), None),
        _Rule(
            "unknown-event", "event word not in the mapping", "event becomes other", pl.col("unknown_event"), None
        ),
        _Rule("zero-price", "price is zero", removed, price == 0, None),
        _Rule("absurd-price", f"above {mapping.max_price:g}", removed, price > mapping.max_price, None),
        _Rule(
            "absurd-quantity",
            f"beyond {mapping.max_quantity:g}",
            removed,
            quantity.abs() > mapping.max_quantity,
            None,
        ),
        _Rule("bad-price", "price is not a number", removed, pl.col("bad_price"), None),
        _Rule("bad-quantity", "quantity is not a number", removed, pl.col("bad_quantity"), None),
    ]


def _repair(lines: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """The lines with every change of ``_rules`` made, in the columns and types of an event log."""
    price, size = pl.col("price"), pl.col("quantity").abs()
    if mapping.price_is_total:
        price = pl.when(size > 0).then(price / size)
    event = (
        pl.when(pl.col("cancelled")).then(pl.lit("cancel", dtype=pl.Enum(EVENT_TYPES))).otherwise(pl.col("event"))
    )
    columns: list[pl.Expr | str] = [
        "consumer",
        "timestamp",
        event.alias("event"),
        "item",
        "category",
        pl.when((price > 0) & (price <= mapping.max_price)).then(price).cast(pl.Float32).alias("price"),
        pl.when((size > 0) & (size <= mapping.max_quantity)).then(size).cast(pl.Float32).alias("quantity"),
    ]
    if "site" in lines.columns:
        columns.append(pl.col("site").fill_null("(none)"))
    return lines.select(columns)


def _order(lines: pl.DataFrame) -> tuple[NDArray[np.intp], int, int]:
    """Positions of the kept lines by consumer and time, with the number of repeats and of lines out of order."""
    rows = np.arange(lines.height)
    keys = lines.select("consumer", "timestamp")
    order = keys.select(pl.arg_sort_by("consumer", "timestamp", maintain_order=True)).to_series().to_numpy()
    consumer, time = keys["consumer"].to_numpy()[order], keys["timestamp"].to_numpy()[order]
    rows = rows[order]
    same = (consumer[1:] == consumer[:-1]) if len(rows) else np.zeros(0, dtype=np.bool_)
    disorder = int((same & (rows[1:] < rows[:-1])).sum())
    # only lines that share consumer and time can be equal: compare those, not the whole log
    tied = np.zeros(len(rows), dtype=np.bool_)
    equal = same & (time[1:] == time[:-1]) if len(rows) else same
    tied[1:] = equal
    tied[:-1] |= equal
    candidates = np.flatnonzero(tied)
    compared = [name for name in COLUMNS if name in lines.columns] + ["cancelled"]
    first = lines.select(compared)[rows[candidates]].select(pl.struct(pl.all()).is_first_distinct()).to_series()
    keep = np.ones(len(rows), dtype=np.bool_)
    keep[candidates] = first.to_numpy()
    return rows[keep], int((~keep).sum()), disorder


def _report(
    kept: pl.DataFrame, read: tuple[pl.DataFrame, int], names: tuple[str, str], rules: tuple[RuleCount, ...]
) -> CleaningReport:
    lines, malformed = read

    def distinct(name: str) -> int:
        return kept[name].drop_nulls().n_unique() if name in kept.columns else 0

    lost: set[str] = set()
    if "site" in kept.columns:
        lost = set(lines["site"].drop_nulls().unique()) - set(kept["site"].unique())
    return CleaningReport(
        source=names[0],
        format=names[1],
        lines=lines.height + malformed,
        kept=kept.height,
        consumers=distinct("consumer"),
        items=distinct("item"),
        sites=distinct("site"),
        sites_lost=tuple(sorted(lost)),
        first=str(kept["timestamp"].min() or ""),
        last=str(kept["timestamp"].max() or ""),
        rules=rules,
    )


def _text(column: pl.Series) -> pl.Series:
    """Text without surrounding blanks; an empty text is missing."""
    text = column.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def _times(column: pl.Series, mapping: Mapping) -> pl.Series:
    """Times in microseconds, UTC; an unreadable one is missing."""
    if column.dtype.is_temporal():
        if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone:
            column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return column.cast(pl.Datetime("us"))
    if mapping.time != "text":
        number = column.cast(pl.Float64, strict=False) * _MICROSECONDS[mapping.time]
        return number.cast(pl.Int64, strict=False).cast(pl.Datetime("us"))
    text = column.cast(pl.String).str.strip_chars().str.replace(r"\s*(UTC|Z)$", "")
    times = pl.Series(column.name, [None], dtype=pl.Datetime("us")).new_from_index(0, len(column))
    for pattern in mapping.time_formats or _TEXT_TIMES:
        times = times.fill_null(text.str.to_datetime(pattern, time_unit="us", strict=False))
        if not times.null_count():
            return times
    for pattern in () if mapping.time_formats else _OFFSET_TIMES:
        zoned = text.str.to_datetime(pattern, time_unit="us", strict=False, time_zone="UTC")
        times = times.fill_null(zoned.dt.replace_time_zone(None))
    return times


def _event_columns(raw: pl.DataFrame, mapping: Mapping) -> list[pl.Series]:
    """The event as an Enum, and whether its word was unknown."""
    if mapping.default_event:
        event = pl.Series("event", [mapping.default_event], dtype=pl.Enum(EVENT_TYPES)).new_from_index(
            0, raw.height
        )
        return [event, pl.Series("unknown_event", [False]).new_from_index(0, raw.height)]
    words = mapping.events or {name: name for name in EVENT_TYPES}
    text = _text(raw["event"]).str.to_lowercase()
    known = {word.lower(): ours for word, ours in words.items()}
    event = text.replace_strict(known, default=None, return_dtype=pl.Enum(EVENT_TYPES))
    return [event.fill_null("other"), event.is_null().alias("unknown_event")]


def _number_columns(raw: pl.DataFrame, name: str) -> list[pl.Series]:
    """A number column, and where the file held something that is not a finite number."""
    number = raw[name].cast(pl.Float64, strict=False)
    number = number.set(~number.is_finite(), None)
    return [number, (_text(raw[name]).is_not_null() & number.is_null()).alias(f"bad_{name}")]
