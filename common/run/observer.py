"""``Observer``: whoever watches a run, simulated or deployed. The run depends on one answer only: shall it stop?"""

from __future__ import annotations

from common.run.facts import RunFacts
from common.run.records import (
    RoundRecord,
    Summary,
)


class Observer:
    """Watches a run and says nothing. Subclass it to show, to write down, or to stop."""

    def prepared(self, facts: RunFacts) -> None:
        """Everything is ready, round 1 starts."""

    def progress(self, round_number: int, phase: str, done: int, total: int) -> None:
        """``done`` of ``total`` sites have answered to ``phase`` of a round; round 0 is preparation."""

    def round_done(self, record: RoundRecord) -> None:
        """One round is over and written."""

    def note(self, message: str) -> None:
        """A sentence for the person at the screen."""

    def finished(self, summary: Summary) -> None:
        """The run is over."""

    def stop_is_asked(self) -> bool:
        """Whether the run shall end before its next round, to be resumed later."""
        return False
