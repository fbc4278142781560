"""Delimited text: physical lines with their numbers, each read alone.

Guarantee: a line that can be read alone is never changed by another. One that cannot drops itself, with its number; only
lines that cannot be read alone are put together, where a field in quotes goes over their ends.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from common.data.values.words import REPLACEMENT

LINE = "line"
"""The column with the number of a physical line, from 1 on, the header included."""

LONGEST_FIELD = 131_072
_JOINED_LINES = 50
_BLANKS = " "
"""A separator of one blank means: any number of blanks and tabs (aligned columns)."""


@dataclass(frozen=True)
class Lines:
    """Columns as they were read, text unparsed, in the order of the file; ``malformed`` records were left out.

    ``frame`` has a column ``line`` where the source has lines. ``example``: what was wrong with the first one left out.
    ``last``: number of the last physical line seen; ``blank``: lines without anything; ``spanned``: lines beyond the first
    of the records that go over several; ``headers``: header lines.
    """

    frame: pl.DataFrame
    malformed: int = 0
    example: str = ""
    last: int = 0
    blank: int = 0
    spanned: int = 0
    headers: int = 0


@dataclass
class _Taken:
    """Records of the slow path: their first line, their fields."""

    places: list[int] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    wrong: dict[int, str] = field(default_factory=dict)
    spanned: int = 0


def lines_in(chunk: bytes) -> pl.Series:
    """Every physical line as text, blank ones included."""
    if not chunk:
        return pl.Series("line", [], dtype=pl.String)
    frame = pl.read_csv(
        chunk, has_header=False, new_columns=["line"], separator="\x1f", quote_char=None, infer_schema=False,
        encoding="utf8-lossy", truncate_ragged_lines=True, raise_if_empty=False,
    )  # fmt: skip
    return frame.to_series().fill_null("").str.strip_chars_end("\r") if frame.width else lines_in(b"")


def header_of(line: str, separator: str) -> list[str]:
    """The names in a header line, without blanks and quotes around them. Of two that are one the first keeps it."""
    found = split_line(line.lstrip("\ufeff"), separator) or []
    names: list[str] = []
    for name in (one.strip().strip('"').strip() for one in found):
        names.append(f"{name} (again, column {len(names) + 1})" if name and name in names else name)
    return names


def split_line(line: str, separator: str) -> list[str] | None:
    r"""The fields of one line; None where its quotes do not end. A quote in quotes is doubled, or written ``\"`` where that fails."""
    if separator == _BLANKS:
        return line.split()
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return _with_backslashes(line, separator) if '\\"' in line else None


def _with_backslashes(line: str, separator: str) -> list[str] | None:
    try:
        return next(csv.reader([line], delimiter=separator, strict=True, doublequote=False, escapechar="\\"), [])
    except csv.Error:
        return None


def fields_of(text: pl.Series, header: Sequence[str], separator: str, columns: Sequence[str], first: int) -> Lines:
    """The fields of these physical lines; ``header`` names all of a record's fields, ``first`` is the first line's number."""
    numbers = pl.Series(LINE, range(first, first + len(text)), dtype=pl.Int64)
    empty = text.str.strip_chars() == ""
    if separator == "\t":
        empty = text.str.strip_chars(" \r") == ""
    kept, numbers = text.filter(~empty), numbers.filter(~empty)
    last = first + len(text) - 1
    if separator == _BLANKS:
        kept = kept.str.strip_chars().str.replace_all(r"[ \t]+", "\t")
        separator = "\t"
    quoted = kept.str.contains('"', literal=True)
    plain, places = kept.filter(~quoted), numbers.filter(~quoted)
    right = plain.str.count_matches(separator, literal=True) == len(header) - 1
    wanted = [list(header).index(column) for column in columns]
    schema = dict.fromkeys(columns, pl.String) | {LINE: pl.Int64}
    frames = [_split(plain.filter(right), places.filter(right), len(header), separator, (columns, wanted))]
    wrong = _example(plain, places, ~right, separator, len(header))
    blank_numbers = pl.Series(range(first, first + len(text)), dtype=pl.Int64).filter(empty)
    ragged = dict(zip(places.filter(~right).to_list(), plain.filter(~right).to_list(), strict=True))
    slow = _quoted(kept.filter(quoted), numbers.filter(quoted), ragged | dict.fromkeys(blank_numbers, ""), separator,
                   len(header))  # fmt: skip
    if slow.rows:
        parts = {
            name: [_unquoted(row[place]) for row in slow.rows] for name, place in zip(columns, wanted, strict=True)
        }
        frames.append(pl.DataFrame(parts | {LINE: slow.places}, schema=schema))
    frame = pl.concat([one for one in frames if one.height]) if any(f.height for f in frames) else frames[0]
    lost = len(kept) - frame.height - slow.spanned
    examples = sorted([*wrong.items(), *slow.wrong.items()])
    return Lines(
        frame.sort(LINE), lost, examples[0][1] if examples and lost else "", last, int(empty.sum()), slow.spanned
    )


