"""Open an event file lazily: CSV, CSV.GZ or Parquet, checked before it is read. Every fault is a BadInputError."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

import common.data.formats as formats
from common.errors import BadInputError

_SNIFF_BYTES = 1 << 16
_WHOLE_FILE_HINT = "the file is damaged or was cut off; copy it again"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn every way in which reading ``path`` can fail into a BadInputError."""
    try:
        yield
    except FileNotFoundError:
        raise BadInputError(f"no such file: {path}", hint="check the path") from None
    except PermissionError:
        raise BadInputError(f"not allowed to read {path}", hint="check the file's permissions") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInputError(f"{path} is not a complete gzip file: {error}", hint=_WHOLE_FILE_HINT) from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BadInputError(f"cannot read {path}: {reason}", hint=_WHOLE_FILE_HINT) from None


def first_line(path: Path, separator: str = ",") -> list[str]:
    """The fields of the first line of a text file, or the column names of a Parquet file.

    Raises: BadInputError if the file is missing, empty, a folder, cut off or not text.
    """
    with readable(path):
        if path.is_dir():
            raise BadInputError(f"{path} is a folder, not an event file", hint="name one file")
        with path.open("rb") as file:
            magic = file.read(4)
        if not magic:
            raise BadInputError(f"{path} is empty", hint="an event file needs a header and lines")
        if is_parquet(path):
            return list(pl.read_parquet_schema(path))
        return _first_text_line(path, separator, gzipped=magic[:2] == b"\x1f\x8b")


def is_blank(path: Path) -> bool:
    """True if nothing but blanks is in a text file."""
    with readable(path):
        if path.is_dir() or is_parquet(path):
            return False
        with path.open("rb") as file:
            opener = gzip.open if file.read(2) == b"\x1f\x8b" else open
        with opener(path, "rb") as text:
            return not any(part.strip() for part in iter(lambda: text.read(_SNIFF_BYTES), b""))


def is_parquet(path: Path) -> bool:
    """True if the file begins with the magic bytes of Parquet."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def scan(path: Path, names: Sequence[str], separator: str) -> pl.LazyFrame:
    """A lazy frame over the file, text columns unparsed. ``names`` are given for a file without header."""
    if is_parquet(path):
        return pl.scan_parquet(path)
    # utf8-lossy: a stray Latin-1 description must not stop a load that never reads that column
    frame = pl.scan_csv(
        path,
        has_header=not names,
        new_columns=list(names) or None,
        separator=separator,
        infer_schema=False,
        encoding="utf8-lossy",
    )
    return frame


@dataclass(frozen=True)
class Lines:
    """The well-formed lines of an event file as columns, text unparsed; ``malformed`` others were left out."""

    frame: pl.DataFrame
    malformed: int


def read_lines(path: Path, names: Sequence[str], separator: str, columns: Sequence[str]) -> Lines:
    """Read these columns of an event file. ``names`` are given for a file without header.

    Guarantee: each line of a text file is read alone. One with another number of fields, or a quote that never ends, drops
    itself and nothing else: no line of one consumer changes how another's is read.
    """
    if is_parquet(path):
        return Lines(pl.read_parquet(path, columns=list(columns)), 0)
    text = lines_in(path)
    header = list(names) or header_of(text, separator)
    return fields_of(text if names else text[1:], header, separator, columns)


def header_of(text: pl.Series, separator: str) -> list[str]:
    """The names in the first of these lines."""
    return next(csv.reader([text[0].lstrip("\ufeff")], delimiter=separator), [])


def fields_of(text: pl.Series, header: list[str], separator: str, columns: Sequence[str]) -> Lines:
    """The fields of lines without a header, each line read alone; ``header`` names all of its fields in order."""
    quoted = text.str.contains('"', literal=True)
    plain = text.filter(~quoted)
    right = plain.str.count_matches(separator, literal=True) == len(header) - 1
    wanted = [header.index(column) for column in columns]
    parts = plain.filter(right).str.split_exact(separator, len(header) - 1).struct.unnest()
    rows = [_fields(line, separator) for line in text.filter(quoted)]
    good = [[fields[place] for place in wanted] for fields in rows if len(fields) == len(header)]
    places = pl.Series(np.arange(len(text)))
    order = pl.concat(
        [
            places.filter(~quoted).filter(right),
            places.filter(quoted).filter(pl.Series([len(f) == len(header) for f in rows], dtype=pl.Boolean)),
        ]
    )
    schema = dict.fromkeys(columns, pl.String)
    frame = pl.concat(
        [
            pl.DataFrame([parts.to_series(place).alias(name) for place, name in zip(wanted, columns, strict=True)])
            if len(parts)
            else pl.DataFrame(schema=schema),
            pl.DataFrame(good, schema=schema, orient="row"),
        ]
    )
    return Lines(frame[order.arg_sort()], len(text) - len(order))


def lines_in(source: Path | bytes) -> pl.Series:
    """Every line that is not blank, as text."""
    frame = pl.read_csv(
        source, has_header=False, new_columns=["line"], separator="\x1f", quote_char=None, infer_schema=False,
        encoding="utf8-lossy", truncate_ragged_lines=True,
    )  # fmt: skip
    lines = frame["line"].fill_null("").str.strip_chars_end("\r")
    return lines.filter(lines.str.strip_chars() != "")


def _fields(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return []


def choose_mapping(path: Path, mappings: Sequence[formats.Mapping]) -> tuple[formats.Mapping, list[str]]:
    """The mapping that fits the file, and the names of the file's columns.

    Raises: BadInputError naming the missing columns and, where one fits, the right format.
    """
    wanted = mappings[0]
    fields = first_line(path, wanted.separator)
    for mapping in mappings:
        if mapping.names and len(mapping.names) == len(fields) and not is_parquet(path):
            return mapping, list(mapping.names)
        if not mapping.names and not formats.missing_columns(mapping, fields):
            return mapping, fields
    guess = formats.guess_format(fields)
    hint = f"this looks like --format {guess}" if guess else "see docs/data.md for the formats and for mappings"
    if wanted.names and not is_parquet(path):
        sizes = " or ".join(str(len(m.names)) for m in mappings)
        raise BadInputError(f"format {wanted.name!r} has {sizes} columns, {path} has {len(fields)}", hint=hint)
    missing = ", ".join(formats.missing_columns(wanted, fields))
    raise BadInputError(f"{path} lacks the columns {missing} of format {wanted.name!r}", hint=hint)


def _first_text_line(path: Path, separator: str, *, gzipped: bool) -> list[str]:
    opener = gzip.open if gzipped else open
    with opener(path, "rb") as file:
        head = file.read(_SNIFF_BYTES)
    if not head.strip():
        raise BadInputError(f"{path} is empty", hint="an event file needs a header and lines")
    first = head.splitlines()[0]  # of the header only: no consumer's line may decide whether a file is read
    control = sum(byte < 9 or 13 < byte < 32 for byte in first)
    if b"\0" in first or control > len(first) // 100:
        raise BadInputError(f"{path} is not text", hint="give a CSV, CSV.GZ or Parquet file")
    line = head.decode("utf-8-sig", errors="replace").splitlines()[0]
    return next(csv.reader([line], delimiter=separator), [])
