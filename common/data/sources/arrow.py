"""Arrow batches as polars frames: types that only a database has become text or numbers, nothing nested gets through."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import polars as pl

from common.data.sources.source import plain_columns, required

_DASHES = (8, 12, 16, 20)


def frame_of(batch: Any) -> pl.DataFrame:
    """One record batch as a frame; extension types are given as what they are stored as, UUIDs as text.

    Raises: BadInputError for one name twice.
    """
    pa = required("pyarrow", "a source")
    columns: dict[str, pl.Series] = {}
    for field, array in zip(batch.schema, batch.columns, strict=True):
        if field.name in columns:
            _refuse_twice(field.name)
        kind = field.type
        stored = array.storage if isinstance(kind, pa.BaseExtensionType) else array
        series = (
            _text_of(field.name, stored)
            if _is_text(pa, stored.type)
            else pl.Series(field.name, pl.from_arrow(stored))
        )
        if str(kind) == "extension<arrow.uuid>":
            series = _uuids(series)
        columns[field.name] = series
    return plain_columns(pl.DataFrame(list(columns.values())))


def _is_text(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text_of(name: str, stored: Any) -> pl.Series:
    """Text that is text: what a database holds as such need not be UTF-8, and the first touch would end the process."""
    try:
        stored.validate(full=True)
        return pl.Series(name, pl.from_arrow(stored))
    except ValueError:  # pyarrow's ArrowInvalid
        return pl.Series(name, [_decoded(raw) for raw in stored.cast("large_binary").to_pylist()], dtype=pl.String)


def _decoded(raw: bytes | None) -> str | None:
    with suppress(UnicodeDecodeError):
        return raw.decode() if raw is not None else None
    return None


def _refuse_twice(name: str) -> None:
    from common.errors import BadInputError

    raise BadInputError(f"the query gives two columns named {name!r}", hint="name them apart with AS")


def _uuids(column: pl.Series) -> pl.Series:
    digits = column.bin.encode("hex")
    starts = (0, *_DASHES)
    parts = [digits.str.slice(start, end - start) for start, end in zip(starts, (*_DASHES, 32), strict=True)]
    return pl.DataFrame(parts, schema=[str(i) for i in range(5)]).select(
        pl.concat_str(pl.all(), separator="-").alias(column.name)
    )[column.name]
