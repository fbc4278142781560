"""Events from local files through DuckDB's SQL: joins, filters, nested fields.

Guarantee: the query sees the named files and nothing else. DuckDB is closed to the network, to extensions and to every
other file before the first word of the query is read, and its configuration is locked. Nothing is downloaded.
"""

from __future__ import annotations

import glob
import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from common.data.sources.arrow import frame_of
from common.data.sources.source import BATCH_ROWS, Since, first_line, required
from common.data.sources.sql import quoted, wrapped
from common.errors import BadInputError
from common.source_settings import SourceSettings

MEMORY = "1GB"
_SWITCHES = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET preserve_insertion_order = true",
    "SET TimeZone = 'UTC'",
)
_READERS = {
    ".parquet": "read_parquet", ".csv": "read_csv", ".tsv": "read_csv", ".txt": "read_csv", ".json": "read_json",
    ".jsonl": "read_json", ".ndjson": "read_json",
}  # fmt: skip
_PACKED = (".gz", ".zst")
_JSON_LINES = ", format = 'newline_delimited', ignore_errors = true, records = true"  # a bad line is an empty one


@dataclass(frozen=True)
class FilesSource:
    """A query over local files. ``folder``: where relative paths start; ``scratch``: where a folder to spill into is made."""

    settings: SourceSettings
    folder: Path
    scratch: Path | None = None

    @property
    def name(self) -> str:
        """The views, in words."""
        return f"files {', '.join(self.settings.files)}"

    def paths(self) -> dict[str, list[Path]]:
        """The files of each view, sorted. Raises: BadInputError for one without a file, or of an unknown kind."""
        return {name: self._paths(name, places) for name, places in self.settings.files.items()}

    def batches(self, *, limit: int = 0, since: Since | None = None) -> Iterator[pl.DataFrame]:
        """Frames of the query's result, see ``Source``."""
        duckdb = required("duckdb", "a source of kind files")
        required("pyarrow", "a source of kind files")
        query = self.settings.sql(self.folder)
        try:
            with (
                tempfile.TemporaryDirectory(prefix=".spill-", dir=self.scratch) as spill,
                closing(duckdb.connect(":memory:")) as connection,
            ):
                self._close(connection, _as_text(self.paths(), Path(spill)), spill)
                self._require_select(duckdb, connection, query)
                relation = connection.sql(wrapped(query, limit=limit, since=since))
                for batch in relation.to_arrow_reader(BATCH_ROWS):
                    yield frame_of(batch)
        except (duckdb.Error, OSError) as error:
            if (
                isinstance(error, OSError) and error.errno is not None
            ):  # the disk's; Arrow has none where DuckDB refuses
                raise
            raise BadInputError(
                f"DuckDB refuses the query of [source]: {first_line(error)}",
                hint="it may read the views of `files` and nothing else, and columns of CSV are text: TRY_CAST(price AS DOUBLE); "
                "docs/data.md has examples",
            ) from None

    def _paths(self, name: str, places: str | tuple[str, ...]) -> list[Path]:
        found: list[Path] = []
        for place in (places,) if isinstance(places, str) else places:
            if "://" in place:
                raise BadInputError(
                    f"{name}: {place} is not on this machine",
                    hint="copy it here, or see object stores in docs/data.md",
                )
            whole = str(self.folder / place)
            matches = [Path(match) for match in sorted(glob.glob(whole, recursive=True))]
            found += [match.resolve() for match in matches if match.is_file()]
        if not found:
            raise BadInputError(f"no file for the view {name}: {places}", hint="check `files` of [source]")
        kinds = {_reader_of(path) for path in found}
        if len(kinds) > 1 or "" in kinds:
            raise BadInputError(
                f"the view {name} has files of {'several kinds' if len(kinds) > 1 else 'an unknown kind'}",
                hint=f"one of {', '.join(_READERS)}, also with {' or '.join(_PACKED)}",
            )
        return found

    def _close(self, connection: Any, paths: dict[str, list[Path]], spill: str) -> None:
        """Make the views, and leave no way to anything else but an empty folder of its own."""
        for switch in _SWITCHES:
            connection.execute(switch)
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute(f"SET temp_directory = {_text(spill)}")
        every = sorted({str(path) for files in paths.values() for path in files})
        connection.execute(f"SET allowed_paths = [{', '.join(map(_text, every))}]")
        connection.execute("SET enable_external_access = false")
        for name, files in paths.items():
            reader, listed = _reader_of(files[0]), ", ".join(_text(str(path)) for path in files)
            reader = "read_parquet" if reader == "read_csv" else reader  # as _as_text has written them
            lines = _JSON_LINES if _is_json_lines(files[0]) else ""
            more = (", union_by_name = true" if len(files) > 1 else "") + lines
            rows = f"SELECT * FROM {reader}([{listed}]{more})"  # noqa: S608 - quoted
            connection.execute(f'CREATE VIEW "{name}" AS {_plain_values(connection, rows) if lines else rows}')
        connection.execute("SET lock_configuration = true")

    def _require_select(self, duckdb: Any, connection: Any, query: str) -> None:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise BadInputError("the query of [source] is not one SELECT", hint="a source is read, never written")


