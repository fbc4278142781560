"""What a person says of an alarm, behind one small interface: how verdicts are weighed is the anomaly room's business."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from common.errors import BadInputError

WORDS = ("anomaly", "normal")


class Verdicts(Protocol):
    """Remembers verdicts and says what they mean for a consumer."""

    def add(self, consumer: int, word: str) -> None:
        """Remember ``anomaly`` or ``normal``. Raises: BadInputError for another word."""

    def of(self, consumer: int) -> str:
        """The word on a consumer, empty if there is none."""

    def forget(self, consumer: int) -> bool:
        """Remove what was said of a consumer; whether anything was."""

    def forget_alarms(self, consumer: int) -> int:
        """Remove what ``watch`` has reported of a consumer; how many alarms there were."""

    def all(self) -> list[dict[str, Any]]:
        """All of them, by pseudonym."""


class KeptVerdicts:
    """Those in the site's book, which ``detect``, ``watch`` and ``review`` read and write too."""

    def __init__(self, home: Path) -> None:
        from client.anomalies.verdicts import VerdictBook

        self._home, self._book = home, VerdictBook(home)
        self._known = {one.consumer: one for one in self._book.news() or ()}

    def _read(self) -> None:
        """What stands now, for others write into the book too; what is known stays where somebody has damaged it."""
        with suppress(BadInputError):
            if (standing := self._book.news()) is not None:
                self._known = {one.consumer: one for one in standing}

    def add(self, consumer: int, word: str) -> None:
        """Remember ``anomaly`` or ``normal``. Raises: BadInputError for another word."""
        from client.anomalies.evidence import Verdict

        if word not in WORDS:
            raise BadInputError("the verdict is none", hint=f"a verdict is one of: {', '.join(WORDS)}")
        # without a score: the live one is of another kind than that of `detect`, and must move no threshold there
        self._book.say([Verdict(consumer, word == WORDS[0])])
        self._read()

    def of(self, consumer: int) -> str:
        """The word on a consumer, empty if there is none."""
        self._read()
        found = self._known.get(consumer)
        return "" if found is None else WORDS[0] if found.anomaly else WORDS[1]

    def forget(self, consumer: int) -> bool:
        """Remove what was said of a consumer; whether anything was."""
        found = self._book.forget(consumer) > 0
        self._read()
        return found

    def forget_alarms(self, consumer: int) -> int:
        """Remove what ``watch`` has reported of a consumer; how many alarms there were."""
        return forget_alarms(self._home, consumer)

    def all(self) -> list[dict[str, Any]]:
        """All of them, by pseudonym."""
        self._read()
        return [{"consumer": f"{who:016x}", "verdict": self.of(who)} for who in self._known]


def forget_verdict(home: Path, consumer: int) -> bool:
    """Remove what was said about one consumer from the book; whether there was anything. Raises: BadInputError."""
    from client.anomalies.verdicts import VerdictBook

    return VerdictBook(home).forget(consumer) > 0


def forget_alarms(home: Path, consumer: int) -> int:
    """Remove what ``watch`` has reported of one consumer; how many alarms there were. Raises: WorkFailedError (disk)."""
    from client.anomalies.alarms import AlarmBook

    return AlarmBook(home).forget(consumer)
