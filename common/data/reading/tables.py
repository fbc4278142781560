"""One table of a source as batches of columns, whatever it is stored as; and the names of its columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

import common.data.reading.encoding as encodings
import common.data.reading.files as files
import common.data.reading.records as json_records
import common.data.reading.text as texts
from common.data.formats import Mapping, missing_columns
from common.data.reading.files import Kind, Member
from common.data.reading.text import LINE, Lines
from common.errors import BadInputError, WorkFailedError

CHUNK_ROWS = 500_000
MOST_ABOVE = 30
_SEPARATOR_LINE = re.compile(r'^"?sep=(?P<mark>[^"])"?$', re.I)
SEPARATORS = (",", ";", "\t", "|", "^", "~", "\x01")


@dataclass(frozen=True)
class Table:
    """A table and how it is stored. ``header``: the names of its columns; ``separator`` and ``encoding`` of text; ``above``: lines
    above the header that are not blank: a title, ``sep=;``, comments."""

    member: Member
    kind: Kind
    header: tuple[str, ...]
    separator: str = ","
    encoding: str = "utf-8"
    newline: str = "\n"
    has_header: bool = True
    above: int = 0


def table_of(member: Member, mapping: Mapping) -> Table:
    """Look at the beginning of a table: its kind and the names of its columns. No consumer's line is looked at.

    Raises: BadInputError if it is empty, cut off, or nothing that can be read.
    """
    start = files.head(member)
    if not start:
        raise BadInputError(f"{member.path} is empty", hint="an event file needs a header and lines")
    typed = start.startswith((b"PAR1", b"ARROW1"))
    kind = files.kind_of(member, start) if typed or not mapping.names else "text"
    if kind in ("parquet", "arrow"):
        with files.readable(member.path):
            names = paths_of_schema(_lazy(member, kind).collect_schema())
        return Table(member, kind, (*names, *(name for name, _ in member.partitions)))
    if kind == "json":
        with files.readable(member.path), files.opened(member) as file:
            names = json_records.paths_of(_as_utf8(file.read()), member.name)
        return Table(member, kind, (*names, *(name for name, _ in member.partitions)))
    return _text_table(member, start, mapping)


def _text_table(member: Member, start: bytes, mapping: Mapping) -> Table:
    encoding = encodings.declared(start, mapping.encoding)
    newline = "\r" if b"\r" in start and b"\n" not in start else "\n"
    partitions = [name for name, _ in member.partitions]
    if mapping.names:  # the first line is a consumer's: nothing about the file may depend on it
        named = (*mapping.names, *partitions)
        return Table(member, "text", named, mapping.separator or ",", encoding, newline, has_header=False)
    if encoding == "utf-8" and not mapping.encoding and start[:64].count(0) > 16:
        encoding = encodings.guessed(start[:64])
    lines = first_text_lines(member, start, encoding)
    above = _above_header(lines, mapping, partitions)
    told = _SEPARATOR_LINE.match(lines[0].strip("\ufeff \t"))
    separator = mapping.separator or (told["mark"] if told else separator_of(lines[above]))
    header = [*texts.header_of(lines[above], separator), *partitions]
    return Table(member, "text", tuple(header), separator, encoding, newline, above=above)


def _above_header(lines: Sequence[str], mapping: Mapping, partitions: Sequence[str]) -> int:
    """How many lines stand above the header: those above the first that names every column that is needed, among the first few.

    No line of a consumer does that, and none stands above a header; 0 where no line does.
    """
    from common.data.presets import OPTIONAL_COLUMNS

    needed = missing_columns(mapping, [], OPTIONAL_COLUMNS.get(mapping.name, ()))
    for above, line in enumerate(lines[:MOST_ABOVE]):
        names = [*texts.header_of(line, mapping.separator or separator_of(line)), *partitions]
        if needed and not missing_columns(mapping.fitted(names), names, OPTIONAL_COLUMNS.get(mapping.name, ())):
            return above
    return 1 if len(lines) > 1 and _SEPARATOR_LINE.match(lines[0].strip("\ufeff \t")) else 0


def first_text_lines(member: Member, start: bytes, encoding: str) -> list[str]:
    """The first lines that are not blank. Raises: BadInputError if there is none, or if the first is not text."""
    text = start.decode(encoding, "replace")
    lines = [
        line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip("\ufeff \t")
    ]
    if not lines:
        raise BadInputError(f"{member.path} is empty", hint="an event file needs a header and lines")
    first = lines[0]  # of the header only: no consumer's line may decide whether a file is read
    control = sum(ord(letter) < 9 or 13 < ord(letter) < 32 for letter in first if letter != "\x01")
    if "\0" in first or control > len(first) // 100:
        raise BadInputError(
            f"{member.path} is not text",
            hint="give CSV, TSV, JSON lines, Parquet or Arrow, also as .gz, .zst or .zip",
        )
    return lines


def separator_of(line: str) -> str:
    """The separator that divides a header line into most fields; a comma for one that none divides."""
    counts = {mark: len(texts.split_line(line, mark) or []) for mark in SEPARATORS}
    best = max(SEPARATORS, key=lambda mark: counts[mark])
    if counts[best] > 1:
        return best
    return " " if len(line.split()) > 2 else ","


def paths_of_schema(schema: pl.Schema) -> list[str]:
    """The columns of a typed table; fields of structs by path."""

    def inside(name: str, kind: pl.DataType) -> Iterator[str]:
        inner = kind.inner if isinstance(kind, pl.List) else kind
        if isinstance(inner, pl.Struct):
            for part in inner.fields:
                yield from inside(f"{name}.{part.name}", part.dtype)  # type: ignore[arg-type]
        else:
            yield name

    return [path for name, kind in schema.items() for path in inside(name, kind)]


def table_batches(table: Table, columns: Sequence[str]) -> Iterator[Lines]:
    """These columns of a table, in batches in the order of the file.

    Raises: BadInputError if the file is cut off or cannot be read.
    """
    partitions = dict(table.member.partitions)
    inside = [name for name in columns if name not in partitions]
    with files.readable(table.member.path):
        for batch in _batches(table, inside):
            added = [pl.lit(partitions[name]).alias(name) for name in columns if name in partitions]
            yield replace(batch, frame=batch.frame.with_columns(added)) if added else batch


def _batches(table: Table, columns: list[str]) -> Iterator[Lines]:
    if table.kind in ("parquet", "arrow"):
        yield from _typed(table, columns)
    elif table.kind == "json":
        with files.opened(table.member) as file:
            yield from json_records.record_lines(_as_utf8(file.read()), table.member.name, columns)
    else:
        yield from _texts(table, columns)


def _as_utf8(content: bytes) -> bytes:
    """JSON in the encoding that JSON has; UTF-16 and UTF-32 say themselves what they are."""
    declared = encodings.declared(content[:8], "")
    return content if declared.startswith("utf-8") else content.decode(declared, "replace").encode()


def _texts(table: Table, columns: list[str]) -> Iterator[Lines]:
    partitions = len(table.member.partitions)
    header = table.header[: len(table.header) - partitions]
    number, skip, headers, above = 1, table.has_header * (table.above + 1), 0, 0
    with files.opened(table.member) as file:
        for chunk in encodings.utf8_chunks(file, table.encoding, table.newline):
            text = _counted_lines(table, chunk)
            number_of_first, number = number, number + len(text)
            if skip:  # the header is the first line that is not blank, or so many behind it
                filled = (text.str.strip_chars("\ufeff \t") != "").arg_true()
                if len(filled) < skip:
                    above, headers, skip = (
                        above + len(text) - len(filled),
                        headers + len(filled),
                        skip - len(filled),
                    )
                    continue
                place = int(filled[skip - 1]) + 1
                above, headers, skip = above + place - skip, headers + skip, 0
                text, number_of_first = text[place:], number_of_first + place
            found = texts.fields_of(text, header, table.separator, columns, number_of_first)
            yield replace(found, headers=headers, blank=found.blank + above)
            headers = above = 0


def _counted_lines(table: Table, chunk: bytes) -> pl.Series:
    """The physical lines of a chunk, their number checked by counting their ends. Raises: WorkFailedError."""
    text = texts.lines_in(chunk)
    ends = chunk.count(b"\n") + (not chunk.endswith(b"\n"))
    if len(text) != ends:
        raise WorkFailedError(
            f"{table.member.name}: {ends} lines were counted and {len(text)} read: a bug of this program"
        )
    return text


def _lazy(member: Member, kind: Kind) -> pl.LazyFrame:
    if member.entry:
        with files.opened(member) as file:
            data = file.read()
        return (pl.read_parquet(data) if kind == "parquet" else _arrow(data)).lazy()
    return (
        pl.scan_parquet(member.path, hive_partitioning=False) if kind == "parquet" else _arrow(member.path).lazy()
    )


def _arrow(source: Path | bytes) -> pl.DataFrame:
    try:
        return pl.read_ipc(source)
    except pl.exceptions.PolarsError:
        return pl.read_ipc_stream(source)


def _typed(table: Table, columns: list[str]) -> Iterator[Lines]:
    lazy = _lazy(table.member, table.kind)
    schema = lazy.collect_schema()
    tops = list(dict.fromkeys(name if name in schema else name.split(".")[0] for name in columns))
    rows = lazy.select(pl.len()).collect().item()
    for start in range(0, max(rows, 1), CHUNK_ROWS):
        frame = lazy.select(tops).slice(start, CHUNK_ROWS).collect()
        frame = frame.with_columns(pl.Series(LINE, range(start + 1, start + 1 + frame.height), dtype=pl.Int64))
        yield Lines(_flat(frame, columns), last=start + frame.height)


def _flat(frame: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Fields of structs as columns of their own; a list becomes one line per entry."""
    if all(name in frame.columns for name in columns) and not any(kind.is_nested() for kind in frame.dtypes):
        return frame.select(*columns, LINE)
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    if lists:
        frame = frame.explode(lists[:1])
    parts = []
    for name in columns:
        if name in frame.columns:
            parts.append(pl.col(name))
            continue
        top, *rest = name.split(".")
        expression = pl.col(top)
        for key in rest:
            expression = expression.struct.field(key)
        parts.append(expression.alias(name))
    return frame.select(*parts, LINE)
