"""An event file in batches: text cut at the ends of its lines, Parquet by rows. Memory for one batch, whatever the file."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import polars as pl

import common.data.reading as reading
from common.data.cleaning import columns_read
from common.data.formats import Mapping
from common.data.reading import Lines

CHUNK_BYTES = 32 << 20
CHUNK_ROWS = 500_000


def file_batches(path: Path, mapping: Mapping, header: list[str]) -> Iterator[Lines]:
    """The well-formed lines of a file, as ``reading.read_lines`` reads them, in batches in the order of the file.

    Raises: BadInputError if the file is cut off or cannot be read.
    """
    columns = columns_read(mapping, header)
    with reading.readable(path):
        if reading.is_parquet(path):
            yield from _rows(path, columns)
            return
        first = True
        for chunk in _chunks(path):
            text = reading.lines_in(chunk)
            if first and not mapping.names and len(text):
                header = reading.header_of(text, mapping.separator)
                text = text[1:]
                first = False
            if len(text):
                yield reading.fields_of(text, header, mapping.separator, columns)


def _rows(path: Path, columns: list[str]) -> Iterator[Lines]:
    table = pl.scan_parquet(path).select(columns)
    rows = table.select(pl.len()).collect().item()
    for start in range(0, rows, CHUNK_ROWS):
        yield Lines(table.slice(start, CHUNK_ROWS).collect(), 0)


def _chunks(path: Path) -> Iterator[bytes]:
    """Bytes that end where a line does; the last line may lack its end."""
    with path.open("rb") as magic:
        packed = magic.read(2) == b"\x1f\x8b"
    rest = b""
    with (gzip.open if packed else open)(path, "rb") as file:
        while block := cast(IO[bytes], file).read(CHUNK_BYTES):
            cut = block.rfind(b"\n") + 1
            if not cut:
                rest += block
                continue
            yield rest + block[:cut]
            rest = block[cut:]
    if rest:
        yield rest
