"""Arrow batches as polars frames: types that only a database has become text or numbers, nothing nested gets through."""

from __future__ import annotations

from typing import Any

import polars as pl

from common.data.sources.source import plain_columns, required

_DASHES = (8, 12, 16, 20)


def frame_of(batch: Any) -> pl.DataFrame:
    """One record batch as a frame; extension types are given as what they are stored as, UUIDs as text.

    Raises: BadInputError for a nested column or one name twice.
    """
    pa = required("pyarrow", "a source")
    columns: dict[str, pl.Series] = {}
    for field, array in zip(batch.schema, batch.columns, strict=True):
        if field.name in columns:
            _refuse_twice(field.name)
        kind = field.type
        stored = array.storage if isinstance(kind, pa.BaseExtensionType) else array
        series = pl.Series(field.name, pl.from_arrow(stored))
        if str(kind) == "extension<arrow.uuid>":
            series = _uuids(series)
        columns[field.name] = series
    return plain_columns(pl.DataFrame(list(columns.values())))


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
