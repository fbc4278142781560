"""The round journal on a site's disk: what may still be answered, whatever happens to the process.

One JSON line per step in an append-only file of mode 0600, written under a file lock and synced before
``record`` returns. A torn last line was never answered and is cut off. Lines are never removed: a
session and a contribution stay used for ever.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.atomic import sync_directory
from common.errors import VerificationError, WorkFailedError
from common.secagg.journal import MASK, STEPS, JournalRules
from common.secagg.messages import Session

_CHECK_CHARACTERS = 16


@dataclass
class _Read:
    """How much of a file this process has read, and what it says; worthless when the file is another."""

    inode: int = -1
    offset: int = 0
    modified_ns: int = 0
    rules: JournalRules = field(default_factory=JournalRules)

    def holds_for(self, status: os.stat_result) -> bool:
        """Whether the file was only appended to since; same size and another time means it was changed."""
        same = status.st_ino == self.inode and status.st_size >= self.offset
        return same and (status.st_size > self.offset or status.st_mtime_ns == self.modified_ns)


# Only saves reading the file again where one process answers many messages, as in a simulation.
_ALREADY_READ: dict[Path, _Read] = {}


class FileJournal:
    """A ``common.secagg.journal.Journal`` in a file, shared safely by all processes of a site.

    ``sync=False`` is for simulated sites: it survives a crash of the process, not of the machine.
    **Guarantee**: when ``record`` returns, the step is on disk; two processes never both record it.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._path = path.absolute()
        self._sync = sync

    def __repr__(self) -> str:
        return f"FileJournal({self._path.name})"

    def record(self, session: Session, step: str, value: bytes) -> None:
        """Put a step on disk, or refuse it.

        **Raises**: RefusedError (done before), VerificationError (damaged file), WorkFailedError (disk).
        """
        with self._locked() as descriptor:
            known = self._caught_up(descriptor)
            known.rules.check(session, step, value)
            line = _line(session, step, value)
            self._append(descriptor, line, known.offset)
            known.rules.apply(session, step, value)
            known.offset += len(line)
            known.modified_ns = os.fstat(descriptor).st_mtime_ns

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            new = not self._path.exists()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise WorkFailedError(
                f"{self._path.name} cannot be opened: {error.strerror}", hint="check the site's state folder"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if new:
                sync_directory(self._path.parent)
            yield descriptor
        finally:
            os.close(descriptor)  # gives the lock back

    def _caught_up(self, descriptor: int) -> _Read:
        """Everything recorded so far, by other processes or an earlier life of this one too."""
        status = os.fstat(descriptor)
        known = _ALREADY_READ.get(self._path, _Read())
        if not known.holds_for(status):
            known = _Read(inode=status.st_ino)
        data = b""
        while len(data) < status.st_size - known.offset:
            data += os.pread(descriptor, status.st_size - known.offset - len(data), known.offset + len(data))
        complete = data.rfind(b"\n") + 1
        for line in data[:complete].splitlines():
            known.rules.apply(*self._parsed(line))
        known.offset += complete
        if complete < len(data):
            os.ftruncate(descriptor, known.offset)
        known.modified_ns = os.fstat(descriptor).st_mtime_ns
        _ALREADY_READ[self._path] = known
        return known

    def _parsed(self, line: bytes) -> tuple[Session, str, bytes]:
        try:
            text, _, check = line.rpartition(b" ")
            entry = json.loads(text)
            step, value = entry["step"], bytes.fromhex(entry["value"])
            session = Session(entry["run"], entry["round"], entry["attempt"])
            if check != _check(text) or step not in STEPS:
                raise ValueError("changed")
        except (ValueError, KeyError, TypeError) as error:
            raise VerificationError(
                f"{self._path.name} is damaged",
                hint="restore it from a copy; a site that cannot tell what it answered must not answer",
            ) from error
        return session, step, value

    def _append(self, descriptor: int, line: bytes, end: int) -> None:
        try:
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
            if self._sync:
                os.fdatasync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, end)
            _ALREADY_READ.pop(self._path, None)
            raise WorkFailedError(
                f"{self._path.name} cannot be written: {error.strerror}",
                hint="nothing was answered; free some space",
            ) from error


def has_released(path: Path) -> bool:
    """Whether a journal says that a masked contribution has left; a damaged one might."""
    if not path.exists():
        return False
    for line in path.read_bytes().splitlines():
        try:
            step = json.loads(line.rpartition(b" ")[0])["step"]
        except (ValueError, KeyError, TypeError):
            return True
        if step == MASK:
            return True
    return False


def _line(session: Session, step: str, value: bytes) -> bytes:
    entry = {"run": session.run, "round": session.round, "attempt": session.attempt, "step": step}
    text = json.dumps({**entry, "value": value.hex()}, allow_nan=False).encode()
    return text + b" " + _check(text) + b"\n"


def _check(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_CHECK_CHARACTERS].encode()
