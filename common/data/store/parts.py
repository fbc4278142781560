"""A part: some judged lines in one file, by ranges of pseudonyms, each range to be read without the others."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from common.atomic import CLOSE_ON_EXEC, disk_errors, make_durable
from common.data.formats import EVENT_TYPES
from common.errors import BadInputError

SUFFIX = ".part"
MOST_RANGES = 256
MARK = "mark"


@dataclass(frozen=True)
class Part:
    """One file of lines. Range i is at the bytes ``offsets[i]:offsets[i + 1]`` and has ``lines[i]`` lines.

    ``until``: lines whose mark is there or behind it were read again later and do not count; None: all count.
    """

    name: str
    offsets: tuple[int, ...]
    lines: tuple[int, ...]
    until: int | None = None

    @property
    def ranges(self) -> int:
        """Into how many ranges its lines are dealt."""
        return len(self.lines)


def write_part(path: Path, lines: pl.DataFrame, ranges: int) -> Part:
    """Write judged lines, the order of the lines of one consumer kept; durable, its owner's only.

    Raises: WorkFailedError if the disk does not take it.
    """
    number = _range_of(lines["consumer"], ranges)
    packed = lines.with_columns(pl.col("event").to_physical().cast(pl.UInt8))
    ordered = packed[np.argsort(number, kind="stable")]
    counts = np.bincount(number, minlength=ranges)
    starts = np.concatenate([[0], np.cumsum(counts)])
    offsets = [0]
    with disk_errors(path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | CLOSE_ON_EXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            for start, size in zip(starts, counts, strict=False):
                if size:
                    buffer = io.BytesIO()
                    ordered.slice(int(start), int(size)).write_ipc_stream(buffer, compression="lz4")
                    file.write(buffer.getbuffer())
                offsets.append(file.tell())
            file.flush()
            make_durable(file.fileno())
    return Part(path.name, tuple(offsets), tuple(int(n) for n in counts))


def read_ranges(folder: Path, parts: Sequence[Part], first: int, last: int) -> pl.DataFrame | None:
    """The lines of the ranges ``first`` to ``last`` (not included) of all parts, oldest part first; None if there are none.

    Raises: BadInputError for a part that is missing or damaged.
    """
    frames = [frame for part in parts for frame in _read(folder / part.name, part, first, last)]
    if not frames:
        return None
    lines = pl.concat(frames, how="vertical")
    return lines.with_columns(pl.Series("event", _event_types(lines["event"])))


def groups(parts: Sequence[Part], most_lines: int) -> Iterator[tuple[int, int]]:
    """Neighbouring ranges that together have about so many lines at most (one range may have more)."""
    if not parts:
        return
    sizes = np.sum([part.lines for part in parts], axis=0)
    first, held = 0, 0
    for number, size in enumerate(sizes):
        if held and held + size > most_lines:
            yield first, number
            first, held = number, 0
        held += int(size)
    yield first, len(sizes)


def _read(path: Path, part: Part, first: int, last: int) -> Iterator[pl.DataFrame]:
    if part.offsets[first] == part.offsets[last]:
        return
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != part.offsets[-1]:
                raise OSError("cut off")
            for number in range(first, last):
                start, end = part.offsets[number], part.offsets[number + 1]
                if start == end:
                    continue
                file.seek(start)
                lines = pl.read_ipc_stream(io.BytesIO(file.read(end - start)))
                if lines.height != part.lines[number]:
                    raise OSError("lines are missing")
                if part.until is not None:
                    lines = lines.filter(pl.col(MARK) < part.until)
                if lines.height:
                    yield lines.drop(MARK, strict=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadInputError(
            f"{path} is damaged: {type(error).__name__}", hint="remove the folder: the events are read again"
        ) from None


def _range_of(consumers: pl.Series, ranges: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Ranges of equal width, ascending with the pseudonym; ``ranges`` is a power of two."""
    width = ranges.bit_length() - 1
    ids = consumers.to_numpy()
    return (ids >> np.uint64(64 - width)).astype(np.int64) if width else np.zeros(len(ids), dtype=np.int64)


def _event_types(physical: pl.Series) -> pl.Series:
    kind = pl.Enum(EVENT_TYPES)
    return pl.Series(list(EVENT_TYPES), dtype=kind).gather(physical.cast(pl.UInt32))
