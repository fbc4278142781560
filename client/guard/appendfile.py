"""A file of lines that only grows, shared by all processes of a site: under the ledger and the round journal.

Whoever holds it has the file's lock: reads what others appended since, decides, appends. A line counts once its
end is on disk; what a crash left of a last line is for the caller to judge (``cut``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.atomic import CLOSE_ON_EXEC, has_holes, lock, make_durable, sync_directory, write_atomic
from common.errors import WorkFailedError


@dataclass
class ReadSoFar:
    """How far this process has read a file; worthless once the file is another, or was changed."""

    device: int = -1
    inode: int = -1
    offset: int = 0
    modified_ns: int = 0

    def holds_for(self, status: os.stat_result) -> bool:
        """Whether the file was only appended to since; same size and another time means it was changed."""
        same = (status.st_dev, status.st_ino) == (self.device, self.inode) and status.st_size >= self.offset
        return same and (status.st_size > self.offset or status.st_mtime_ns == self.modified_ns)


class HeldFile:
    """The file while this process holds its lock."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._fd = path, descriptor

    def holds(self, known: ReadSoFar) -> bool:
        """Whether what was read so far is still what the file begins with."""
        return known.holds_for(os.fstat(self._fd))

    def read_from(self, offset: int) -> bytes:
        """Everything behind ``offset``."""
        parts = []
        while part := os.pread(self._fd, 1 << 20, offset):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def append(self, line: bytes, *, durable: bool) -> None:
        """Add a line; when this returns it is on disk (``durable``), or safe from a killed process at least.

        Raises: WorkFailedError; then nothing of it stays in the file, as far as the disk obeys.
        """
        end = os.fstat(self._fd).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._fd, line[written:])
            if durable:
                make_durable(self._fd, length_only=True)
        except OSError as error:
            os.ftruncate(self._fd, end)
            raise WorkFailedError(
                f"cannot write {self._path}: {error.strerror}", hint="free some space, then start the site again"
            ) from error

    def cut(self, offset: int) -> None:
        """Remove what a crash left behind ``offset``."""
        os.ftruncate(self._fd, offset)
        make_durable(self._fd)

    def replace(self, content: bytes) -> None:
        """Give the file another content, in one step; this holder is done with it then. Raises: WorkFailedError, nothing changed."""
        write_atomic(self._path, content, mode=0o600)

    def read_up_to(self, offset: int) -> ReadSoFar:
        """To be remembered: the file was read, or written, up to ``offset``."""
        status = os.fstat(self._fd)
        return ReadSoFar(status.st_dev, status.st_ino, offset, status.st_mtime_ns)


@contextmanager
def hold(path: Path) -> Iterator[HeldFile]:
    """Open the file (made with mode 0600 if missing) and hold its lock. Raises: WorkFailedError."""
    try:
        new = not path.exists()
        if not new and has_holes(path):
            raise OSError(errno.EFBIG, "it is a file of nothing but holes")
        descriptor = _locked(path)
    except OSError as error:
        raise WorkFailedError(
            f"cannot open {path}: {error.strerror}", hint="check the site's state folder"
        ) from error
    try:
        if new:
            sync_directory(path.parent)
        yield HeldFile(path, descriptor)
    finally:
        os.close(descriptor)  # gives the lock back


def _locked(path: Path) -> int:
    """The file of this name, locked. Whoever held it may have put another in its place meanwhile: then that one."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | CLOSE_ON_EXEC, 0o600)
        try:
            lock(descriptor)
            if not path.exists() or os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
