"""One event of a stream, cleaned by the rules of the file reader: what is plain takes a short way, all else goes through
the reader itself as a file of one line.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping as Map
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from common.data import EARLIEST, LATEST, Mapping, event_type, whole_characters
from common.data.formats import ITEM_EVENTS
from common.data.values.words import NULL_WORDS
from common.errors import BadInputError

FIELDS = ("consumer", "timestamp", "event", "item", "category", "price", "quantity")
LONGEST = 4_096  # characters of one value
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_NULLS = frozenset(NULL_WORDS)
_ID = re.compile(r"[A-Za-z0-9_:@][A-Za-z0-9_:@-]*", re.ASCII)
_WORD = re.compile(r"[a-z][a-z_-]*", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,17})?", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{6}|\.\d{3})?", re.ASCII)
_PLAIN = {
    "time": "text",
    "time_formats": (),
    "time_zone": "UTC",
    "decimal": ".",
    "nulls": None,
    "default_event": "",
}


class DroppedError(BadInputError):
    """A line that the reader would leave out; ``rule`` is its word for why."""

    code = "dropped"

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"event left out, {rule}: {reason}", hint="docs/data.md says what every rule does")
        self.rule = rule


@dataclass(frozen=True)
class CleanEvent:
    """An event as a log has it. Units: ``time`` microseconds since 1970. ``mark``: of all that tells it from another."""

    consumer: str
    time: int
    event: str
    item: str
    category: str
    price: float | None
    quantity: float | None
    mark: int


class Cleaner:
    """Cleans single events by a mapping's words, units and limits; fields have our names.

    Guarantee: what comes out is what ``load_events`` makes of a file whose line holds these values as text.
    """

    def __init__(self, mapping: Mapping) -> None:
        columns = {name: name for name in FIELDS if name in mapping.columns}
        absent = {"cancel": None, "time_of_day": "", "fill_by": "", "orders": None, "products": None, "names": ()}
        self.mapping = mapping.model_copy(update={"columns": columns, **absent})
        self._short = all(getattr(mapping, name) == value for name, value in _PLAIN.items())
        self._short = self._short and not mapping.price_is_total and "event" in columns and "item" in columns
        self._most = min(10_000.0, mapping.max_price, mapping.max_quantity)
        self._words = {word.strip().lower(): ours for word, ours in mapping.events.items()}

    def clean(self, raw: Map[str, Any]) -> CleanEvent:
        """Raises: DroppedError naming the reader's rule; BadInputError for a value that no file could hold."""
        line = {name: _text(raw.get(name), name) for name in FIELDS}
        return (self._quick(line) if self._short else None) or self._read(line)

    def _quick(self, line: dict[str, str | None]) -> CleanEvent | None:
        """What needs no rule at all; None for everything that might."""
        consumer, stamp, word = line["consumer"], line["timestamp"], line["event"]
        if not (_is_id(consumer) and stamp and _TIME.fullmatch(stamp) and word and _WORD.fullmatch(word)):
            return None
        kind = self._words.get(word) if self._words else event_type(word)
        item, category = line["item"], line["category"]
        if not kind or kind == "cancel" or not (_is_id(item) or (not item and kind not in ITEM_EVENTS)):
            return None
        if category and not _is_id(category):
            return None
        price, quantity = (_plain_number(line[name], self._most) for name in ("price", "quantity"))
        if price == -1.0 or quantity == -1.0:
            return None
        try:
            moment = datetime.fromisoformat(stamp)
        except ValueError:
            return None
        if not EARLIEST <= moment < LATEST:
            return None
        time = (moment - _EPOCH) // _MICROSECOND
        return _made(str(consumer), time, (kind, item or "", category or "", price, quantity), (price, quantity))

    def _read(self, line: dict[str, str | None]) -> CleanEvent:
        import polars as pl

        from common.data.cleaning import judge, settle, typed_lines

        columns = {name: [line[name]] for name in self.mapping.columns}
        typed = typed_lines(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)), self.mapping)
        usable, counted = judge(typed, self.mapping)
        if not usable.height:
            rule = next(iter(counted.dropped))
            raise DroppedError(rule, _reason(rule, self.mapping))
        before, after = usable.row(0, named=True), settle(usable, self.mapping).frame.row(0, named=True)
        told = (
            before["event"],
            before["item"] or "",
            before["category"] or "",
            before["price"],
            before["quantity"],
        )
        time = (before["timestamp"] - _EPOCH) // _MICROSECOND
        consumer = str(before["consumer"])
        return _made(consumer, time, told, (after["price"], after["quantity"]), str(after["event"]))


def _made(
    consumer: str, time: int, told: tuple[Any, ...], numbers: tuple[float | None, float | None], event: str = ""
) -> CleanEvent:
    return CleanEvent(consumer, time, event or told[0], told[1], told[2], *numbers, mark_of(told))


def mark_of(told: tuple[Any, ...]) -> int:
    """What tells a line from others of one consumer and time: of event, item, category, price, quantity."""
    *words, price, quantity = told
    return zlib.crc32(repr((words, *(None if n is None else f"{n:.7g}" for n in (price, quantity)))).encode())


def _text(value: Any, name: str) -> str | None:
    """A value as a file's cell would hold it."""
    if value is None or isinstance(value, dict | list):
        return None
    text = value if isinstance(value, str) else str(value)
    if len(text) > LONGEST:
        raise BadInputError(f"{name} has {len(text)} characters, at most {LONGEST} are read", hint="a shorter one")
    return whole_characters(text)


def _is_id(text: str | None) -> bool:
    return bool(text) and _ID.fullmatch(str(text)) is not None and str(text).lower() not in _NULLS


def _plain_number(text: str | None, most: float) -> float | None:
    """The number, None where nothing is said, -1 where a rule might apply."""
    if not text:
        return None
    if _NUMBER.fullmatch(text) is None:
        return -1.0
    number = float(text)
    return number if 0 < number <= most else -1.0


def _reason(rule: str, mapping: Mapping) -> str:
    from common.data.rules import line_rules

    return next((one.reason for one in line_rules(mapping) if one.name == rule), rule)
