"""Where a database is: the address of PostgreSQL as libpq wants it, the file of SQLite as a read-only URI.

A URI is taken apart here, and not in the driver, for three reasons: the password is put in beside it and never into it; what
the URI may switch is a list; and a server on another machine must prove who it is unless the operator says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from common.data.sources.secret import Password
from common.errors import BadInputError
from common.source_settings import sqlite_name

PARAMETERS = (
    "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "require_auth", "connect_timeout", "host", "port", "user",
    "dbname", "application_name", "keepalives", "target_session_attrs", "gssencmode",
)  # fmt: skip
_DETERMINISTIC = (
    "-c default_transaction_read_only=on -c synchronize_seqscans=off -c max_parallel_workers_per_gather=0"
)
_HINT = "for example postgresql://reader@db.example.org:5432/shop"


@dataclass(frozen=True)
class PostgresAddress:
    """The settings of a connection, by libpq's names; the password is not among them."""

    settings: dict[str, str]

    @classmethod
    def of(cls, uri: str) -> PostgresAddress:
        """Take a URI apart. Raises: BadInputError for one that is none, holds a password, or sets what it may not."""
        try:
            parts = urlsplit(uri)
            port = parts.port
        except ValueError:
            raise BadInputError("uri of [source] is not an address", hint=_HINT) from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise BadInputError("uri of [source] does not begin with postgresql://", hint=_HINT)
        if parts.password is not None or parts.fragment:
            raise BadInputError(
                "uri of [source] must not hold a password",
                hint="give password_env or password_file; # and @ in a name are written %23 and %40",
            )
        found = {"host": unquote(parts.hostname or ""), "port": str(port or ""), "user": unquote(parts.username or ""),
                 "dbname": unquote(parts.path.removeprefix("/"))}  # fmt: skip
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in PARAMETERS:
                raise BadInputError(
                    f"uri of [source] sets {name[:40]!r}", hint=f"it may set {', '.join(PARAMETERS)}"
                )
            found[name] = value
        if "password" in found.get("require_auth", "").replace("!password", "").split(","):
            raise BadInputError(
                "uri of [source] lets the server ask for the password itself",
                hint="scram-sha-256 proves it without telling it",
            )
        return cls({name: value for name, value in found.items() if value and "\0" not in value})

    @property
    def local(self) -> bool:
        """Whether the server is on this machine."""
        host = self.settings.get("host", "")
        return not host or host.startswith("/") or host in ("localhost", "127.0.0.1", "::1")

    @property
    def shown(self) -> str:
        """Database, user and host in words."""
        user = f"{self.settings['user']}@" if "user" in self.settings else ""
        where = self.settings.get("host", "local socket")
        return f"postgresql {user}{where}/{self.settings.get('dbname', '')}"

    def conninfo(self, password: Password | None) -> str:
        """The connection string of libpq: read-only, rows in the table's order, the server's identity proven."""
        settings = {
            "connect_timeout": "10",
            "application_name": "fedcart",
            **self.settings,
            "options": _DETERMINISTIC,
        }
        if not self.local:
            settings.setdefault("sslmode", "verify-full")
        if password is not None:
            settings.setdefault("require_auth", "scram-sha-256")
            settings["password"] = password.text
        return " ".join(f"{name}={_quoted(value)}" for name, value in settings.items())


def sqlite_address(uri: str, folder: Path) -> tuple[Path, str]:
    """The file, and the URI that opens it for reading only. Raises: BadInputError if there is no such file."""
    path = (folder / sqlite_name(uri)).resolve()
    if not path.is_file():
        raise BadInputError(f"no such database file: {path}", hint='uri of [source], as in uri = "shop.db"')
    return path, f"file:{quote(str(path))}?mode=ro"


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
