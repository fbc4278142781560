"""Who is at work on a run folder, and whether it was asked to stop. Two server apps on one run would ask sites twice."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from common.atomic import write_atomic
from common.errors import BadInputError
from common.run.files import RunFolder

LOCK_FILE = "running.lock"
STOP_FILE = "stop.asked"


@contextmanager
def hold_run(folder: RunFolder) -> Iterator[None]:
    """Hold a run folder: two server apps on one run would ask sites twice. Raises: BadInputError."""
    with open(folder.path / LOCK_FILE, "a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError("this run is already under way", hint="wait for it, or stop it first") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        (folder.path / STOP_FILE).unlink(missing_ok=True)
        yield


def holder(folder: RunFolder) -> int | None:
    """Process id of the server app at work on a run folder of this machine, None if there is none."""
    try:
        return int((folder.path / LOCK_FILE).read_text("ascii")) if run_is_held(folder) else None
    except (OSError, ValueError):
        return None


def ask_to_stop(folder: RunFolder) -> None:
    """Let a run end after the round under way. Raises: WorkFailedError (disk)."""
    write_atomic(folder.path / STOP_FILE, b"")


def stop_is_asked(folder: RunFolder) -> bool:
    """Whether the coordinator wants the run to end after the round under way."""
    return (folder.path / STOP_FILE).exists()


def run_is_held(folder: RunFolder) -> bool:
    """Whether a server app is at work on a run folder of this machine."""
    try:
        with open(folder.path / LOCK_FILE, encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
