"""Files that are there whole or not at all: written under a temporary name, synced, renamed. Folders that are private.

And files that somebody else may have put there: read if they are files, and no larger than such files are.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from common.errors import BadInputError, WorkFailedError

try:
    import fcntl
except ImportError:  # Windows: work on files goes on, what needs a lock is refused
    fcntl = None  # type: ignore[assignment]

BINARY: int = getattr(os, "O_BINARY", 0)
CLOSE_ON_EXEC: int = getattr(os, "O_CLOEXEC", 0)  # Windows hands no file on anyway
FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
MOST_SETTINGS = 1 << 24
"""Bytes of a file that people or a coordinator write: settings, rules, keys."""


def read_small(path: Path, most: int = MOST_SETTINGS) -> bytes:
    """The content of a file of at most ``most`` bytes; a pipe keeps nobody waiting, a device has no end, holes no weight.

    Raises: OSError, also for what is no file, and for one that is larger.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | CLOSE_ON_EXEC | BINARY)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        content = file.read(most + 1) if status.st_size <= most else b""
        if status.st_size > most or len(content) > most:
            raise OSError(errno.EFBIG, f"it has more than {most} bytes")
        return content


def has_holes(path: Path) -> bool:
    """Whether a file says that it is large and has next to nothing on the disk: more than any content can be packed."""
    status = path.lstat()
    blocks = getattr(status, "st_blocks", None)
    return blocks is not None and status.st_size > MOST_SETTINGS and blocks * 512 < status.st_size / 256


def write_atomic(path: Path, *parts: bytes | memoryview, mode: int = 0o644) -> None:
    """Replace ``path`` by ``parts`` in a row so that a reader or a crash sees the old file or the new one, never a half.

    Raises: WorkFailedError if the disk is full or not writable; the old file is then untouched.
    """
    with disk_errors(path):
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                make_durable(file.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)


def create_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Make a file whole and durable, unless another process was first: then theirs stays as it is.

    Raises: WorkFailedError if the disk is full or not writable.
    """
    complete = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    write_atomic(complete, data, mode=mode)
    with disk_errors(path):
        with suppress(FileExistsError):
            os.link(complete, path)
        complete.unlink()
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals in a directory durable, where the system can (Windows opens no directory)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        make_durable(fd)
    finally:
        os.close(fd)


def lock(file: IO[str] | int, *, shared: bool = False, wait: bool = True) -> None:
    """Hold a lock on an open file until it is closed, against every other process.

    Raises: BlockingIOError if another holds it and ``wait`` is False; BadInputError on a system without such locks.
    """
    require_locks()
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def require_locks() -> None:
    """Return where files can be locked. Raises: BadInputError on other systems, saying what works there."""
    if fcntl is None:
        raise BadInputError(
            "sites, servers and simulations need Linux or macOS",
            hint="here data, predict, detect, forecast, explain, export, audit, report and compare work",
        )


def make_durable(descriptor: int, *, length_only: bool = False) -> None:
    """Return when what was written would survive a loss of power. ``length_only``: of a file's facts only its length matters.

    macOS has no fdatasync, and its fsync returns while the disk still holds the data in its cache: F_FULLFSYNC waits for it.
    Raises: OSError.
    """
    if fcntl is not None and FULL_SYNC is not None:
        with suppress(OSError):  # a file system that does not know it, as on a share
            fcntl.fcntl(descriptor, FULL_SYNC)
            return
    if length_only and hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses under ``path`` into our own error. Raises: WorkFailedError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = (
            "free some space, then resume" if full else "look at the folder: is it there, and yours to write to?"
        )
        raise WorkFailedError(f"cannot write {path}: {error.strerror}", hint=hint) from error


def unwritable(folder: Path) -> str:
    """Why no file can be made in a folder; empty if one can: it was, and is gone again."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or type(error).__name__


def link_atomic(link: Path, target: Path) -> None:
    """Point ``link`` to ``target`` beside it in one step; a file system without links goes without."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        temporary.symlink_to(target.name)
        temporary.replace(link)
    except OSError:
        temporary.unlink(missing_ok=True)


def private_folder(path: Path) -> Path:
    """The folder, made if it is missing, and closed to everybody but its owner. Raises: WorkFailedError."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if stat.S_IMODE(path.stat().st_mode) != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise WorkFailedError(f"cannot keep {path} to its owner: {error.strerror}") from None
    return path
