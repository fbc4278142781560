"""A log in pieces, each consumer whole in one of them: of a file of any size, in the memory of one piece."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping as Map
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

import common.data.cleaning as cleaning
import common.data.formats as formats
import common.data.reading as reading
from common.data.cleaning import CleaningReport, Counted
from common.data.events import EventLog, mappings_of, opened_events, refuse_auto
from common.data.formats import Mapping
from common.data.rules import report_rules
from common.data.store.intake import Taken, take_in
from common.data.store.streaming import file_batches, named_batches


@dataclass(frozen=True)
class FileLog:
    """An event file that is read in batches. ``scratch``: folder in which its lines are spilled while it is read."""

    path: Path
    format: str
    mapping: Mapping | None
    secret: bytes
    scratch: Path
    site_column: str = ""

    def pieces(self, tally: Tally | None = None) -> Iterator[EventLog]:
        """The log that ``load_events`` gives, in pieces of consumers in ascending order; nothing for a blank file.

        ``tally`` gathers the report on the way; it is whole when the iteration is.
        Guarantee: one after another the pieces are that log, bit for bit.
        Raises: BadInputError as ``load_events`` does, but not for a file without a usable line; WorkFailedError (disk).
        """
        if reading.is_blank(self.path):
            return
        refuse_auto(self.format, self.mapping)
        mapping, header = reading.choose_mapping(self.path, mappings_of(self.format, self.mapping))
        if self.site_column:
            mapping = mapping.with_site_column(formats.resolve_site_column(self.site_column, mapping, header))
        with tempfile.TemporaryDirectory(prefix=".spill-", dir=self.scratch) as spill:
            taken = take_in(file_batches(self.path, mapping), mapping, self.secret, Path(spill))
            for frame in settled_frames(taken, tally):
                yield EventLog(cleaning.add_product_categories(frame, mapping, self.path))

    def report(self, tally: Tally) -> CleaningReport:
        """What cleaning did, once all pieces were gone through."""
        return tally.report(self.path.name, self.format)


Step = Callable[[int], None]
"""Called with the number of lines that were read so far."""


def ignored(_lines: int) -> None:
    """The step of who shows no progress."""


@dataclass(frozen=True)
class OpenedLog:
    """Events under the mapping that was named or recognised, to be read in pieces. ``notes``: what they were taken for."""

    opened: reading.EventFiles
    notes: tuple[str, ...]
    path: str

    @classmethod
    def of(
        cls, path: Path | str, format_name: str, *, site_column: str = "", said: Map[str, str] | None = None
    ) -> OpenedLog:
        """Look at a source: file, folder, pattern, ``-``. Raises: BadInputError, ConfigError, as ``load_events``."""
        opened, notes = opened_events(path, format_name, None, site_column, said)
        return cls(opened, notes, str(path))

    @property
    def mapping(self) -> Mapping:
        """What its columns mean."""
        return self.opened.mapping

    def pieces(self, secret: bytes, tally: Tally | None = None, step: Step = ignored) -> Iterator[EventLog]:
        """The log that ``load_events`` gives, in pieces of consumers in ascending order; memory for one piece.

        What does not fit lies under pseudonyms in a private folder of the temporary directory while it is read.
        Raises: as ``load_events``, but not for a log without a usable line; WorkFailedError (disk).
        """
        with tempfile.TemporaryDirectory(prefix="fedcart-") as spill:
            taken = take_in(_stepping(named_batches(self.opened), step), self.mapping, secret, Path(spill))
            for frame in settled_frames(taken, tally):
                yield EventLog(cleaning.add_product_categories(frame, self.mapping, self.path))

    def report(self, tally: Tally) -> CleaningReport:
        """What cleaning did, once all pieces were gone through. Raises: BadInputError if no line is usable."""
        report = tally.report(Path(self.path).name or self.path, self.mapping.name)
        report = replace(
            report, notes=self.notes, constant=self.mapping.constant_features, passed_over=self.opened.doubtful
        )
        cleaning.refuse_unusable(report)
        return report


def _stepping(batches: Iterable[tuple[str, reading.Lines]], step: Step) -> Iterator[tuple[str, reading.Lines]]:
    lines = 0
    for where, batch in batches:
        yield where, batch
        lines += batch.frame.height
        step(lines)


def settled_frames(taken: Taken, tally: Tally | None = None) -> Iterator[pl.DataFrame]:
    """The settled pieces of what was taken in; ``tally`` gathers the report on the way."""
    if tally is not None:
        tally.begin(taken)
    for piece in taken.pieces():
        if tally is not None:
            tally.add(piece)
        yield piece.frame


@dataclass
class Tally:
    """The report of a log that is seen in pieces."""

    kept: int = 0
    consumers: int = 0
    items: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.String))
    sites: set[str] = field(default_factory=set)
    first: str = ""
    last: str = ""
    counted: Counted = field(default_factory=Counted)
    _taken: Taken | None = None

    def begin(self, taken: Taken) -> None:
        """Take over what was counted when the lines were taken in."""
        self._taken, self.counted = taken, taken.counted

    def add(self, piece: cleaning.Settled) -> None:
        """Count one piece."""
        frame = piece.frame
        self.kept += frame.height
        self.consumers += frame["consumer"].n_unique()
        self.items = pl.concat([self.items, frame["item"].drop_nulls().unique()]).unique()
        if "site" in frame.columns:
            self.sites |= set(frame["site"].unique())
        if frame.height:
            first, last = str(frame["timestamp"].min()), str(frame["timestamp"].max())
            self.first, self.last = min(self.first or first, first), max(self.last, last)
        self.counted = self.counted + piece.counted

    def report(self, source: str, format_name: str) -> CleaningReport:
        """As ``clean`` reports of the same lines in memory."""
        if self._taken is None:
            return cleaning.empty_report(source, format_name)
        return CleaningReport(
            source=source,
            format=self._taken.mapping.name,
            lines=self.counted.lines,
            kept=self.kept,
            consumers=self.consumers,
            items=len(self.items),
            sites=len(self.sites),
            sites_lost=tuple(sorted(set(self._taken.sites) - self.sites)),
            first=self.first,
            last=self.last,
            rules=report_rules(self._taken.mapping, self.counted),
            blank=self.counted.blank,
            spanned=self.counted.spanned,
            headers=self.counted.headers,
        )
