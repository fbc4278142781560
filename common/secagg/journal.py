"""What a site may still answer: each step of a session once, in order, and each contribution once.

The machines ask the journal *before* every answer. Losing the process loses the keys of the session, not
the memory of what was said; so a server cannot get a second, different answer by repeating a request, by
crashing a site, or by replaying a stored state.
"""

from __future__ import annotations

from typing import Protocol

from common.errors import RefusedError
from common.secagg.messages import Session

ADVERTISE = "advertise"
SHARE = "share"
ACCEPT = "accept"
MASK = "mask"
CONFIRM = "confirm"
REVEAL = "reveal"
STEPS = (ADVERTISE, SHARE, ACCEPT, MASK, CONFIRM, REVEAL)


class Journal(Protocol):
    """A durable record of what a site has answered."""

    def record(self, session: Session, step: str, value: bytes) -> None:
        """Put a step on disk, or refuse it; nothing may be answered before this returns.

        ``value``: the salt (advertise), the digest of U1 (share), of the delivery or of the complaint (accept), the
        contribution (mask), the digest of the signed survivor list (confirm, reveal).
        Raises: RefusedError if the session did this step, or the contribution left in any session.
        """
        ...


class JournalRules:
    """The rules, over what was recorded so far; no disk. ``check`` first, then ``apply``."""

    def __init__(self) -> None:
        self._done: dict[Session, int] = {}
        self._dead: dict[bytes, Session] = {}

    def check(self, session: Session, step: str, value: bytes) -> None:
        """Return if the step may be answered. Raises: RefusedError. Changes nothing."""
        done, wanted = self._done.get(session, 0), STEPS.index(step)
        if done > wanted:
            raise RefusedError(
                f"{session} has already done the step {step}",
                hint="start a new attempt: each step is answered once",
            )
        if done < wanted:
            raise RefusedError(f"{session} cannot {step}: its last recorded step is {_last(done)}")
        if step == MASK and value in self._dead:
            raise RefusedError(
                f"the contribution {value.hex()[:12]} has left in {self._dead[value]}",
                hint="a second sum with it would show it alone; compute a new contribution, at new cost",
            )

    def apply(self, session: Session, step: str, value: bytes) -> None:
        """Remember a step that ``check`` allowed."""
        self._done[session] = STEPS.index(step) + 1
        if step == MASK:
            self._dead[value] = session


class MemoryJournal(JournalRules):
    """A journal without a disk, for simulations and tests: it forgets with the process."""

    def record(self, session: Session, step: str, value: bytes) -> None:
        """Check and remember a step. Raises: RefusedError."""
        self.check(session, step, value)
        self.apply(session, step, value)


def _last(done: int) -> str:
    return STEPS[done - 1] if done else "none"
