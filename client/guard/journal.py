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
from pathlib import Path

from common.errors import VerificationError, WorkFailedError
from common.runfolder import sync_directory
from common.secagg.journal import STEPS, JournalRules
from common.secagg.messages import Session

_CHECK_CHARACTERS = 16


class FileJournal:
    """A ``common.secagg.journal.Journal`` in a file, shared safely by all processes of a site.

    **Guarantee**: when ``record`` returns, the step is on disk; two processes never both record it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rules = JournalRules()
        self._offset = 0

    def __repr__(self) -> str:
        return f"FileJournal({self._path.name})"

    def record(self, session: Session, step: str, value: bytes) -> None:
        """Put a step on disk, or refuse it.

        **Raises**: RefusedError (done before), VerificationError (damaged file), WorkFailedError (disk).
        """
        with self._locked() as descriptor:
            self._catch_up(descriptor)
            self._rules.check(session, step, value)
            line = _line(session, step, value)
            self._append(descriptor, line)
            self._offset += len(line)
            self._rules.apply(session, step, value)

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

    def _catch_up(self, descriptor: int) -> None:
        """Read what other processes, or an earlier life of this one, have added."""
        size = os.fstat(descriptor).st_size
        if size < self._offset:
            raise VerificationError(
                f"{self._path.name} has shrunk", hint="restore it; a site without it must not answer"
            )
        data = b""
        while len(data) < size - self._offset:
            data += os.pread(descriptor, size - self._offset - len(data), self._offset + len(data))
        complete = data.rfind(b"\n") + 1
        for line in data[:complete].splitlines():
            self._rules.apply(*self._parsed(line))
        self._offset += complete
        if complete < len(data):
            os.ftruncate(descriptor, self._offset)

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
                f"{self._path.name} is damaged near byte {self._offset}",
                hint="restore it from a copy; a site that cannot tell what it answered must not answer",
            ) from error
        return session, step, value

    def _append(self, descriptor: int, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
            os.fdatasync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, self._offset)
            raise WorkFailedError(
                f"{self._path.name} cannot be written: {error.strerror}",
                hint="nothing was answered; free some space",
            ) from error


def _line(session: Session, step: str, value: bytes) -> bytes:
    entry = {"run": session.run, "round": session.round, "attempt": session.attempt, "step": step}
    text = json.dumps({**entry, "value": value.hex()}).encode()
    return text + b" " + _check(text) + b"\n"


def _check(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_CHECK_CHARACTERS].encode()
