"""What a person says of an alarm, behind one small interface: how verdicts are weighed is the anomaly room's business."""

from __future__ import annotations

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

    def all(self) -> list[dict[str, Any]]:
        """All of them, by pseudonym."""


class KeptVerdicts:
    """Those of the state folder, which ``fedcart detect --feedback`` reads and writes too."""

    def __init__(self, home: Path) -> None:
        from client.anomalies.feedback import recall

        self._home, self._known = home, recall(home)

    def add(self, consumer: int, word: str) -> None:
        """Remember ``anomaly`` or ``normal``. Raises: BadInputError for another word."""
        from client.anomalies.feedback import Label, remember

        if word not in WORDS:
            raise BadInputError("the verdict is none", hint=f"a verdict is one of: {', '.join(WORDS)}")
        # the score of `detect` is of another kind than the live one: it is measured when detect runs
        self._known = remember(self._home, [Label(consumer, word == WORDS[0], float("nan"))])

    def of(self, consumer: int) -> str:
        """The word on a consumer, empty if there is none."""
        found = self._known.get(consumer)
        return "" if found is None else WORDS[0] if found.anomaly else WORDS[1]

    def forget(self, consumer: int) -> bool:
        """Remove what was said of a consumer; whether anything was."""
        if self._known.pop(consumer, None) is None:
            return False
        forget_verdict(self._home, consumer)
        return True

    def all(self) -> list[dict[str, Any]]:
        """All of them, by pseudonym."""
        return [{"consumer": f"{who:016x}", "verdict": self.of(who)} for who in self._known]


def forget_verdict(home: Path, consumer: int) -> bool:
    """Remove the lines about one consumer from the file of verdicts; whether there were any. Raises: BadInputError."""
    import json

    from client.anomalies.feedback import FILE
    from common.atomic import write_atomic

    path = home / FILE
    if not path.is_file():
        return False
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        kept = [line for line in lines if json.loads(line)["consumer"] != f"{consumer:016x}"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} is damaged: {error}", hint="remove the line, or the file to forget") from None
    if len(kept) < len(lines):
        write_atomic(path, "".join(f"{line}\n" for line in kept).encode(), mode=0o600)
    return len(kept) < len(lines)
