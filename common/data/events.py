"""``EventLog``: one party's cleaned events, sorted by consumer and time, ids pseudonymised.

The original id of a consumer ends here: it is replaced by a keyed hash before anything else happens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping as Map
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

import common.data.cleaning as cleaning
import common.data.formats as formats
import common.data.presets as presets
import common.data.reading as reading
from common.data.cleaning import CleaningReport, Counted
from common.data.formats import EVENT_TYPES, Mapping
from common.data.reading import EventFiles
from common.data.recognising import AUTO, recognise
from common.errors import BadInputError, ConfigError

__all__ = ["EVENT_TYPES", "CleaningReport", "EventLog", "load_events", "pseudonym", "pseudonyms"]

MAPPING_HINT = "fedcart data check FILE --write-mapping events.toml, and name that in site.toml"
_FLOAT_ID = re.compile(r"^(\d+)\.0+$")


@cache
def schema() -> dict[str, pl.DataType]:
    """Columns of a log and their types. A function: at a site, modules are imported before polars is loaded."""
    return {
        "consumer": pl.UInt64(),
        "timestamp": pl.Datetime("us"),
        "event": pl.Enum(EVENT_TYPES),
        "item": pl.String(),
        "category": pl.String(),
        "price": pl.Float32(),
        "quantity": pl.Float32(),
    }


@dataclass(frozen=True)
class EventLog:
    """Cleaned events of one party.

    Shapes: ``frame`` has one line per event, columns ``consumer`` (pseudonym, UInt64), ``timestamp``
    (microseconds, UTC), ``event`` (Enum of ``EVENT_TYPES``), ``item``, ``category`` (String),
    ``price``, ``quantity`` (Float32), and ``site`` (String) where the log knows it.
    Guarantee: sorted by consumer, then time; equal times keep the order of the file.
    """

    frame: pl.DataFrame

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> EventLog:
        """Bring a frame into schema and order; absent optional columns become empty ones.

        Raises: BadInputError if ``consumer``, ``timestamp`` or ``event`` is missing or of a wrong type.
        """
        missing = [name for name in ("consumer", "timestamp", "event") if name not in frame.columns]
        if missing:
            raise BadInputError(f"event frame lacks {missing}", hint="see the schema in docs/data.md")
        columns = [
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
            for name, kind in schema().items()
        ]
        if "site" in frame.columns:
            columns.append(pl.col("site").cast(pl.String))
        try:
            typed = frame.select(columns)
        except pl.exceptions.PolarsError as error:
            raise BadInputError(
                f"event frame has a wrong type: {error}", hint="see the schema in docs/data.md"
            ) from None
        return cls(typed.sort("consumer", "timestamp", maintain_order=True))

    def __len__(self) -> int:
        return self.frame.height

    def __repr__(self) -> str:
        return f"EventLog({self.frame.height} events)"

    @property
    def consumers(self) -> NDArray[np.uint64]:
        """The pseudonyms, ascending, each once: ``uint64[consumers]``."""
        return self.frame["consumer"].to_numpy()[self.offsets[:-1]]

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each consumer's events begin, and the end: ``int64[consumers + 1]``."""
        ids = self.frame["consumer"].to_numpy()
        starts = np.flatnonzero(ids[1:] != ids[:-1]) + 1
        ends = [len(ids)] if len(ids) else []
        return np.concatenate([[0], starts, ends]).astype(np.int64)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites in the log, sorted; empty where the log has no site column."""
        return tuple(self.frame["site"].unique().sort()) if "site" in self.frame.columns else ()

    def where(self, mask: pl.Expr | pl.Series) -> EventLog:
        """The events for which ``mask`` holds, in the same order."""
        return EventLog(self.frame.filter(mask))

    def at_site(self, site: str) -> EventLog:
        """The events of one site."""
        return self.where(pl.col("site") == site)

    def item_ids(self) -> tuple[str, ...]:
        """The distinct items, sorted."""
        return tuple(self.frame["item"].drop_nulls().unique().sort())


def pseudonym(original: str, secret: bytes) -> int:
    """The pseudonym of one consumer id: keyed BLAKE2b, 64 bits.

    Surrounding blanks and the ``.0`` that spreadsheets append to whole numbers are not part of an id.
    Guarantee: without ``secret`` (at most 64 bytes) the id cannot be found by trying all ids.
    Source: RFC 7693, section 2.9 (keyed mode).
    """
    if not 1 <= len(secret) <= 64:
        raise ConfigError(f"secret has {len(secret)} bytes, 1 to 64 are possible", hint="32 random bytes do well")
    plain = _FLOAT_ID.sub(r"\1", original.strip())
    digest = hashlib.blake2b(plain.encode(), key=secret, digest_size=8, person=b"fedcart-consumer").digest()
    return int.from_bytes(digest, "little")


def pseudonyms(ids: pl.Series, secret: bytes) -> pl.Series:
    """Pseudonyms of a column of ids; a missing or blank id stays missing. Each distinct id is hashed once."""
    distinct = ids.drop_nulls().unique()
    hashed = [pseudonym(original, secret) if original.strip() else None for original in distinct]
    return ids.replace_strict(distinct, pl.Series(hashed, dtype=pl.UInt64), default=None, return_dtype=pl.UInt64)


def load_events(
    path: Path | str,
    format: str = "fedcart",  # noqa: A002 the word of the command line
    mapping: Mapping | None = None,
    *,
    secret: bytes,
    site_column: str = "",
    tolerant: bool = False,
    said: Map[str, str] | None = None,
) -> tuple[EventLog, CleaningReport]:
    """Read, map, clean, pseudonymise and sort events: a file, a folder, a pattern, ``-`` for standard input.

    ``format`` is a preset, the path of a TOML mapping, or ``auto``; ``mapping`` overrides it; ``said``: what is
    known of an unknown file, our column or a setting of a mapping by name. ``site_column`` reads
    the site from that column of the file. ``tolerant``: a file without a usable line is an empty log (a started site
    must not tell by an error that it has none).
    Guarantee: every line of the file is either in the log or counted, with its reason, in the report.
    Raises: BadInputError if the file cannot be read, does not fit the format, or has no usable line.

    Example:
        >>> log, report = load_events("shop.csv", "fedcart", secret=bytes(32))  # doctest: +SKIP
    """
    if tolerant:
        refuse_auto(format, mapping)
    if tolerant and reading.is_blank(path):
        nothing = EventLog.from_frame(pl.DataFrame(schema=schema()))
        return nothing, cleaning.empty_report(Path(path).name, format)
    opened, notes = opened_events(path, format, mapping, site_column, said)
    source = Path(path).name or str(path)
    chosen, counted, kept = opened.mapping, Counted(), list[pl.DataFrame]()
    sites: set[str] = set()
    several = len(opened.tables) > 1
    for name, batch in opened.batches():
        lines = cleaning.typed_lines(batch.frame, chosen)
        lines = lines.with_columns(pseudonyms(lines["consumer"], secret).alias("consumer"))
        if "site" in lines.columns:
            sites |= set(lines["site"].drop_nulls().unique())
        where = f"{name} " if several else ""
        usable, judged = cleaning.judge(lines, chosen, where)
        counted = counted + judged + Counted.of_batch(batch, where)
        kept.append(usable)
    settled = cleaning.settle(pl.concat(kept), chosen)
    report = cleaning.report_of(settled.frame, counted + settled.counted, chosen, source, sites)
    report = replace(report, notes=notes, constant=chosen.constant_features, passed_over=opened.doubtful)
    if not tolerant:
        cleaning.refuse_unusable(report)
    return EventLog(cleaning.add_product_categories(settled.frame, chosen, path)), report


def refuse_auto(format_name: str, mapping: Mapping | None) -> None:
    """Return if a site says what its file means. Raises: ConfigError: what is recognised depends on consumers' lines."""
    if mapping is None and format_name in ("", AUTO):
        raise ConfigError("a started site must know what its file means before it reads it", hint=MAPPING_HINT)


