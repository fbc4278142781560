"""A log that comes from a ``Source``: read whole each time, or from a watermark on, what was read before being kept on disk.

What is kept are judged lines under pseudonyms, in a folder of the site's state, with ``reading.json`` beside them: how far
was read, and from which query, mapping and key. Another of these, and everything is read anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import polars as pl

import common.data.store.parts as on_disk
from common.atomic import CLOSE_ON_EXEC, lock, write_atomic
from common.data.events import EventLog, mappings_of, refuse_auto
from common.data.formats import Mapping, missing_columns
from common.data.presets import OPTIONAL_COLUMNS
from common.data.reading import LINE, Lines
from common.data.sources.opening import open_source, source_settings
from common.data.sources.source import Mark, Since, Source, marks_of
from common.data.store.intake import Taken, take_in
from common.data.store.logs import Step, Tally, ignored, settled_frames
from common.data.store.parts import Part
from common.errors import BadInputError

READING_FILE = "reading.json"


@dataclass(frozen=True)
class SourceLog:
    """The events of a source. ``folder``: where they are kept, or spilled; ``identity``: what the source is, in words.

    ``watermark`` "" reads everything each time; ``late``: see ``SourceSettings``.
    """

    source: Source
    format: str
    mapping: Mapping | None
    secret: bytes
    folder: Path
    identity: str
    watermark: str = ""
    late: int = 0

    def pieces(self, tally: Tally | None = None) -> Iterator[EventLog]:
        """The cleaned log in pieces of consumers in ascending order; memory for one piece.

        Guarantee: a reading from a watermark on gives the log that a reading of everything gives, if no line changes that
        lies further behind the watermark than ``late``.
        Raises: BadInputError if the source cannot be read or lacks a column; WorkFailedError (disk).
        """
        refuse_auto(self.format, self.mapping)
        if not self.watermark:
            with tempfile.TemporaryDirectory(prefix=".spill-", dir=self.folder) as spill:
                yield from self._logs(self._read(Path(spill), None, 1), tally)
            return
        with _alone(self.folder):
            yield from self._logs(self._read_on(), tally)

    def _logs(self, taken: Taken | None, tally: Tally | None) -> Iterator[EventLog]:
        if taken is not None:
            yield from map(EventLog, settled_frames(taken, tally))

    def _read(self, folder: Path, since: Since | None, first_part: int, ranges: int = 0) -> Taken | None:
        """None where the source gives no line at all."""
        frames = self.source.batches(since=since)
        first = next(frames, None)
        if first is None:
            return None
        mapping = self._fitting(first.columns)

        def lines() -> Iterator[tuple[str, Lines]]:
            number = 0
            for frame in chain((first,), frames):
                yield "", self._lines(frame, mapping, number)
                number += frame.height

        return take_in(lines(), mapping, self.secret, folder, first_part=first_part, ranges=ranges)

    def _fitting(self, header: list[str]) -> Mapping:
        """The mapping that reads these columns. Raises: BadInputError naming what is there and what is missing."""
        lacks: list[str] = []
        for mapping in mappings_of(self.format, self.mapping):
            fitted = mapping.fitted(header)
            missing = missing_columns(fitted, header, OPTIONAL_COLUMNS.get(mapping.name, ()))
            if not missing:
                return fitted
            lacks = lacks or missing
        raise BadInputError(
            f"the query of [source] gives the columns {', '.join(header)}; {', '.join(lacks)} is missing",
            hint="name columns with AS, single values out of nested ones too, or name a mapping in site.toml",
        )

    def _lines(self, frame: pl.DataFrame, mapping: Mapping, before: int) -> Lines:
        wanted = [name for name in mapping.source_columns if name in frame.columns]
        numbers = pl.Series(LINE, range(before + 1, before + 1 + frame.height), dtype=pl.Int64)
        made, last = frame.select(wanted).with_columns(numbers), before + frame.height
        if not self.watermark:
            return Lines(made, last=last)
        made = made.with_columns(self._marks(frame)[0].alias(on_disk.MARK))
        lost = int(made[on_disk.MARK].null_count())  # it would be read never again, or each time: it drops itself
        example = f"without {self.watermark!a}, the watermark" if lost else ""
        return Lines(made.drop_nulls(on_disk.MARK), malformed=lost, example=example, last=last)

    def _marks(self, frame: pl.DataFrame) -> tuple[pl.Series, Mark]:
        if self.watermark not in frame.columns:
            raise BadInputError(
                f"the query of [source] gives no column {self.watermark!r}, its watermark",
                hint=f"it gives {', '.join(frame.columns)}",
            )
        return marks_of(frame[self.watermark])

    def _read_on(self) -> Taken | None:
        """What was kept, and what the source has from the watermark on."""
        kept = self._kept()
        since = Since(self.watermark, kept.mark.before(self.late)) if kept.mark and kept.parts else None
        probe = _KindProbe(self.source, self)
        taken = replace(self, source=probe)._read(self.folder, since, kept.next_part, on_disk.MOST_RANGES)
        if taken is None:
            return None
        old = [part if since is None else _cut(part, since.mark.value) for part in kept.parts]
        parts = (*old, *taken.parts)
        highest = max([*(taken.marks or ())[1:], *([kept.mark.value] if kept.mark else [])], default=None)
        mark = replace(probe.kind, value=highest) if probe.kind and highest is not None else kept.mark
        _Kept(self._stamp(), parts, mark, kept.next_part + len(taken.parts)).write(self.folder)
        return replace(taken, parts=parts)

    def _kept(self) -> _Kept:
        found = _Kept.read(self.folder)
        if found is not None and found.stamp == self._stamp():
            return found
        for path in self.folder.glob(f"*{on_disk.SUFFIX}"):
            path.unlink()
        return _Kept(self._stamp(), (), None, 1)

    def _stamp(self) -> str:
        mapping = self.mapping.to_toml() if self.mapping else self.format
        key = hashlib.blake2b(b"reading", key=self.secret, digest_size=16).hexdigest()
        return hashlib.sha256(repr((self.identity, mapping, self.watermark, key)).encode()).hexdigest()


@dataclass
class _KindProbe:
    """A source that notes what kind of place its watermark is."""

    source: Source
    log: SourceLog
    kind: Mark | None = None

    @property
    def name(self) -> str:
        return self.source.name

    def batches(self, *, limit: int = 0, since: Since | None = None) -> Iterator[pl.DataFrame]:
        for frame in self.source.batches(limit=limit, since=since):
            self.kind = self.log._marks(frame)[1]
            yield frame


@dataclass(frozen=True)
class _Kept:
    """What ``reading.json`` says."""

    stamp: str
    parts: tuple[Part, ...]
    mark: Mark | None
    next_part: int

    @classmethod
    def read(cls, folder: Path) -> _Kept | None:
        """None where nothing was read before, or the file is damaged: then everything is read again."""
        try:
            tree = json.loads((folder / READING_FILE).read_text(encoding="utf-8"))
            parts = tuple(
                Part(p["name"], tuple(p["offsets"]), tuple(p["lines"]), p["until"]) for p in tree["parts"]
            )
            return cls(tree["stamp"], parts, Mark(**tree["mark"]) if tree["mark"] else None, tree["next_part"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        write_atomic(folder / READING_FILE, json.dumps(asdict(self), allow_nan=False).encode(), mode=0o600)


def _cut(part: Part, until: int) -> Part:
    return replace(part, until=until if part.until is None else min(part.until, until))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two processes of a site read one after the other."""
    fd = os.open(folder, os.O_RDONLY | CLOSE_ON_EXEC)
    try:
        lock(fd)
        yield
    finally:
        os.close(fd)


