"""``recognise``: from a source to the mapping that reads it, with words on what was taken for what."""

from __future__ import annotations

from collections.abc import Mapping as Map, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

import common.data.reading.files as files
import common.data.recognising.names as names
from common.data.formats import COLUMNS, JoinedFile, Mapping
from common.data.presets import PRESETS, guess_format, preset
from common.data.reading.source import found_in
from common.data.reading.tables import Table
from common.data.recognising.looking import look, named_encoding, sample_of, stored
from common.data.recognising.moments import ENOUGH, TimeForm, time_form
from common.data.values.words import event_type, plain_text
from common.errors import BadInputError

AUTO = "auto"
_SETTINGS = ("separator", "encoding", "decimal", "time", "time_zone", "time_formats", "time_of_day", "default_event", "fill_by",
             "price_is_total", "max_price", "max_quantity", "item_name")  # fmt: skip


@dataclass(frozen=True)
class Recognised:
    """A mapping and, line by line, what the source was taken for."""

    mapping: Mapping
    notes: tuple[str, ...]


def said_of(pairs: Sequence[str]) -> dict[str, str]:
    """``consumer=user_id`` and the like, by our name. Raises: BadInputError for one without an equals sign."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise BadInputError(f"--map {wrong[0]!r} has no equals sign", hint="--map consumer=user_id")
    return {name.strip(): value.strip() for name, value in (pair.split("=", 1) for pair in pairs)}


def recognise(path: Path | str, said: Map[str, str] | None = None) -> Recognised:
    """What a source is. ``said``: what the user knows, our column or a setting of a mapping by name.

    Raises: BadInputError that says what was found, if it cannot be told.
    """
    said = dict(said or {})
    looked = [look(member, said) for member in files.members(path)]
    if not said and (found := _known_format(looked)):
        return found
    candidates = [(table, _roles(table, said)) for table in _alike(looked)]
    complete = [pair for pair in candidates if {"consumer", "timestamp"} <= set(pair[1])]
    best = max(complete or candidates, key=lambda pair: len(pair[1]))
    if not complete or "item" not in best[1]:
        joined = _two_tables(looked, said)
        if joined:
            return joined
    return _of_table(best[0], best[1], said)


def _known_format(looked: Sequence[Table]) -> Recognised | None:
    """A public format whose columns are there to the letter, whose times can be read as it says."""
    for table in looked:
        first = table.header if table.has_header else sample_of(table).row(0)
        name = guess_format([str(value) for value in first[: len(table.header)]])
        if not name or (name == "fedcart" and not _all_ours(table)):
            continue
        mappings = [m for m in preset(name) if not m.names or len(m.names) == len(table.header)]
        mapping = mappings[0].model_copy(update={"encoding": named_encoding(table), "separator": table.separator})
        if mapping.names:
            return Recognised(mapping, (f"format {name}", stored(table)))
        mapping = mapping.fitted(table.header)
        there = {o: t for o, t in mapping.columns.items() if t in table.header}
        sample = sample_of(table)
        form = _form(sample, there["timestamp"], "", mapping.time_zone)
        if not sample.height or form.share < ENOUGH or mapping.time != "text":
            form = TimeForm(mapping.time, mapping.time_formats, "", 1.0)
        elif mapping.time_formats and not form.formats:
            form = TimeForm("text", (), form.words, 1.0)
        mapping = mapping.model_copy(
            update={
                "columns": there,
                "time": form.unit,
                "time_formats": form.formats,
                "decimal": _decimal(sample, there),
            }
        )
        return Recognised(mapping, tuple(filter(None, (f"format {name}", stored(table), form.words))))
    return None


def _all_ours(table: Table) -> bool:
    ours = {"consumer", "timestamp", "event"} <= set(table.header) and table.kind != "json"
    return ours and set(_roles(table, {}).values()) <= set(COLUMNS)


def _alike(looked: Sequence[Table]) -> list[Table]:
    """One table of each kind of header."""
    kinds: dict[tuple[str, ...], Table] = {table.header: table for table in reversed(looked)}
    return list(kinds.values())


def _roles(table: Table, said: Map[str, str]) -> dict[str, str]:
    """Our columns by name, what was said first. Raises: BadInputError for a column that is not there."""
    spelled = {name.casefold(): name for name in table.header}
    roles: dict[str, str] = {}
    for ours in COLUMNS:
        if said.get(ours):
            wanted = said[ours]
            if wanted.casefold() not in spelled:
                raise BadInputError(
                    f"{table.member.path} has no column {wanted!r} for {ours}; {found_in(table)}",
                    hint="--map consumer=COLUMN",
                )
            roles[ours] = spelled[wanted.casefold()]
    if not table.has_header and "consumer" not in roles:
        return roles | _by_position(table)
    for ours in COLUMNS:
        if (
            ours not in roles
            and ours not in said
            and (column := names.best(names.NAMES[ours], table.header, roles))
        ):
            roles[ours] = column
    return roles


def _by_position(table: Table) -> dict[str, str]:
    """The columns of a file without header, where they stand as in our schema."""
    sample = sample_of(table)
    if len(table.header) < 3:
        return {}
    try:
        timed = time_form(sample[table.header[1]]).share > 0.9
    except BadInputError:
        timed = True
    words = sample[table.header[2]].drop_nulls().unique()
    events = len(words) and sum(bool(event_type(word)) for word in words.cast(pl.String)) / len(words) > 0.5
    if not (timed and events):
        return {}
    return dict(zip(COLUMNS, table.header, strict=False))


def _of_table(table: Table, roles: dict[str, str], said: Map[str, str]) -> Recognised:
    sample = sample_of(table)
    fields: dict[str, Any] = {"encoding": named_encoding(table), "separator": table.separator}
    notes = [stored(table)]
    if not table.has_header:
        fields["names"] = table.header
        notes.append("no header: the columns are taken in the order of the schema")
    if "timestamp" not in roles and (order := names.best(names.ORDERS, table.header, roles)):
        roles["timestamp"], fields["time"] = order, "order"
        notes.append(
            f"no clock: the order number {order!r} stands for it; pauses, calendar and sales mean nothing"
        )
    missing = [name for name in ("consumer", "timestamp") if name not in roles]
    if missing:
        raise _unknown(table, missing)
    if "time" not in fields:
        fields |= _time_fields(table, roles, sample, said, notes)
    if "event" not in roles and "default_event" not in said:
        fields["default_event"] = "purchase" if {"price", "quantity"} & set(roles) else "view"
        notes.append(f"no column names the event: every line is taken for a {fields['default_event']}")
    if "event" in roles:
        notes += _event_notes(sample[roles["event"]])
    fields["decimal"] = _decimal(sample, roles)
    if label := names.best(names.NAMES_OF_ITEMS, table.header, roles):
        fields["item_name"] = label if "item" in roles else ""
    if "price" in roles and names.folded(roles["price"]) == "amount" and not said.get("price"):
        notes.append(
            f"{roles['price']!r} is taken for the price of one piece; --map price_is_total=true if it is a total"
        )
    fields |= _said_settings(said)
    if fields.get("default_event"):
        roles.pop("event", None)
    taken = ", ".join(f"{ours} = {theirs!r}" for ours, theirs in roles.items())
    mapping = _checked({"name": "recognised", "columns": roles, **fields})
    return Recognised(mapping, (*notes, f"columns: {taken}"))


def _checked(tree: dict[str, Any]) -> Mapping:
    from pydantic import ValidationError

    try:
        return Mapping.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadInputError(
            first["msg"].removeprefix("Value error, "), hint="--map takes our columns and settings"
        ) from None


def _said_settings(said: Map[str, str]) -> dict[str, Any]:
    """Settings of a mapping that the user gave. Raises: BadInputError for an unknown name."""
    unknown = [name for name in said if name not in (*COLUMNS, *_SETTINGS)]
    if unknown:
        raise BadInputError(
            f"--map does not know {unknown[0]!r}",
            hint=f"our columns {', '.join(COLUMNS)}, or {', '.join(_SETTINGS)}",
        )
    found: dict[str, Any] = {name: value for name, value in said.items() if name in _SETTINGS}
    if "time_formats" in found:
        found["time_formats"] = (found["time_formats"],)
    if "separator" in found:
        found["separator"] = found["separator"].replace("\\t", "\t")
    return found


def _time_fields(
    table: Table, roles: dict[str, str], sample: pl.DataFrame, said: Map[str, str], notes: list[str]
) -> dict[str, Any]:
    if "time_formats" in said or "time" in said or not sample.height:
        return {}
    fields: dict[str, Any] = {}
    zone = said.get("time_zone", "UTC")
    form = _form(sample, roles["timestamp"], "", zone)
    if form.share < ENOUGH and "timestamp" not in said:
        for column in table.header:  # another column of a time's name
            if names.folded(column) in names.NAMES["timestamp"] and column not in roles.values():
                other = _form(sample, column, "", zone)
                if other.share >= ENOUGH:
                    roles["timestamp"], form = column, other
                    break
    clock = _clock_of(table, roles, sample, said)
    if clock:
        fields["time_of_day"] = clock
        form = _form(sample, roles["timestamp"], clock, zone)
        notes.append(f"the clock is in the column {clock!r}")
    if form.share < ENOUGH:
        seen = sample[roles["timestamp"]].drop_nulls()
        raise BadInputError(
            f"the times of column {roles['timestamp']!r} cannot be read, for example {str(seen[0])[:40]!r}" if len(seen)
            else f"the column {roles['timestamp']!r} of {table.member.path} is empty",
            hint="--map timestamp=COLUMN, or say the form: --map 'time_formats=%d/%m/%Y %H:%M', --map time=milliseconds",
        )  # fmt: skip
    notes.append(f"{roles['timestamp']!r} holds {form.words}")
    return fields | {"time": form.unit, "time_formats": form.formats}


def _clock_of(table: Table, roles: Map[str, str], sample: pl.DataFrame, said: Map[str, str]) -> str:
    """The column with the clock where the time's column names a day only."""
    if said.get("time_of_day"):
        return said["time_of_day"]
    for column in table.header:
        if column in roles.values() or names.folded(column) not in names.CLOCKS:
            continue
        values = sample[column].drop_nulls()
        if values.dtype == pl.Time or (
            values.dtype == pl.String
            and len(values)
            and values.str.contains(r"^\s*\d{1,2}:\d{2}").sum() > ENOUGH * len(values)
        ):
            return column
    return ""


