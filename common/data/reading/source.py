"""``EventFiles``: the tables of a source under one mapping, as batches; the mapping that fits them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

import common.data.reading.files as files
import common.data.reading.tables as tables
from common.data.formats import JoinedFile, Mapping, missing_columns
from common.data.presets import OPTIONAL_COLUMNS, guess_format
from common.data.reading.tables import Table
from common.data.reading.text import LINE, Lines, split_line
from common.errors import BadInputError

PLAIN = Mapping(name="plain", columns={"consumer": "consumer", "timestamp": "timestamp"}, default_event="other")
_SHOWN = 12
_LOOKED_AT = 500


@dataclass(frozen=True)
class EventFiles:
    """Tables that one mapping reads. ``passed_over``: files of a folder that are no events under it; ``also``: further
    columns to read; ``continued``: files without header that go on where another ends."""

    mapping: Mapping
    tables: tuple[Table, ...]
    passed_over: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    continued: tuple[str, ...] = ()

    @property
    def doubtful(self) -> tuple[str, ...]:
        """Of the files that are passed over those whose names end as that of one that is read: they may have been meant."""
        read = {files.member_suffix(table.member) for table in self.tables}
        return tuple(name for name in self.passed_over if files.suffix_of(name) in read)

    @property
    def header(self) -> list[str]:
        """The columns of the first table."""
        return list(self.tables[0].header)

    @property
    def columns(self) -> list[str]:
        """The columns that are read, of those that are there."""
        wanted = [*self.mapping.source_columns, *self.also]
        return [name for name in dict.fromkeys(wanted) if name in self.header]

    def batches(self) -> Iterator[tuple[str, Lines]]:
        """Name of the table and columns of its lines, in order. Raises: BadInputError if one cannot be read."""
        orders = _orders(self.mapping, self.tables[0].member.path) if self.mapping.orders else None
        for table in self.tables:
            for batch in tables.table_batches(table, self.columns):
                yield table.member.name, _completed(batch, self.mapping, orders)


def open_files(path: Path | str, mappings: Sequence[Mapping]) -> EventFiles:
    """The tables of a source under the first mapping that fits them.

    Raises: BadInputError that says what was found where none fits.
    """
    members = files.members(path)
    beside = {name for mapping in mappings for name in _second_files(mapping)}
    events = [member for member in members if member.name not in beside] or list(members)
    looked = [(member, tables.table_of(member, mappings[0])) for member in events]
    for mapping in mappings:
        own = [table if mapping is mappings[0] else tables.table_of(member, mapping) for member, table in looked]
        found = [_fits(table, mapping) or _by_its_own_separator(table, mapping) for table in own]
        first = next((table for table in found if table is not None), None)
        if first is not None:
            more = [
                _continued(table, first, mapping) if fits is None else None
                for table, fits in zip(own, found, strict=True)
            ]
            read = [fits or goes_on for fits, goes_on in zip(found, more, strict=True)]
            passed = tuple(table.member.name for table, one in zip(own, read, strict=True) if one is None)
            continued = tuple(table.member.name for table in more if table is not None)
            chosen = tuple(table for table in read if table is not None)
            return EventFiles(_present(mapping, (first,)), chosen, passed, continued=continued)
    raise _refusal(looked[0][1], mappings)


def _by_its_own_separator(table: Table, mapping: Mapping) -> Table | None:
    """A file of a folder that separates its columns by another mark than the first one; its header says which."""
    if table.kind != "text" or not mapping.separator or mapping.names:
        return None
    return _fits(tables.table_of(table.member, mapping.model_copy(update={"separator": ""})), mapping)


def _continued(table: Table, first: Table, mapping: Mapping) -> Table | None:
    """A file without header that goes on where one with a header ends, as an export in parts does; None if it does not.

    Most of its first lines have as many fields, with a time where it belongs, and the first is no header of its own, in which
    nothing holds a digit.
    """
    from common.data.values.times import times

    partitions = len(first.member.partitions)
    if {table.kind, first.kind} != {"text"} or not first.has_header or len(table.member.partitions) != partitions:
        return None
    same = replace(
        first, member=table.member, encoding=table.encoding, newline=table.newline, has_header=False, above=0
    )
    names = first.header[: len(first.header) - partitions]
    moment = mapping.fitted(first.header).columns.get("timestamp", "")
    if moment not in names:
        return None
    start = files.head(same.member).decode(same.encoding, "replace").splitlines()[:_LOOKED_AT]
    rows = [split_line(line, same.separator) for line in start if line.strip()]
    if not rows or not any(letter.isdigit() for letter in "".join(rows[0] or ["0"])):
        return None
    wide = [row[names.index(moment)] for row in rows if row is not None and len(row) == len(names)]
    read = times(pl.Series(wide, dtype=pl.String), unit=mapping.time, formats=mapping.time_formats)
    return same if len(read) - read.null_count() > len(rows) / 2 else None


def _second_files(mapping: Mapping) -> tuple[str, ...]:
    return (
        *(mapping.products.files if mapping.products else ()),
        *(mapping.orders.files if mapping.orders else ()),
    )


def _fits(table: Table, mapping: Mapping) -> Table | None:
    if mapping.names and table.kind == "text":
        width = _width(table)
        return table if width == len(mapping.names) else None
    if mapping.names:
        return None
    missing = missing_columns(mapping.fitted(table.header), table.header, OPTIONAL_COLUMNS.get(mapping.name, ()))
    return table if not missing else None


def _width(table: Table) -> int:
    """Fields of most of the first lines of a file without header; no single line decides it."""
    start = files.head(table.member).decode(table.encoding, "replace").splitlines()[:_LOOKED_AT]
    widths = Counter(len(split_line(line, table.separator) or []) for line in start if line.strip())
    return widths.most_common(1)[0][0] if widths else 0


def _present(mapping: Mapping, chosen: Sequence[Table]) -> Mapping:
    """The mapping in the file's spelling, without optional columns that no table has."""
    header = chosen[0].header
    fitted = mapping.fitted(header)
    joined = fitted.orders.columns if fitted.orders else ()
    there = {ours: theirs for ours, theirs in fitted.columns.items() if theirs in header or theirs in joined}
    return fitted.model_copy(update={"columns": there, "separator": chosen[0].separator})


