"""JSON lines in, JSON lines out: the streaming scorer on a stream of text that may contain anything."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import numpy as np

from client.scoring.stream import ScoredEvent, StreamScorer
from common.errors import BadInputError

LONGEST = 65_536  # characters of one line
_KEPT, _ENOUGH, _EVERY = 5_000, 100, 100


class DriftingLevel:
    """The ``1 - rate`` quantile of the last 5,000 values, renewed every 100; None before the first 100.

    Guarantee: of the values beyond it one consumer gives a tenth at most, so that no busy one makes its own ways usual.
    """

    def __init__(self, rate: float, start: Iterable[float] = ()) -> None:
        self._rate = rate
        self._values: deque[float] = deque(start, maxlen=_KEPT)
        self._high: deque[int | None] = deque([None] * len(self._values), maxlen=_KEPT)  # whose, of those beyond
        self._of: Counter[int] = Counter()
        self._most, self._since = max(1, int(rate * _KEPT / 10)), 0
        self._level = self._quantile()

    @property
    def level(self) -> float | None:
        """The level of now."""
        return self._level

    @property
    def values(self) -> list[float]:
        """What it was taken from: enough to begin again with the same level."""
        return list(self._values)

    def add(self, value: float, consumer: int | None = None) -> None:
        """Take one more value into account, of a consumer if it is said of one; what is above twice the level does not count
        as usual.
        """
        if self._level is not None and value >= 2 * self._level > 0:
            return
        high = consumer if self._level is not None and value >= self._level else None
        if high is not None and self._of[high] >= self._most:
            return
        if len(self._high) == _KEPT and (gone := self._high[0]) is not None:
            self._of[gone] -= 1
            if not self._of[gone]:
                del self._of[gone]
        if high is not None:
            self._of[high] += 1
        self._values.append(value)
        self._high.append(high)
        self._since += 1
        if self._since >= _EVERY:
            self._since, self._level = 0, self._quantile()

    def _quantile(self) -> float | None:
        return float(np.quantile(self._values, 1 - self._rate)) if len(self._values) >= _ENOUGH else None


def bounded(stream: TextIO) -> Iterator[str]:
    """The lines of a stream; of one that is too long only a beginning, which is refused as too long: memory is bounded."""
    while line := stream.readline(LONGEST + 2):
        yield line
        while len(line) > LONGEST and not line.endswith("\n"):
            line = stream.readline(LONGEST + 2)


def follow(
    lines: Iterable[str], scorer: StreamScorer, level: DriftingLevel, *, with_ids: bool = False
) -> Iterator[dict[str, Any]]:
    """Score one JSON object per line; a line that is none yields an ``error`` with its number, and goes on.

    A line has ``consumer``, ``timestamp``, ``event`` and, where known, ``item, category, price``. The answer has
    ``surprise`` (nats of this event), ``recent`` (mean of the last 16), ``threshold`` (null until 100 events
    tell what is usual) and ``anomaly``.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            parsed = _parsed(line)
            scored = scorer.push(scorer.parse(parsed))
        except BadInputError as error:
            yield {"line": number, "error": error.message, "hint": error.hint}
            continue
        limit = level.level
        if scored.position:
            level.add(scored.recent, scored.consumer)
        shown = str(parsed["consumer"]) if with_ids else f"{scored.consumer:016x}"
        yield _answer(scored, shown, parsed["timestamp"], limit)


def _parsed(line: str) -> dict[str, Any]:
    if len(line) > LONGEST:
        raise BadInputError(f"line of more than {LONGEST} characters", hint="one event per line")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInputError(
            "not JSON", hint='for example {"consumer": "c1", "timestamp": "2024-05-01T10:00:00", "event": "view"}'
        ) from None
    if not isinstance(value, dict):
        raise BadInputError("not a JSON object", hint="one object per line")
    return value


def _answer(scored: ScoredEvent, consumer: str, timestamp: Any, limit: float | None) -> dict[str, Any]:
    judged = limit is not None and scored.position > 0
    return {
        "consumer": consumer,
        "timestamp": timestamp,
        "position": scored.position,
        "surprise": round(scored.surprise, 4),
        "recent": round(scored.recent, 4),
        "nats": {name: None if value != value else round(value, 4) for name, value in scored.nats.items()},
        "threshold": None if limit is None else round(limit, 4),
        "anomaly": (scored.recent >= limit) if judged and limit is not None else None,
    }
