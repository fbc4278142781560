"""Who is at work on a run folder, and whether it was asked to stop. Two server apps on one run would ask sites twice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from common.atomic import lock, write_atomic
from common.errors import BadInputError
from common.run.files import RunFolder
from common.run.paths import LOCK_FILE, STOP_FILE, SUBMIT_LOCK_FILE, SUBMITTED_FILE

GLANCE_S = 2.0  # ``run_is_held`` shares the lock while it looks, which must not turn the holder away


@contextmanager
def hold_run(folder: RunFolder) -> Iterator[None]:
    """Hold a run folder: two server apps on one run would ask sites twice. Raises: BadInputError."""
    with _locked(folder.path / LOCK_FILE) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        (folder.path / STOP_FILE).unlink(missing_ok=True)
        yield


@contextmanager
def hold_submission(folder: RunFolder) -> Iterator[Callable[[int], None]]:
    """Keep others from submitting a run, from before it is submitted until its screen ends. Raises: BadInputError.

    Yields what takes Flower's number of the run. Who looks (``run_is_submitted``, ``submitted``) sees either nothing
    or this submission, never the number of an earlier one: its file is locked before it gets its name.
    """
    with _locked(folder.path / SUBMIT_LOCK_FILE):
        new = folder.path / f"{SUBMITTED_FILE}.{os.getpid()}"
        with open(new, "w", encoding="ascii") as file:
            lock(file)
            os.replace(new, folder.path / SUBMITTED_FILE)

            def tell(number: int) -> None:
                file.write(f"{number}\n")
                file.flush()

            yield tell


def submitted(folder: RunFolder) -> int | None:
    """Flower's number of the run that was submitted last; None where it has none (yet)."""
    try:
        said = (folder.path / SUBMITTED_FILE).read_text("ascii")
        return int(said) if said.endswith("\n") else None
    except (OSError, ValueError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    end = time.monotonic() + GLANCE_S
    with open(path, "a", encoding="ascii") as file:
        while not _lock(file):
            if time.monotonic() > end:
                raise BadInputError("this run is already under way", hint="wait for it, or stop it first")
            time.sleep(0.05)
        yield file


def _lock(file: IO[str], *, shared: bool = False) -> bool:
    try:
        lock(file, shared=shared, wait=False)
    except BlockingIOError:
        return False
    return True


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
    return _is_locked(folder.path / LOCK_FILE)


def run_is_submitted(folder: RunFolder) -> bool:
    """Whether a screen on this machine has submitted a run, or is about to, and still watches it."""
    return _is_locked(folder.path / SUBMITTED_FILE)


def _is_locked(path: Path) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return not _lock(file, shared=True)
    except OSError:
        return False