def _form(sample: pl.DataFrame, column: str, clock: str, zone: str) -> TimeForm:
    values = sample[column]
    if clock:
        day = values.cast(pl.String).str.strip_chars().str.replace(r"[ T]00:00(:00(\.0+)?)?$", "")
        values = day + pl.Series([" "]) + sample[clock].cast(pl.String).str.strip_chars()
    if values.dtype == pl.String:
        text = plain_text(values)
        values = text
    return time_form(values, zone)


def _event_notes(column: pl.Series) -> list[str]:
    words = column.cast(pl.String).drop_nulls().value_counts(sort=True).to_series().head(30)
    read = {word: event_type(word) for word in words}
    changed = [f"{word!r} as {ours}" for word, ours in read.items() if ours and word.strip().lower() != ours]
    unknown = [repr(word) for word, ours in read.items() if not ours]
    notes = [f"events: {', '.join(changed[:8])}"] if changed else []
    if unknown:
        notes.append(f"event words that become other: {', '.join(unknown[:8])}; name them in a mapping")
    return notes


def _decimal(sample: pl.DataFrame, roles: Map[str, str]) -> str:
    for ours in ("price", "quantity"):
        if ours in roles and roles[ours] in sample.columns and sample[roles[ours]].dtype == pl.String:
            text = sample[roles[ours]]
            if text.str.contains(r"\d,\d{1,2}\D*$").any() and not text.str.contains(r"^\D*\d+\.\d{1,2}\D*$").any():
                return ","
    return "."


