"""A site's own consumers for local use: events in, pseudonyms throughout, original ids only on request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.atomic import create_atomic, read_small
from common.data import EventLog, load_events, original_ids, pseudonym, whole_characters
from common.errors import BadInputError
from common.trust import CONSUMERS_KEY

KEY_BYTES = 32


@dataclass(frozen=True)
class LocalLog:
    """A loaded event log and the key that made its pseudonyms.

    ``originals`` maps pseudonyms back; it is empty unless it was asked for.
    """

    log: EventLog
    key: bytes = field(repr=False)
    dropped: int
    originals: Mapping[int, str] = field(default_factory=dict, repr=False)

    def shown(self, consumer: int) -> str:
        """What an output calls a consumer: the original id if asked for, else the pseudonym."""
        return self.originals.get(int(consumer)) or f"{int(consumer):016x}"

    def find(self, name: str) -> int:
        """The pseudonym of an original id, or of a pseudonym as it is printed. Raises: BadInputError."""
        known = self.log.consumers
        for candidate in named(name, self.key):
            if np.isin(np.uint64(candidate), known):
                return candidate
        raise BadInputError(
            f"consumer {name!r} has no usable event in this log",
            hint="give the id as in the file, or the pseudonym that another command printed",
        )

    def at(self, consumer: int) -> EventLog:
        """The events of one consumer."""
        row = int(np.searchsorted(self.log.consumers, np.uint64(consumer)))
        begin, end = self.log.offsets[row : row + 2]
        return EventLog(self.log.frame[int(begin) : int(end)])


def named(name: str, key: bytes) -> list[int]:
    """The pseudonyms that a name can stand for: that of an original id, and itself if it looks like a printed one."""
    candidates = [pseudonym(whole_characters(name), key)] if name.strip() else []
    if len(name) == 16 and all(c in "0123456789abcdef" for c in name):
        candidates.append(int(name, 16))
    return candidates


def state_folder(given: Path | None) -> Path:
    """Where local use keeps its key and feedback: the given folder, ``FEDCART_STATE_DIR``, or the user's state.

    Give a site kit's ``state`` folder to have the pseudonyms of that site.
    """
    if given is not None:
        return given
    if chosen := os.environ.get("FEDCART_STATE_DIR"):
        return Path(chosen)
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "fedcart"


def local_key(state: Path) -> bytes:
    """The key of the pseudonyms, made once, readable by its owner only. Raises: BadInputError if damaged."""
    path = state / CONSUMERS_KEY
    if not path.exists():
        try:
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            create_atomic(path, os.urandom(KEY_BYTES), mode=0o600)
        except OSError as error:
            raise BadInputError(
                f"cannot keep a key in {state}: {error.strerror}", hint="choose another folder with --state"
            ) from None
    try:
        key = read_small(path)
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}", hint="restore it from a copy") from None
    if len(key) != KEY_BYTES:
        raise BadInputError(f"{path} has {len(key)} bytes, a key has {KEY_BYTES}", hint="restore it from a copy")
    return key


def load_local(path: Path, format_name: str, key: bytes, *, with_ids: bool = False) -> LocalLog:
    """Read and clean a site's own event file; ``format_name`` "" recognises the preset by its columns.

    Raises: BadInputError for an unreadable file or one without a usable line.
    """
    name = format_name or "auto"
    log, report = load_events(path, name, secret=key)
    originals = _originals(path, name, key) if with_ids else {}
    return LocalLog(log, key, report.dropped, originals)


def _originals(path: Path, format_name: str, key: bytes) -> dict[int, str]:
    return {pseudonym(original, key): original for original in original_ids(path, format_name)}


def chunks(count: int, size: int) -> list[NDArray[np.int64]]:
    """Row numbers 0..count in pieces of at most ``size``."""
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
