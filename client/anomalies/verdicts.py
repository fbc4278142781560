"""The site's book of verdicts: it only grows, a line for each word of a person; what was said can be undone, and forgotten."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from client.anomalies.evidence import Verdict, standing
from client.guard.appendfile import HeldFile, hold
from common.atomic import private_folder
from common.errors import BadInputError
from common.strict_json import one_line

FILE, LEGACY = "verdicts.jsonl", "feedback.jsonl"
_HINT = "restore it from a copy, or remove the line"


class VerdictBook:
    """Verdicts of one site, in a file that its owner alone can read. Any number of processes may use it at once."""

    def __init__(self, home: Path) -> None:
        self._home, self._path = home, home / FILE
        self._seen: object = ()

    def said(self) -> list[Verdict]:
        """All verdicts in their order, those that were undone marked. Raises: BadInputError if the file is damaged."""
        if not self._path.exists() and not (self._home / LEGACY).exists():
            return []
        with hold(self._path) as file:
            return _verdicts(self._lines(file))

    def standing(self) -> list[Verdict]:
        """Those that count: of each alarm the latest. Raises: BadInputError."""
        return standing(self.said())

    def news(self) -> list[Verdict] | None:
        """Those that count if the book has changed since this was last asked, else None. Raises: BadInputError."""
        try:
            status = self._path.stat()
            now: object = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:
            now = None
        if now == self._seen:
            return None
        self._seen = now
        return self.standing()

    def say(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Add verdicts; what was said before of the same alarm stays in the book, and counts no more.

        A repeated word on the same alarm adds nothing. Raises: BadInputError, WorkFailedError.
        """
        private_folder(self._home)
        with hold(self._path) as file:
            lines = self._lines(file)
            known = {one.about: one for one in standing(_verdicts(lines))}
            added, number, now = [], _last(lines), int(time.time())
            for one in verdicts:
                before = known.get(one.about)
                if before is not None and (before.anomaly, before.ends) == (one.anomaly, one.ends):
                    continue
                number += 1
                made = replace(one, number=number, said=one.said or now, undone=False)
                known[one.about] = made
                added.append(made)
            if added:
                file.append("".join(one_line(_line_of(one)) + "\n" for one in added).encode(), durable=True)
        return added

    def undo(self, number: int) -> Verdict:
        """Take one verdict back; the line stays, and another that says so. Raises: BadInputError if there is none."""
        private_folder(self._home)
        with hold(self._path) as file:
            lines = self._lines(file)
            found = next((one for one in _verdicts(lines) if one.number == number and not one.undone), None)
            if found is None:
                raise BadInputError(
                    f"no verdict {number} that stands", hint="`fedcart review KIT --list` shows all"
                )
            file.append(f"{one_line({'undo': number, 'said': int(time.time())})}\n".encode(), durable=True)
        return replace(found, undone=True)

    def forget(self, consumer: int) -> int:
        """Remove all lines about a consumer from the file, and say how many there were."""
        if not self._path.exists() and not (self._home / LEGACY).exists():
            return 0
        with hold(self._path) as file:
            lines = self._lines(file)
            numbers = {one.number for one in _verdicts(lines) if one.consumer == consumer}
            if not numbers:
                return 0
            kept = [x for x in lines if x.get("number") not in numbers and x.get("undo") not in numbers]
            kept.append({"forgot": len(numbers), "last": _last(lines), "said": int(time.time())})
            file.replace("".join(one_line(x) + "\n" for x in kept).encode())
        return len(numbers)

    def _lines(self, file: HeldFile) -> list[dict[str, Any]]:
        """All lines; what a crash left of a last one is cut off, and what an earlier version kept is taken over."""
        content = file.read_from(0)
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.cut(whole)
        lines = _parsed(self._path, content[:whole])
        old = self._home / LEGACY
        if not lines and old.exists():
            earlier = [
                {**x, "number": number, "ends": 0, "said": 0, "alarm": "", "threshold": None}
                for number, x in enumerate(_parsed(old, old.read_bytes()), start=1)
            ]
            _verdicts(earlier)
            file.append("".join(one_line(x) + "\n" for x in earlier).encode(), durable=True)
            old.unlink()
            return earlier
        return lines


def _parsed(path: Path, content: bytes) -> list[dict[str, Any]]:
    lines = []
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not _is_line(value):
            raise BadInputError(f"{path}, line {number} is damaged", hint=_HINT)
        lines.append(value)
    return lines


def _is_line(value: dict[str, Any]) -> bool:
    if "undo" in value or "forgot" in value:
        return isinstance(value.get("undo", value.get("last")), int)
    try:
        return isinstance(value["anomaly"], bool) and 0 <= int(value["consumer"], 16) < 1 << 64
    except (KeyError, TypeError, ValueError):
        return False


def _verdicts(lines: Iterable[dict[str, Any]]) -> list[Verdict]:
    lines = list(lines)
    undone = {x["undo"] for x in lines if "undo" in x}
    return [
        Verdict(
            int(x["consumer"], 16),
            x["anomaly"],
            _number(x.get("score")),
            _number(x.get("threshold")),
            int(_number(x.get("ends"), 0)),
            str(x.get("alarm", "")),
            int(_number(x.get("said"), 0)),
            int(x["number"]),
            x["number"] in undone,
        )
        for x in lines
        if "consumer" in x
    ]


def _last(lines: Iterable[dict[str, Any]]) -> int:
    return max((int(x.get("number", x.get("last", 0))) for x in lines), default=0)


def _line_of(one: Verdict) -> dict[str, Any]:
    return {
        "number": one.number,
        "consumer": f"{one.consumer:016x}",
        "anomaly": one.anomaly,
        "score": one.score,
        "threshold": one.threshold,
        "ends": one.ends,
        "alarm": one.alarm,
        "said": one.said,
    }


def _number(value: object, otherwise: float = math.nan) -> float:
    return float(value) if isinstance(value, int | float) else otherwise
