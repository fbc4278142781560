"""``Source``: columns in batches, with words on where they come from; and ``Mark``, how far a source has been read."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

import polars as pl

from common.errors import BadInputError, ConfigError

BATCH_ROWS = 262_144
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Mark:
    """A place in a column that grows: a whole number, or microseconds since 1970.

    ``zoned``: the column knows its time zone, so that a literal must have one too.
    """

    kind: Literal["integer", "time"]
    value: int
    zoned: bool = False

    def literal(self) -> str:
        """The place in SQL. Made of digits only, whatever the source has said."""
        if self.kind == "integer":
            return str(int(self.value))
        moment = _EPOCH + timedelta(microseconds=int(self.value))
        text = moment.strftime("%Y-%m-%d %H:%M:%S.%f")
        return f"TIMESTAMPTZ '{text}+00'" if self.zoned else f"TIMESTAMP '{text}'"

    def before(self, late: int) -> Mark:
        """The place so many seconds, or numbers, earlier."""
        step = late * 1_000_000 if self.kind == "time" else late
        return Mark(self.kind, self.value - step, self.zoned)


@dataclass(frozen=True)
class Since:
    """Only lines whose ``column`` is at or behind ``mark``."""

    column: str
    mark: Mark


class Source(Protocol):
    """Columns in batches."""

    @property
    def name(self) -> str:
        """Where the events come from, in words without a secret."""

    def batches(self, *, limit: int = 0, since: Since | None = None) -> Iterator[pl.DataFrame]:
        """Frames with the columns of the result, at most ``limit`` lines in all (0: every line).

        Raises: BadInputError if the source cannot be reached, refuses the query, or gives what cannot be read.
        """


def marks_of(column: pl.Series) -> tuple[pl.Series, Mark]:
    """A watermark column as whole numbers, ``Int64``, and what kind of place they are (its value is 0).

    Raises: BadInputError for a column that is neither a whole number nor a time.
    """
    kind = column.dtype
    if kind.is_integer():
        return column.cast(pl.Int64), Mark("integer", 0)
    if isinstance(kind, pl.Datetime):
        return column.dt.cast_time_unit("us").to_physical(), Mark("time", 0, kind.time_zone is not None)
    if kind == pl.Date:
        return column.cast(pl.Datetime("us")).to_physical(), Mark("time", 0)
    raise BadInputError(
        f"the watermark column {column.name!r} is of type {kind}",
        hint="a watermark is a whole number or a time that grows with every line; cast it in the query",
    )


def plain_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns that hold single values, bytes as text. A nested one is left out: in JSON one line may make it so."""
    frame = frame.select(name for name, kind in frame.schema.items() if not kind.is_nested())
    raw = [name for name, kind in frame.schema.items() if kind == pl.Binary]
    return frame.with_columns(pl.col(name).bin.encode("hex") for name in raw)


def required(module: str, what: str) -> Any:
    """Import a library of the extras ``sql`` and ``files``. Raises: ConfigError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{what} needs {module}, which is not installed",
            hint=f"pip install 'fedcart[{'files' if module == 'duckdb' else 'sql'}]'",
        ) from None


def first_line(error: BaseException) -> str:
    """What a library says, on one line and not too long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
