"""The round journal on a site's disk: what may still be answered, whatever happens to the process.

One JSON line per step in an append-only file of mode 0600, written under a file lock and synced before
``record`` returns. A torn last line was never answered and is cut off. Lines are never removed: a
session and a contribution stay used for ever.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from client.guard.appendfile import HeldFile, ReadSoFar, hold
from common.errors import BadInputError, VerificationError
from common.secagg.journal import MASK, STEPS, JournalRules
from common.secagg.messages import Session

_CHECK_CHARACTERS = 16


@dataclass
class _Known:
    """What the part of the file that was read says."""

    read: ReadSoFar = field(default_factory=ReadSoFar)
    rules: JournalRules = field(default_factory=JournalRules)


# Only saves reading the file again where one process answers many messages, as in a simulation.
_ALREADY_READ: dict[Path, _Known] = {}


class FileJournal:
    """A ``common.secagg.journal.Journal`` in a file, shared safely by all processes of a site.

    ``sync=False`` is for simulated sites: it survives a crash of the process, not of the machine.
    Guarantee: when ``record`` returns, the step is on disk; two processes never both record it.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._path = path.absolute()
        self._sync = sync

    def __repr__(self) -> str:
        return f"FileJournal({self._path.name})"

    def record(self, session: Session, step: str, value: bytes) -> None:
        """Put a step on disk, or refuse it.

        Raises: RefusedError (done before), VerificationError (damaged file), WorkFailedError (disk).
        """
        with hold(self._path) as file:
            known = self._caught_up(file)
            known.rules.check(session, step, value)
            line = _line(session, step, value)
            del _ALREADY_READ[self._path]  # until the line is on disk
            file.append(line, durable=self._sync)
            known.rules.apply(session, step, value)
            known.read = file.read_up_to(known.read.offset + len(line))
            _ALREADY_READ[self._path] = known

    def _caught_up(self, file: HeldFile) -> _Known:
        """Everything recorded so far, by other processes or an earlier life of this one too."""
        known = _ALREADY_READ.get(self._path, _Known())
        if not file.holds(known.read):
            known = _Known()
        data = file.read_from(known.read.offset)
        complete = data.rfind(b"\n") + 1
        for line in data[:complete].splitlines():
            known.rules.apply(*self._parsed(line))
        end = known.read.offset + complete
        if complete < len(data):
            file.cut(end)
        known.read = file.read_up_to(end)
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
        except (ValueError, KeyError, TypeError, BadInputError) as error:
            raise VerificationError(
                f"{self._path.name} is damaged",
                hint="restore it from a copy; a site that cannot tell what it answered must not answer",
            ) from error
        return session, step, value


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