def _as_text(paths: dict[str, list[Path]], spill: Path) -> dict[str, list[Path]]:
    """The files of each view; of CSV and of JSON lines what our own reader makes of them, every value as text.

    DuckDB guesses separator and types from the first lines, consumers' lines: a single one could change how all others are read,
    or that none can be. Here it changes nothing: a bad line is an empty one, which drops itself, and is counted.
    """
    made: dict[str, list[Path]] = {}
    for name, files in paths.items():
        made[name] = []
        for number, path in enumerate(files):
            rewritten = spill / f"{name}-{number}{'.jsonl' if _is_json_lines(path) else '.parquet'}"
            if _reader_of(path) == "read_csv":
                _csv_as_text(path, rewritten)
            elif _is_json_lines(path):
                _json_as_text(path, rewritten)
            else:
                rewritten = path
            made[name].append(rewritten)
    return made


def _csv_as_text(path: Path, made: Path) -> None:
    from common.data.reading import LINE, PLAIN, members, table_batches, table_of

    pq, pa = required("pyarrow.parquet", "a source of kind files"), required("pyarrow", "a source of kind files")
    table = table_of(members(path)[0], PLAIN)
    schema = pa.schema([(column, pa.large_string()) for column in dict.fromkeys(table.header)])
    with pq.ParquetWriter(made, schema) as writer:
        for batch in table_batches(table, schema.names):
            empty = pl.DataFrame({column: [None] * batch.malformed for column in schema.names})
            lines = batch.frame.drop(LINE, strict=False).cast(pl.String)
            writer.write_table(pl.concat([lines, empty.cast(pl.String)]).to_arrow().cast(schema))


def _json_as_text(path: Path, made: Path) -> None:
    from common.data.reading import members, object_of, opened, readable

    with readable(path), opened(members(path)[0]) as file, made.open("w", encoding="utf-8") as out:
        for line in file:
            if line.strip():
                out.write(_one_line(object_of(line) or {}) + "\n")


def _one_line(record: dict[str, Any]) -> str:
    try:
        return json.dumps(_texts(record), allow_nan=False)
    except RecursionError:  # nested a thousand times
        return "{}"


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_texts(inner) for inner in value]
    return str(value).lower() if isinstance(value, bool) else value


def _plain_values(connection: Any, rows: str) -> str:
    """The same rows, columns of single values as text: what looks like a date everywhere, or is missing everywhere, has a type."""
    found = connection.execute(f"DESCRIBE {rows}").fetchall()
    words = [_word_of(quoted(name), kind) for name, kind, *_ in found]
    return f"SELECT {', '.join(words)} FROM ({rows})"  # noqa: S608 - quoted


def _word_of(column: str, kind: str) -> str:
    if kind == "JSON":
        return f"json_extract_string({column}, '$') AS {column}"
    nested = kind.startswith(("STRUCT", "MAP")) or kind.endswith("]")
    return column if nested else f"CAST({column} AS VARCHAR) AS {column}"


def _is_json_lines(path: Path) -> bool:
    return any(end in path.name.lower() for end in (".jsonl", ".ndjson"))


def _reader_of(path: Path) -> str:
    name = path.name.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return next((reader for end, reader in _READERS.items() if name.endswith(end)), "")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
