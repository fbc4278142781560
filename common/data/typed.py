"""From columns as they were read to typed columns: every value by the rules of ``values``, every line alone."""

from __future__ import annotations

import polars as pl

import common.data.values.words as words
from common.data.formats import COLUMNS, EVENT_TYPES, Mapping
from common.data.reading.text import LINE
from common.data.values.numbers import numbers
from common.data.values.times import times

RAW = {"timestamp": "raw_time", "event": "raw_event", "price": "raw_price", "quantity": "raw_quantity"}
FLAGS = (
    "bad_price", "bad_quantity", "unknown_event", "null_word", "rounded_id", "rounded_item", "float_id", "unreadable",
    "unreadable_category", "notation",
)  # fmt: skip
"""Columns for counting; ``cancelled`` stays with its line until the event is repaired."""

COUNTED_ONLY = (*FLAGS, *RAW.values())
_IDS = ("consumer", "item", "category", "site")


def typed_lines(frame: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """Lines as they were read, as typed columns; unreadable values are missing. Every line is typed alone.

    Columns: those of the schema (``consumer`` still the original id), ``cancelled``, for counting those of ``FLAGS``, for
    examples those of ``RAW``, and ``line`` where the source has lines.
    """
    raw = _ours(frame, mapping)
    ids, flags = _id_columns(raw, mapping)
    moments = times(
        _moments(frame, raw, mapping), unit=mapping.time, formats=mapping.time_formats, zone=mapping.time_zone
    )
    price, price_notation = numbers(raw["price"], mapping.decimal)
    quantity, quantity_notation = numbers(raw["quantity"], mapping.decimal)
    event, unknown = _events(raw, mapping)
    bad = {name: _bad(raw[name], number) for name, number in (("price", price), ("quantity", quantity))}
    unreadable = flags["unreadable"]
    if raw["event"].dtype == pl.String:
        unreadable = unreadable | words.unreadable(raw["event"])
    columns = [
        *ids.values(),
        moments.alias("timestamp"),
        event.alias("event"),
        price.alias("price"),
        quantity.alias("quantity"),
        _cancelled(frame, mapping),
        unknown.alias("unknown_event"),
        *(bad[name][0].alias(f"bad_{name}") for name in bad),
        (flags["null_word"] | bad["price"][1] | bad["quantity"][1]).alias("null_word"),
        *(flags[name].alias(name) for name in ("rounded_id", "rounded_item", "float_id", "unreadable_category")),
        unreadable.alias("unreadable"),
        (price_notation | quantity_notation).alias("notation"),
        *(
            raw[ours].cast(pl.String, strict=False).alias(name)
            for ours, name in RAW.items()
            if ours in raw.columns
        ),
    ]
    if LINE in frame.columns:
        columns.append(frame[LINE])
    return pl.DataFrame(columns)


def _ours(frame: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    columns = {ours: theirs for ours, theirs in mapping.columns.items() if theirs in frame.columns}
    wanted = [pl.col(theirs).alias(ours) for ours, theirs in columns.items()]
    wanted += [pl.lit(None, dtype=pl.String).alias(ours) for ours in COLUMNS[:-1] if ours not in columns]
    return frame.select(wanted) if frame.height else frame.select(wanted).clear()


def _moments(frame: pl.DataFrame, raw: pl.DataFrame, mapping: Mapping) -> pl.Series:
    """The time as it was read; put together where the clock has a column of its own."""
    if not mapping.time_of_day or mapping.time_of_day not in frame.columns:
        return raw["timestamp"]
    day = raw["timestamp"].cast(pl.String).str.strip_chars().str.replace(r"[ T]00:00(:00(\.0+)?)?$", "")
    clock = frame[mapping.time_of_day].cast(pl.String).str.strip_chars()
    return day + pl.Series([" "]) + clock


def _cancelled(frame: pl.DataFrame, mapping: Mapping) -> pl.Series:
    if mapping.cancel is None or mapping.cancel.column not in frame.columns:
        return pl.Series("cancelled", [False]).new_from_index(0, frame.height)
    mark = frame[mapping.cancel.column].cast(pl.String).str.starts_with(mapping.cancel.prefix)
    return mark.fill_null(value=False).alias("cancelled")


def _id_columns(raw: pl.DataFrame, mapping: Mapping) -> tuple[dict[str, pl.Series], dict[str, pl.Series]]:
    no = pl.Series([False]).new_from_index(0, raw.height)
    flags = dict.fromkeys(
        ("null_word", "rounded_id", "rounded_item", "float_id", "unreadable", "unreadable_category"), no
    )
    listed = words.NULL_WORDS if mapping.nulls is None else mapping.nulls
    ids = {}
    for name in _IDS:
        if name not in raw.columns:
            continue
        text = words.plain_text(raw[name])
        nothing = words.null_words(text, listed)
        text = text.set(nothing, None)
        broken = words.unreadable(text)
        flags["null_word"] = flags["null_word"] | nothing
        if name in ("consumer", "item"):
            flag = "rounded_id" if name == "consumer" else "rounded_item"
            flags[flag] = words.rounded_ids(raw[name], text)
        flags["float_id"] = flags["float_id"] | words.float_tails(text)
        if name == "category":
            flags["unreadable_category"] = broken
            text = text.set(broken, None)
        else:
            flags["unreadable"] = flags["unreadable"] | broken
        ids[name] = words.without_float_tail(text).alias(name)
    return ids, flags


def _events(raw: pl.DataFrame, mapping: Mapping) -> tuple[pl.Series, pl.Series]:
    """The event as an Enum, and whether its word was unknown."""
    kind = pl.Enum(EVENT_TYPES)
    if mapping.default_event:
        event = pl.Series("event", [mapping.default_event], dtype=kind).new_from_index(0, raw.height)
        return event, pl.Series([False]).new_from_index(0, raw.height)
    text = words.plain_text(raw["event"])
    distinct = text.drop_nulls().unique()
    known = {word.strip().lower(): ours for word, ours in mapping.events.items()}
    if mapping.events:
        types = [known.get(word.lower()) for word in distinct]
    else:
        types = [words.event_type(word) or None for word in distinct]
    event = text.replace_strict(distinct, pl.Series(types, dtype=kind), default=None, return_dtype=kind)
    return event.fill_null("other"), event.is_null()


def _bad(raw: pl.Series, number: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Where a cell holds something that is no number; and where it holds a word for "nothing"."""
    if raw.dtype.is_numeric() or raw.dtype == pl.Decimal:
        unread = raw.is_not_null() & number.is_null()
        nothing = raw.is_nan().fill_null(value=False) if raw.dtype.is_float() else unread & ~unread
        return unread & ~nothing, nothing
    text = words.plain_text(raw)
    unread = text.is_not_null() & number.is_null()
    nothing = words.null_words(text) & unread
    return unread & ~nothing, nothing
