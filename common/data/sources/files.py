"""Events from local files through DuckDB's SQL: joins, filters, nested fields.

Guarantee: the query sees the named files and nothing else. DuckDB is closed to the network, to extensions and to every
other file before the first word of the query is read, and its configuration is locked. Nothing is downloaded.
"""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from common.data.sources.arrow import frame_of
from common.data.sources.source import BATCH_ROWS, Since, first_line, required
from common.data.sources.sql import wrapped
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
                self._close(connection, self.paths(), spill)
                self._require_select(duckdb, connection, query)
                relation = connection.sql(wrapped(query, limit=limit, since=since))
                for batch in relation.to_arrow_reader(BATCH_ROWS):
                    yield frame_of(batch)
        except duckdb.Error as error:
            raise BadInputError(
                f"DuckDB refuses the query of [source]: {first_line(error)}",
                hint="it may read the views of `files` and nothing else; docs/data.md has examples",
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
            more = ", union_by_name = true" if len(files) > 1 else ""
            connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM {reader}([{listed}]{more})')  # noqa: S608 - quoted
        connection.execute("SET lock_configuration = true")

    def _require_select(self, duckdb: Any, connection: Any, query: str) -> None:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise BadInputError("the query of [source] is not one SELECT", hint="a source is read, never written")


def _reader_of(path: Path) -> str:
    name = path.name.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return next((reader for end, reader in _READERS.items() if name.endswith(end)), "")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