def _two_tables(looked: Sequence[Table], said: Map[str, str]) -> Recognised | None:
    """Orders that say who and when, beside lines that say what."""
    for orders in looked:
        who = _roles(orders, {})
        key = names.best(names.ORDERS, orders.header, {})
        if not {"consumer"} <= set(who) or not key:
            continue
        for lines in looked:
            what = _roles(lines, {})
            here = next((n for n in lines.header if names.folded(n) == names.folded(key)), "")
            if lines is orders or "item" not in what or not here:
                continue
            shared = tuple(
                who[n] for n in ("consumer", "timestamp", "site") if n in who and who[n] not in lines.header
            )
            roles = dict(what)
            roles.update({n: who[n] for n in ("consumer", "timestamp", "site") if n in who})
            roles.pop("event", None)
            notes = [f"order lines {lines.member.name!r} joined with {orders.member.name!r} by {key!r}"]
            fields: dict[str, Any] = {"default_event": "purchase"}
            if "timestamp" in who:
                form = _form(sample_of(orders), who["timestamp"], "", "UTC")
                fields |= {"time": form.unit, "time_formats": form.formats}
            else:
                roles["timestamp"], fields["time"] = here, "order"
                notes.append(
                    f"no clock: the order number {here!r} stands for it; pauses, calendar and sales mean nothing"
                )
            fields["orders"] = JoinedFile(files=(orders.member.path.name,), key=key, here=here, columns=shared)
            mapping = _checked({"name": "recognised", "columns": roles, "separator": lines.separator,
                                "encoding": named_encoding(lines), **fields, **_said_settings(said)})  # fmt: skip
            return Recognised(mapping, tuple(notes))
    return None


def _unknown(table: Table, missing: Sequence[str]) -> BadInputError:
    first = "" if table.has_header else f", no header; its first line is {sample_of(table).row(0)[:8]}"
    return BadInputError(
        f"{table.member.path}: no column is known to be the {' and the '.join(missing)}; {found_in(table)}{first}",
        hint="say which it is: " + " ".join(f"--map {name}=COLUMN" for name in missing)
        + f"; known formats: {', '.join(PRESETS)}",
    )  # fmt: skip
