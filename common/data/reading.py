"""Open an event file lazily: CSV, CSV.GZ or Parquet, checked before it is read. Every fault is a BadInputError."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

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
    control = sum(byte < 9 or 13 < byte < 32 for byte in head)
    if b"\0" in head or control > len(head) // 100:
        raise BadInputError(f"{path} is not text", hint="give a CSV, CSV.GZ or Parquet file")
    line = head.decode("utf-8-sig", errors="replace").splitlines()[0]
    return next(csv.reader([line], delimiter=separator), [])
