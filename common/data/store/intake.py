"""From batches of columns to parts on disk: every line typed, pseudonymised and judged as it comes; memory for a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

import common.data.cleaning as cleaning
import common.data.store.parts as on_disk
from common.data.cleaning import Counted
from common.data.events import pseudonyms
from common.data.formats import Mapping
from common.data.reading import Lines
from common.data.store.parts import Part
from common.data.typed import COUNTED_ONLY

PART_LINES = 1_000_000
PIECE_LINES = 1_000_000


@dataclass(frozen=True)
class Taken:
    """What an intake has put on disk. ``marks``: smallest and largest mark of the lines, where they have one."""

    folder: Path
    mapping: Mapping
    parts: tuple[Part, ...]
    counted: Counted
    sites: frozenset[str] = frozenset()
    marks: tuple[int, int] | None = None

    def pieces(self) -> Iterator[cleaning.Settled]:
        """The settled log in pieces, consumers ascending, each consumer whole in one of them. See ``pieces``."""
        return pieces(self.folder, self.parts, self.mapping)


@dataclass
class _Buffer:
    """Judged lines until there are enough for a part."""

    frames: list[pl.DataFrame] = field(default_factory=list)
    lines: int = 0

    def add(self, frame: pl.DataFrame) -> None:
        if frame.height:
            self.frames.append(frame)
            self.lines += frame.height

    def take(self) -> pl.DataFrame:
        frame = pl.concat(self.frames)
        self.frames, self.lines = [], 0
        return frame


def take_in(
    batches: Iterable[tuple[str, Lines]],
    mapping: Mapping,
    secret: bytes,
    folder: Path,
    *,
    first_part: int = 1,
    ranges: int = 0,
) -> Taken:
    """Put the lines of a log on disk under pseudonyms. ``ranges`` 0: one where all lines fit into one part.

    ``batches``: with what goes before an example of each. A column ``mark`` (Int64) of one goes with its lines.
    Raises: WorkFailedError if the disk is full; what the batches raise.
    """
    buffer, counted, parts = _Buffer(), Counted(), list[Part]()
    sites: set[str] = set()
    marks: list[int] = []

    def flush(width: int) -> None:
        path = folder / f"{first_part + len(parts):06d}{on_disk.SUFFIX}"
        parts.append(on_disk.write_part(path, buffer.take(), width))

    for where, batch in batches:
        lines = cleaning.typed_lines(batch.frame, mapping)
        lines = lines.with_columns(pseudonyms(lines["consumer"], secret).alias("consumer"))
        if on_disk.MARK in batch.frame.columns:
            lines = lines.with_columns(batch.frame[on_disk.MARK])
        if "site" in lines.columns:
            sites |= set(lines["site"].drop_nulls().unique())
        usable, judged = cleaning.judge(lines, mapping, where)
        counted = counted + judged + Counted.of_batch(batch, where)
        if on_disk.MARK in usable.columns and usable.height:
            marks += [usable[on_disk.MARK].min(), usable[on_disk.MARK].max()]  # type: ignore[list-item]
            marks = [min(marks), max(marks)]
        buffer.add(usable.select(_kept_columns(usable)))
        if buffer.lines >= PART_LINES:
            ranges = ranges or on_disk.MOST_RANGES
            flush(ranges)
    if buffer.lines:
        flush(ranges or 1)
    return Taken(folder, mapping, tuple(parts), counted, frozenset(sites), (marks[0], marks[1]) if marks else None)


def pieces(folder: Path, parts: tuple[Part, ...], mapping: Mapping) -> Iterator[cleaning.Settled]:
    """Parts as one settled log, in pieces of about ``PIECE_LINES`` lines.

    Guarantee: the pieces one after another are the log that ``clean`` makes of the same lines, bit for bit; a piece has
    every line of each of its consumers.
    Raises: BadInputError for a damaged part.
    """
    for first, last in on_disk.groups(parts, PIECE_LINES):
        lines = on_disk.read_ranges(folder, parts, first, last)
        if lines is not None:
            yield cleaning.settle(lines, mapping)


def _kept_columns(lines: pl.DataFrame) -> list[str]:
    return [name for name in lines.columns if name not in COUNTED_ONLY]
