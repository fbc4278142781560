"""The ``[source]`` table: where a site's events come from if not from one file. It holds no secret, only where one lies.

The table may travel in a kit, so what it can name is bounded: a password comes from an environment variable whose name
begins with ``FEDCART_SOURCE_`` or from a file whose name ends in ``.password``. A forged table can therefore not send
another secret of the machine, a key of ssh for example, to a server of its choice.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from common.atomic import read_small
from common.errors import BadInputError

PASSWORD_VARIABLES = "FEDCART_SOURCE_"  # noqa: S105 - how the names of variables begin
PASSWORD_SUFFIX = ".password"  # noqa: S105 - how the name of a file ends
TESTED_DRIVERS = ("postgresql", "sqlite")
_VIEW = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DRIVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_URI_PASSWORD = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/@?#]*:[^@/?#]*@|[?&\s](?:password|sslpassword|passfile)\s*=|^(?:password|passfile)\s*=", re.I)  # fmt: skip


def sqlite_name(uri: str) -> str:
    """The file that a URI of SQLite names."""
    return uri.removeprefix("sqlite:///").removeprefix("sqlite:").removeprefix("file:").partition("?")[0]


class SourceSettings(BaseModel):
    """Events from a database (``kind = "sql"``) or from files through a query of DuckDB (``kind = "files"``).

    ``query`` (or the file ``query_file``) gives one line per event; its columns are read by the site's format or
    mapping. ``watermark`` names a column of the result that grows: then a reading takes up where the last one ended,
    less ``late``, and what it finds there replaces what was read of that stretch before.
    Units: ``late`` in seconds for a time, in numbers for a whole number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["sql", "files"]
    driver: str = Field("postgresql", description="sql: postgresql, sqlite, or the name of another ADBC driver")
    uri: str = Field("", description="sql: where the database is, without a password")
    password_env: str = Field(
        "", description=f"environment variable that holds the password: {PASSWORD_VARIABLES}…"
    )
    password_file: str = Field("", description=f"file, mode 0600, that holds the password: …{PASSWORD_SUFFIX}")
    files: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="files: name of a view = path, glob, or list of them"
    )
    query: str = Field("", description="SQL that gives one line per event")
    query_file: str = Field("", description="file with that SQL")
    watermark: str = Field("", description="column of the result that grows; empty: everything is read each time")
    late: int = Field(86_400, ge=0, description="how far behind the watermark events may still arrive or change")

    @field_validator("driver")
    @classmethod
    def _a_name(cls, driver: str) -> str:
        if not _DRIVER.fullmatch(driver):
            raise ValueError("driver is the name of an installed ADBC driver, no path")
        return driver

    @field_validator("uri")
    @classmethod
    def _without_password(cls, uri: str) -> str:
        if _URI_PASSWORD.search(uri):
            raise ValueError("uri must not hold a password: give password_env or password_file")
        return uri

    @field_validator("password_env")
    @classmethod
    def _own_variable(cls, name: str) -> str:
        if name and not (name.startswith(PASSWORD_VARIABLES) and _WORD.fullmatch(name)):
            raise ValueError(f"password_env must name a variable that begins with {PASSWORD_VARIABLES}")
        return name

    @field_validator("password_file")
    @classmethod
    def _own_file(cls, name: str) -> str:
        if name and not Path(name).name.endswith(PASSWORD_SUFFIX):
            raise ValueError(f"password_file must end in {PASSWORD_SUFFIX}")
        return name

    @field_validator("files")
    @classmethod
    def _views(cls, files: dict[str, str | tuple[str, ...]]) -> dict[str, str | tuple[str, ...]]:
        wrong = [name for name in files if not _VIEW.fullmatch(name)]
        if wrong:
            raise ValueError(f"files: {wrong[0]!r} is no name for a view, letters, digits and _ are")
        return files

    @model_validator(mode="after")
    def _fits_together(self) -> SourceSettings:
        if bool(self.query.strip()) == bool(self.query_file):
            raise ValueError("give either query or query_file")
        if self.kind == "sql":
            if not self.uri:
                raise ValueError("a source of kind sql needs uri")
            if self.files:
                raise ValueError("files belongs to a source of kind files")
            if self.password_env and self.password_file:
                raise ValueError("give either password_env or password_file")
        elif not self.files:
            raise ValueError('a source of kind files needs files, as in files = { events = "events/*.jsonl" }')
        elif self.uri or self.password_env or self.password_file:
            raise ValueError("uri and password belong to a source of kind sql")
        return self

    def identity(self, folder: Path) -> str:
        """Changes with what is asked of whom: a digest of the settings and of the query's text. Raises: BadInputError."""
        asked = self.model_dump_json(exclude={"password_env", "password_file", "late"})
        return hashlib.sha256(f"{asked}\0{self.sql(folder)}".encode()).hexdigest()[:32]

    def sql(self, folder: Path) -> str:
        """The query, its last semicolon taken off. Raises: BadInputError if its file cannot be read."""
        text = self.query
        if self.query_file:
            path = folder / self.query_file
            try:
                text = read_small(path).decode("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not text in UTF-8"
                raise BadInputError(
                    f"cannot read the query {path}: {reason}", hint="see query_file in [source]"
                ) from None
        text = text.strip().rstrip(";").strip()
        if not text:
            raise BadInputError("the query of [source] is empty", hint="see docs/data.md for examples")
        return text
