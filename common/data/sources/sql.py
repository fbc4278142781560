"""Events from a database through ADBC: one query, in a transaction that cannot write, streamed as Arrow batches.

PostgreSQL and SQLite are tested. Another driver is opened by the same interface if the package ``adbc_driver_NAME`` is
installed; nothing here makes its transactions read-only, so give it a user that may read and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from common.data.sources.arrow import frame_of
from common.data.sources.secret import Password
from common.data.sources.source import BATCH_ROWS, Since, first_line, required
from common.data.sources.uris import PostgresAddress, sqlite_address
from common.errors import BadInputError
from common.source_settings import SourceSettings

_BATCH_BYTES = 16 << 20
_PUT_ASIDE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.S)
"""Strings, quoted names and comments of SQL."""
_HINT = "try the query in the database's own client, as the same user; docs/data.md has examples"


@dataclass(frozen=True)
class SqlSource:
    """One query of one database. ``folder``: where relative paths start."""

    settings: SourceSettings
    folder: Path
    password: Password | None

    @property
    def name(self) -> str:
        """Driver and place, without a password."""
        if self.settings.driver == "postgresql":
            return PostgresAddress.of(self.settings.uri).shown
        if self.settings.driver == "sqlite":
            return f"sqlite {sqlite_address(self.settings.uri, self.folder)[0].name}"
        return f"{self.settings.driver} (untested driver)"

    def batches(self, *, limit: int = 0, since: Since | None = None) -> Iterator[pl.DataFrame]:
        """Frames of the query's result, see ``Source``. The connection lives as long as the iteration."""
        query, reached = self.settings.sql(self.folder), False
        text = self.settings.driver == "sqlite"
        try:
            with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
                self._close_for_writing(cursor)
                reached = True
                columns = self._each_by_itself(cursor, query) if text else "*"
                cursor.execute(wrapped(query, limit=limit, since=since, columns=columns))
                for batch in cursor.fetch_record_batch():
                    frame = frame_of(batch)
                    yield frame.with_columns(pl.col(pl.String).replace("", None)) if text else frame
        except Exception as error:
            if not _of_the_driver(error):
                raise
            self._refuse(error, reached=reached)

    def _connect(self) -> Any:
        driver = self.settings.driver
        module = required(f"adbc_driver_{driver}.dbapi", f"a source with driver {driver}")
        required("pyarrow", "a source of kind sql")
        if driver == "postgresql":
            return module.connect(PostgresAddress.of(self.settings.uri).conninfo(self.password))
        if driver == "sqlite":
            return module.connect(sqlite_address(self.settings.uri, self.folder)[1])
        options = {"uri": self.settings.uri, **({"password": self.password.text} if self.password else {})}
        return module.connect(db_kwargs=options)

    def _close_for_writing(self, cursor: Any) -> None:
        """Make the transaction read-only, or go no further."""
        driver = self.settings.driver
        if driver == "postgresql":
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
        elif driver == "sqlite":
            cursor.execute("PRAGMA query_only = ON")
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})

    def _each_by_itself(self, cursor: Any, query: str) -> str:
        """The columns of a query of SQLite as text, value by value; the watermark as whole numbers, or nothing.

        SQLite has values of any type in any column, and Arrow one type for all: a single row would decide how every
        other one is read, its ids included, or that none can be.
        """
        cursor.execute(wrapped(query, nothing=True))
        names = [field[0] for field in cursor.description]
        return ", ".join(_whole(name) if name == self.settings.watermark else _text(name) for name in names)

    def _refuse(self, error: Exception, *, reached: bool) -> None:
        words = first_line(error)
        if self.password is not None:
            words = self.password.hidden(words)
        what = "refuses the query" if reached else "cannot be opened"
        hint = _HINT if reached else "check uri, user and password of [source], and that the database answers"
        raise BadInputError(f"{self.name} {what}: {words}", hint=hint) from None


def _text(name: str) -> str:
    column = quoted(name)
    return f"CASE typeof({column}) WHEN 'blob' THEN hex({column}) ELSE COALESCE(CAST({column} AS TEXT), '') END AS {column}"


def _whole(name: str) -> str:
    column = quoted(name)
    return f"CASE typeof({column}) WHEN 'integer' THEN {column} END AS {column}"


def wrapped(
    query: str, *, limit: int = 0, since: Since | None = None, columns: str = "*", nothing: bool = False
) -> str:
    """The query as a table of another one: a statement that is not a single SELECT is then no SQL at all.

    ``nothing``: only the names of its columns.
    """
    _require_one_table(query)
    words = f"SELECT {columns} FROM (\n{query}\n) AS fedcart_events"  # noqa: S608 - the operator's own query, on their own database
    if nothing:
        return f"{words} LIMIT 0"
    if since is not None:
        words += f" WHERE {quoted(since.column)} >= {since.mark.literal()}"
    if limit:
        words += f" LIMIT {int(limit)}"
    return words


def _require_one_table(query: str) -> None:
    """Return if a query stays within the brackets that are put around it. Raises: BadInputError."""
    depth = 0
    for mark in _PUT_ASIDE.sub(" ", query):
        depth += (mark == "(") - (mark == ")")
        if depth < 0 or mark == ";":
            break
    else:
        if depth == 0:
            return
    raise BadInputError("[source] refuses the query: it is not one SELECT", hint=_HINT)


def quoted(name: str) -> str:
    """A column's name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _of_the_driver(error: Exception) -> bool:
    """Errors that ADBC or Arrow raise; ours and those of our own code pass."""
    return type(error).__module__.split(".")[0] in ("adbc_driver_manager", "pyarrow", "polars") or isinstance(
        error, OSError | UnicodeDecodeError
    )
