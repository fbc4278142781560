"""A real PostgreSQL in a folder of its own, on loopback, for the life of a block."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "it's a \\ word"
_PLACES = ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt/postgresql")


def programs() -> Path | None:
    """The folder with ``initdb``; None where PostgreSQL is not installed."""
    whole = [path.parent for place in _PLACES for path in Path(place).glob("*/bin/initdb")]
    if whole:
        return max(whole)
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@dataclass(frozen=True)
class Server:
    """A running server with a database ``shop`` and a user ``reader`` who may read."""

    bin: Path
    port: int
    folder: Path
    user: tuple[str, ...]

    def sql(self, text: str) -> str:
        """Run as the owner of the server."""
        command = [*self.user, str(self.bin / "psql"), "-h", str(self.folder), "-p", str(self.port), "-qAtX", "-v",
                   "ON_ERROR_STOP=1", "shop"]  # fmt: skip
        done = subprocess.run(command, input=text, text=True, capture_output=True, cwd="/")
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def uri(self) -> str:
        """Where it is, without a password."""
        return f"postgresql://reader@127.0.0.1:{self.port}/shop"


@contextmanager
def postgres() -> Iterator[Server]:
    """Start one, as the user ``postgres`` where this process is root (the server refuses to be root)."""
    found = programs()
    assert found is not None, "PostgreSQL is not installed"
    user: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="fedcart-pg-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = str(folder / "data")

        def run(*command: str) -> None:
            subprocess.run([*user, *command], check=True, cwd="/", stdout=subprocess.DEVNULL)

        run(
            str(found / "initdb"),
            "-D",
            data,
            "-A",
            "scram-sha-256",
            "--auth-local=trust",
            "-N",
            "-E",
            "UTF8",
            "--locale=C",
        )
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        run(str(found / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            run(str(found / "createdb"), "-h", str(folder), "-p", str(port), "shop")
            server = Server(found, port, folder, user)
            word = PASSWORD.replace("'", "''")
            server.sql(
                f"CREATE USER reader PASSWORD '{word}'; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader"
            )
            yield server
        finally:
            run(str(found / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
