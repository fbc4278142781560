"""What a run tells whoever watches it. The run depends on one answer only: whether it shall stop."""

from __future__ import annotations

from common.run.records import RoundRecord
from server.state import ServerState


class RunObserver:
    """Watches a run and says nothing. Subclass it to show progress, or to add what only a simulation knows."""

    def progress(self, round_number: int, phase: str, done: int, total: int) -> None:
        """``done`` of ``total`` sites have answered to ``phase``."""

    def complete(self, record: RoundRecord, state: ServerState) -> RoundRecord:  # noqa: ARG002
        """Return the record to be written; a simulation fills in its oracle metrics here.

        ``state`` is the state after the round. The server never reads the answer.
        """
        return record

    def stop_is_asked(self) -> bool:
        """Whether the run shall end before its next round, to be resumed later."""
        return False

    def note(self, message: str) -> None:
        """A sentence for the person at the screen."""
