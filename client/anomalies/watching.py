"""Events as text in, alarms out: JSON lines, or CSV with a header, that may contain anything."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.anomalies.live import Alarm, LiveDetector, SharedModel, StreamScorer, Verdict
from client.scoring.lines import LONGEST
from common.errors import BadInputError

if TYPE_CHECKING:
    from common.data import EventLog

NEEDED = ("consumer", "timestamp", "event")
_HINT = "a JSON object per line, or CSV that begins with a header such as consumer,timestamp,event,item"


def read_events(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | BadInputError]]:
    """Each line that is not empty as an object, or why it is none, with its number. A first line of names makes it CSV."""
    names: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            if not names and not line.lstrip().startswith("{") and (found := _header(line)):
                names = found
                continue
            yield number, _cells(line, names) if names else _object(line)
        except BadInputError as error:
            yield number, error


@dataclass(frozen=True)
class Watch:
    """Model and detector, ready for the next event; what people say meanwhile counts from the next one on."""

    scorer: StreamScorer
    live: LiveDetector
    news: Callable[[], Sequence[Verdict] | None] = lambda: None

    @staticmethod
    def after(
        shared: SharedModel,
        past: tuple[EventLog, str] | None,
        *,
        key: bytes,
        news: Callable[[], Sequence[Verdict] | None] = lambda: None,
        rate: float = 0.01,
        capacity: int = 100_000,
    ) -> Watch:
        """Ready after a log, with its name; None: with what a personal model has kept. ``news``: standing verdicts when there
        are others than before, asked before each event.

        Raises: BadInputError.
        """
        from client.anomalies.detectors import profile_log
        from client.anomalies.usual import Usual

        scorer = StreamScorer(shared, capacity, key)
        scored = None if past is None else profile_log(shared, past[0])
        usual = Usual.of_model(shared) if past is None or scored is None else Usual.of(scored, past[1])
        live = LiveDetector(shared, usual, rate=rate, verdicts=news() or (), capacity=capacity)
        if past is not None and scored is not None:
            live.warm(scored)
            scorer.warm(past[0])
        return Watch(scorer, live, news)

    def take(self, lines: Iterable[str]) -> Iterator[Alarm | tuple[int, BadInputError]]:
        """Take one event per line; what comes out are alarms, and the number of each line that cannot be used, and why."""
        for number, read in read_events(lines):
            try:
                if isinstance(read, BadInputError):
                    raise read
                event = self.scorer.parse(read)
            except BadInputError as error:
                yield number, error
                continue
            if (verdicts := self.news()) is not None:
                self.live.hear(verdicts)
            alarm = self.live.take(event, self.scorer.push(event))
            if alarm is not None:
                yield alarm


def _short(line: str) -> str:
    if len(line) > LONGEST:
        raise BadInputError(f"line of more than {LONGEST} characters", hint="one event per line")
    return line


def _header(line: str) -> list[str]:
    names = [name.strip().lower() for name in _row(line)]
    return names if all(name in names for name in NEEDED) else []


def _row(line: str) -> list[str]:
    try:
        return next(csv.reader([_short(line)], strict=True), [])
    except csv.Error as error:
        raise BadInputError(f"not CSV: {error}", hint=_HINT) from None


def _cells(line: str, names: list[str]) -> dict[str, Any]:
    cells = _row(line)
    if len(cells) != len(names):
        raise BadInputError(
            f"{len(cells)} cells, the header has {len(names)}", hint="quote cells with commas in them"
        )
    return {name: cell if cell.strip() else None for name, cell in zip(names, cells, strict=True)}


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(_short(line))
    except (ValueError, RecursionError):
        raise BadInputError("neither JSON nor CSV with a header", hint=_HINT) from None
    if not isinstance(value, dict):
        raise BadInputError("not a JSON object", hint="one object per line")
    return value