def _refusal(table: Table, mappings: Sequence[Mapping]) -> BadInputError:
    wanted = mappings[0]
    guess = guess_format(table.header) if table.kind != "text" or table.has_header else ""
    path = table.member.path
    if wanted.names and table.kind == "text":
        sizes = " or ".join(str(len(m.names)) for m in mappings)
        guess = guess_format(tables.table_of(table.member, PLAIN).header)
        hint = (
            f"this looks like --format {guess}" if guess else "see docs/data.md for the formats and for mappings"
        )
        return BadInputError(f"format {wanted.name!r} has {sizes} columns, {path} has {_width(table)}", hint=hint)
    fitted = wanted.fitted(table.header)
    missing = ", ".join(missing_columns(fitted, table.header, OPTIONAL_COLUMNS.get(wanted.name, ())))
    hint = (
        f"this looks like --format {guess}"
        if guess
        else "see docs/data.md, or let `fedcart data check` recognise it"
    )
    return BadInputError(
        f"{path} lacks the columns {missing} of format {wanted.name!r}; {found_in(table)}", hint=hint
    )


def found_in(table: Table) -> str:
    """What a table is, in words: its kind, its separator, its columns."""
    shown = ", ".join(repr(name) for name in table.header[:_SHOWN])
    more = f" and {len(table.header) - _SHOWN} more" if len(table.header) > _SHOWN else ""
    words = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
    how = {"parquet": "Parquet", "arrow": "Arrow", "json": "JSON"}.get(table.kind, "")
    if not how:
        how = f"{table.encoding} text separated by {words.get(table.separator, repr(table.separator))}"
    return f"found {how} with the columns {shown}{more}"


def choose_mapping(path: Path | str, mappings: Sequence[Mapping]) -> tuple[Mapping, list[str]]:
    """The mapping that fits a source, and the names of its columns. Raises: BadInputError, see ``open_files``."""
    opened = open_files(path, mappings)
    return opened.mapping, opened.header


def first_line(path: Path | str, separator: str = "") -> list[str]:
    """The fields of the first line of a text file, or the column names of a typed one.

    Raises: BadInputError if the file is missing, empty, cut off or not text.
    """
    plain = PLAIN.model_copy(update={"separator": separator})
    return list(tables.table_of(files.members(path)[0], plain).header)


def scan(path: Path | str, columns: Sequence[str]) -> pl.DataFrame:
    """These columns of all lines of a source, unparsed. Raises: BadInputError if it cannot be read."""
    table = tables.table_of(files.members(path)[0], PLAIN)
    return pl.concat([batch.frame.drop(LINE) for batch in tables.table_batches(table, columns)])


def _completed(batch: Lines, mapping: Mapping, orders: pl.DataFrame | None) -> Lines:
    frame = batch.frame
    if mapping.fill_by and mapping.fill_by in frame.columns:
        shared = [mapping.columns[n] for n in ("consumer", "timestamp", "event", "site") if n in mapping.columns]
        known = [name for name in shared if name in frame.columns and name != mapping.fill_by]
        blank = [
            pl.when(pl.col(name).cast(pl.String).str.strip_chars() != "").then(pl.col(name)).alias(name)
            for name in known
        ]
        frame = frame.with_columns(blank).with_columns(
            pl.col(name).forward_fill().over(mapping.fill_by) for name in known
        )
    if orders is not None and mapping.orders is not None:
        key = mapping.orders.here or mapping.orders.key
        frame = frame.with_columns(pl.col(key).cast(pl.String).str.strip_chars())
        frame = frame.join(orders, left_on=key, right_on=mapping.orders.key, how="left", maintain_order="left")
    return batch if frame is batch.frame else replace(batch, frame=frame)


def _orders(mapping: Mapping, path: Path) -> pl.DataFrame:
    """The second file of a join: its key, each once, and its columns. Raises: BadInputError."""
    spec = mapping.orders
    assert isinstance(spec, JoinedFile)
    folder = path if path.is_dir() else path.parent
    beside = next((folder / name for name in spec.files if (folder / name).exists()), None)
    if beside is None:
        raise BadInputError(
            f"no {' or '.join(spec.files)} beside {path}", hint="`orders` of the mapping names the file"
        )
    missing = [name for name in (spec.key, *spec.columns) if name not in first_line(beside)]
    if missing:
        raise BadInputError(
            f"{beside} lacks the columns {', '.join(missing)}", hint="see `orders` in docs/data.md"
        )
    frame = scan(beside, [spec.key, *(name for name in spec.columns if name != spec.key)])
    return frame.with_columns(pl.col(spec.key).cast(pl.String).str.strip_chars()).unique(
        spec.key, keep="first", maintain_order=True
    )
