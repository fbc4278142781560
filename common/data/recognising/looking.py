"""How an unknown table is stored: its encoding from all of its bytes, whether it has a header, a sample of its lines."""

from __future__ import annotations

import codecs
from collections.abc import Mapping as Map

import polars as pl

import common.data.reading.encoding as encodings
import common.data.reading.files as files
import common.data.recognising.names as names
from common.data.formats import Mapping
from common.data.reading.tables import MOST_ABOVE, Table, first_text_lines, separator_of, table_batches, table_of
from common.data.recognising.moments import time_form
from common.errors import BadInputError

_SAMPLE = 20_000
_PLAIN = Mapping(name="plain", columns={"consumer": "consumer", "timestamp": "timestamp"}, default_event="other")


def look(member: files.Member, said: Map[str, str]) -> Table:
    """A table as it is stored; the encoding of text from all of its bytes."""
    encoding = said.get("encoding", "")
    plain = _PLAIN.model_copy(
        update={"separator": said.get("separator", "").replace("\\t", "\t"), "encoding": encoding}
    )
    table = table_of(member, plain)
    if table.kind == "text" and not encoding and table.encoding == "utf-8":
        spoken = _encoding_of(member)
        if spoken != "utf-8":
            plain = plain.model_copy(update={"encoding": spoken})
            table = table_of(member, plain)
    if table.kind == "text" and not any(names.is_known(name) for name in table.header):
        table = _below_other_lines(table, plain)
    return _without_header(table) if table.kind == "text" and not _has_header(table) else table


def _below_other_lines(table: Table, plain: Mapping) -> Table:
    """The table with the first line as its header that names who and when; as it was if no line near its beginning does."""
    from common.data.reading.text import header_of

    start = files.head(table.member)
    for line in first_text_lines(table.member, start, table.encoding)[:MOST_ABOVE]:
        header = header_of(line, plain.separator or separator_of(line))
        who = names.best(names.NAMES["consumer"], header, {})
        when = names.best(names.NAMES["timestamp"], header, {"consumer": who})
        if who and when:
            columns = {"consumer": who, "timestamp": when}
            return table_of(table.member, plain.model_copy(update={"columns": columns}))
    return table


def _encoding_of(member: files.Member) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    wide: list[bytes] = []
    broken = 0
    with files.readable(member.path), files.opened(member) as file:
        while block := file.read(encodings.CHUNK_BYTES):
            try:
                decoder.decode(block)
                continue
            except UnicodeDecodeError:
                decoder.reset()
            lines = [line for line in block.split(b"\n")[1:-1] or [block] if not line.isascii()]
            broken += sum(not encodings.reads(line, "utf-8") for line in lines[:_SAMPLE])
            wide += lines[:_SAMPLE]
    if not broken or broken < 0.1 * len(wide):
        return "utf-8"  # the few that are broken drop themselves
    return encodings.guessed(b"\n".join(wide)[: 1 << 22])


def _has_header(table: Table) -> bool:
    if any(names.is_known(name) for name in table.header):
        return True
    values = pl.Series([name for name in table.header if name], dtype=pl.String)
    looks_like_data = values.cast(pl.Float64, strict=False).is_not_null().any() or any(
        time_or_none(value) for value in values
    )
    return not looks_like_data


def time_or_none(value: str) -> bool:
    """Whether one text is a time that tells itself."""
    try:
        return time_form(pl.Series([value])).share > 0
    except BadInputError:
        return True


def _without_header(table: Table) -> Table:
    labels = tuple(f"column{number}" for number in range(1, len(table.header) + 1))
    return Table(
        table.member, table.kind, labels, table.separator, table.encoding, table.newline, has_header=False
    )


def sample_of(table: Table) -> pl.DataFrame:
    """Lines from the whole of the first batch, every column."""
    frame = next(iter(table_batches(table, table.header))).frame
    step = max(1, frame.height // _SAMPLE)
    return frame.gather_every(step) if frame.height else frame


def named_encoding(table: Table) -> str:
    """The encoding as a mapping must name it; "" where the file declares it or it is UTF-8."""
    plain = table.kind != "text" or table.encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32")
    return "" if plain else table.encoding


def stored(table: Table) -> str:
    """How a table is stored, in words."""
    words = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
    how = {"parquet": "Parquet", "arrow": "Arrow", "json": "JSON"}.get(table.kind)
    above = f"; {table.above} lines above its header are passed over" if table.above else ""
    return (
        how or f"text in {table.encoding}, separated by {words.get(table.separator, repr(table.separator))}{above}"
    )