def _unquoted(field: str) -> str:
    """What is in a quoted field with a blank before its quote, which a strict reader takes for text."""
    if not field.startswith((" ", "\t")):
        return field
    inside = field.strip()
    return inside[1:-1].replace('""', '"') if len(inside) > 1 and inside[0] == inside[-1] == '"' else field


def _split(
    text: pl.Series, places: pl.Series, width: int, separator: str, chosen: tuple[Sequence[str], list[int]]
) -> pl.DataFrame:
    columns, wanted = chosen
    if not len(text):
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String) | {LINE: pl.Int64})
    parts = text.str.split_exact(separator, width - 1).struct.unnest()
    found = [parts.to_series(place).alias(name) for name, place in zip(columns, wanted, strict=True)]
    return pl.DataFrame([*found, places.alias(LINE)])


def _example(text: pl.Series, places: pl.Series, wrong: pl.Series, separator: str, width: int) -> dict[int, str]:
    where = wrong.arg_true()
    if not len(where):
        return {}
    number = int(places[int(where[0])])
    fields = text[int(where[0])].count(separator) + 1
    return {number: f"line {number} has {fields} fields, the header {width}"}


def _quoted(text: pl.Series, places: pl.Series, others: dict[int, str], separator: str, width: int) -> _Taken:
    """Lines with quotes: alone where they can be, else with those of ``others`` (unreadable alone) that follow them."""
    taken, lines, numbers = _Taken(), text.to_list(), places.to_list()
    alone = _rows_alone(lines, separator)
    open_ends = [place for place, row in enumerate(alone) if row is None]
    for place, row in enumerate(alone):
        if row is None or len(row) != width:
            others[numbers[place]] = lines[place]
        else:
            taken.places.append(numbers[place])
            taken.rows.append(row)
    used: set[int] = set()
    for place in open_ends:
        start = numbers[place]
        whole = None if start in used else _joined(start, others, separator, width)
        if whole is None:
            continue
        length, found = whole
        used.update(range(start, start + length))
        taken.spanned += sum(bool(others[number].strip()) for number in range(start + 1, start + length))
        taken.places.append(start)
        taken.rows.append(found)
    for place, row in enumerate(alone):
        number = numbers[place]
        if number not in used and (row is None or len(row) != width):
            why = "a quote that does not end in it" if row is None else f"{len(row)} fields, the header {width}"
            taken.wrong[number] = f"line {number} has {why}"
            break
    return taken


def _rows_alone(lines: list[str], separator: str) -> list[list[str] | None]:
    """Each line as a record of its own; None where a quote does not end in it."""
    rows: list[list[str] | None] = []
    while len(rows) < len(lines):
        begin = len(rows)
        reader = csv.reader(lines[begin:] if begin else lines, delimiter=separator, strict=True)
        try:
            for done, row in enumerate(reader, start=1):
                if reader.line_num != done:  # it went on into the next line
                    break
                rows.append(row)
        except csv.Error:
            pass
        if len(rows) < len(lines):
            rows.append(split_line(lines[len(rows)], separator))
        if len(rows) - begin < 50 and len(rows) < len(
            lines
        ):  # many faults: one by one costs less than beginning anew
            rows += [split_line(line, separator) for line in lines[len(rows) : len(rows) + 2_000]]
    return rows


def _joined(start: int, others: dict[int, str], separator: str, width: int) -> tuple[int, list[str]] | None:
    """A record that goes over the ends of lines of which none can be read alone: how many, and its fields."""
    text = others[start]
    if text.count('"') % 2 == 0:
        return None
    for length in range(2, _JOINED_LINES + 1):
        more = others.get(start + length - 1)
        if more is None or len(text) > LONGEST_FIELD:
            return None
        text += "\n" + more
        try:
            rows = list(csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True))
        except csv.Error:
            continue
        return (length, rows[0]) if len(rows) == 1 and len(rows[0]) == width else None
    return None


def undecodable(name: str) -> bool:
    """Whether a name holds bytes that were no text."""
    return REPLACEMENT in name