def sample(source: Source, path: Path, limit: int = 0, step: Step = ignored) -> int:
    """Write what a source gives as one Parquet file, its owner's only: for `data check` and simulations. Lines written.

    Raises: BadInputError if the source gives no line.
    """
    import pyarrow.parquet as pq

    from common.atomic import disk_errors

    lines, writer = 0, None
    with disk_errors(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOSE_ON_EXEC, 0o600))
        try:
            for frame in source.batches(limit=limit):
                table = frame.to_arrow()
                writer = writer or pq.ParquetWriter(path, table.schema)
                writer.write_table(table.cast(writer.schema))
                lines += frame.height
                step(lines)
        finally:
            if writer is not None:
                writer.close()
    if not lines:
        raise BadInputError(f"{source.name} gives no line", hint="try its query in the database's own client")
    return lines


@contextmanager
def spooled(settings_file: Path, limit: int = 0, step: Step = ignored) -> Iterator[Path]:
    """What the ``[source]`` of a TOML file gives, as a private Parquet file for the life of the block.

    Raises: BadInputError, WorkFailedError.
    """
    settings = source_settings(settings_file)
    with tempfile.TemporaryDirectory(prefix="fedcart-") as name:  # readable by its owner only
        path = Path(name) / f"{settings_file.stem}.parquet"
        sample(open_source(settings, settings_file.resolve().parent, Path(name)), path, limit, step)
        yield path