def opened_events(
    path: Path | str,
    format_name: str,
    mapping: Mapping | None = None,
    site_column: str = "",
    said: Map[str, str] | None = None,
) -> tuple[EventFiles, tuple[str, ...]]:
    """A source under the mapping that is named or, for ``auto``, recognised; and what it was taken for.

    Raises: BadInputError that says what was found if nothing fits.
    """
    notes: tuple[str, ...] = ()
    if said and (mapping is not None or format_name not in ("", AUTO)):
        raise ConfigError("--map goes with a recognised format", hint="leave --format out, or change its mapping")
    if mapping is None and format_name in ("", AUTO):
        found = recognise(path, said)
        mapping, notes = found.mapping, found.notes
    opened = reading.open_files(path, mappings_of(format_name, mapping))
    if site_column:
        named = formats.resolve_site_column(site_column, opened.mapping, opened.header)
        opened = replace(opened, mapping=opened.mapping.with_site_column(named))
    if opened.continued:
        notes = (
            *notes,
            f"without a header, read with the columns of the others: {', '.join(opened.continued[:8])}",
        )
    if opened.passed_over:
        notes = (*notes, f"passed over, not events: {', '.join(opened.passed_over[:8])}")
    return opened, notes


def original_ids(path: Path | str, format_name: str) -> list[str]:
    """Every consumer's id in a source as it was written, each once: for its owner only. Raises: BadInputError."""
    opened, _ = opened_events(path, format_name)
    found: set[str] = set()
    for _, batch in opened.batches():
        found |= set(cleaning.typed_lines(batch.frame, opened.mapping)["consumer"].drop_nulls().unique())
    return sorted(found)


def mappings_of(format_name: str, mapping: Mapping | None = None) -> tuple[Mapping, ...]:
    """The mappings that ``--format`` means: a preset, or the path of a TOML file. Raises: BadInputError."""
    if mapping is not None:
        return (mapping,)
    if format_name.endswith(".toml"):
        return (formats.load_mapping(Path(format_name)),)
    return presets.preset(format_name)


def joined(pieces: Iterable[EventLog]) -> EventLog:
    """One log of pieces that follow each other in order; an empty one of none."""
    frames = [piece.frame for piece in pieces]
    return EventLog(pl.concat(frames)) if frames else EventLog.from_frame(pl.DataFrame(schema=schema()))


def concatenate(logs: Iterable[EventLog]) -> EventLog:
    """One log of several, sorted again; a site column is kept only where all have it."""
    frames = [log.frame for log in logs]
    if not frames:
        return EventLog.from_frame(pl.DataFrame(schema=schema()))
    shared = [name for name in frames[0].columns if all(name in frame.columns for frame in frames)]
    return EventLog.from_frame(pl.concat([frame.select(shared) for frame in frames]))
