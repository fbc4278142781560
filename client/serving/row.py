"""What is kept of one consumer beside the recurrent state: sums and the last events, packed into bytes between events.

A million consumers as objects would be ten times as large.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from client.serving.engine import Seen
from common.data import EVENT_TYPES
from common.model.history import Past

MEAN_OF = 16  # events whose surprise is averaged
MOST_OLDER = 500  # items remembered of events that are no longer kept
EVENT = np.dtype(
    [
        ("time", "<i8"), ("mark", "<u4"), ("item", "<i4"), ("category", "<i4"), ("price", "<f4"), ("quantity", "<f4"),
        ("gap", "u1"), ("event", "u1"), ("bucket", "u1"),
    ]
)  # fmt: skip
OLDER = np.dtype([("item", "<i4"), ("count", "<u4"), ("latest", "<u4")])
_KINDS = len(EVENT_TYPES)
_PURCHASE = EVENT_TYPES.index("purchase") + 1
_HEAD = struct.Struct(f"<qqqIIIIi4iBBH{_KINDS}I{_KINDS}I")
_PACKED_EVENT = struct.Struct("<qIiiffBBB")


@dataclass(frozen=True)
class Encoded:
    """An event in the model's own ids. Units: ``time`` microseconds. ``bucket``: of the price; the gap is filled in later."""

    time: int
    mark: int
    item: int
    category: int
    price: float
    quantity: float
    event: int
    bucket: int
    gap: int = 0

    def pack(self) -> bytes:
        """As it is kept."""
        return _PACKED_EVENT.pack(
            self.time, self.mark, self.item, self.category, self.price, self.quantity, self.gap, self.event, self.bucket
        )  # fmt: skip

    def features(self) -> dict[str, int]:
        """The integer features of the batch encoding; the calendar follows from the time."""
        at = time.gmtime(self.time // 1_000_000)
        return {
            "event": self.event,
            "item": self.item,
            "category": self.category,
            "price": self.bucket,
            "gap": self.gap,
            "hour": at.tm_hour + 1,
            "weekday": at.tm_wday + 1,
            "month": at.tm_mon,
        }


def unpacked(events: bytes, begin: int) -> Encoded:
    """The kept event that begins at a byte."""
    at, mark, item, category, price, quantity, gap, event, bucket = _PACKED_EVENT.unpack_from(events, begin)
    return Encoded(at, mark, item, category, price, quantity, event, bucket, gap)


@dataclass(slots=True)
class Row:
    """One consumer between two events. ``again``: position of the earlier event about the last item, -1 where there is
    none; ``session``: position at which the session began."""

    first: int = 0
    last: int = 0
    bought: int = 0
    position: int = 0
    session: int = 0
    sessions: int = 0
    earlier: int = 0
    again: int = -1
    latest: tuple[int, int, int] = (0, 0, 0)
    category: int = 0
    event: int = 0
    kinds: list[int] = field(default_factory=lambda: [0] * _KINDS)
    session_kinds: list[int] = field(default_factory=lambda: [0] * _KINDS)
    recent: tuple[float, ...] = ()
    older: bytes = b""
    events: bytes = b""

    def pack(self) -> bytes:
        """As bytes; ``unpack`` gives the row back."""
        head = _HEAD.pack(
            self.first, self.last, self.bought, self.position, self.session, self.sessions, self.earlier, self.again,
            *self.latest, self.category, self.event, len(self.recent), len(self.older) // OLDER.itemsize,
            *self.kinds, *self.session_kinds,
        )  # fmt: skip
        return head + struct.pack(f"<{len(self.recent)}f", *self.recent) + self.older + self.events

    @classmethod
    def unpack(cls, packed: bytes) -> Row:
        """Inverse of ``pack``."""
        head = _HEAD.unpack_from(packed)
        recent, older = head[13], head[14]
        begin = _HEAD.size + 4 * recent
        end = begin + older * OLDER.itemsize
        first, last, bought, position, session, sessions, earlier, again = head[:8]
        return cls(
            first, last, bought, position, session, sessions, earlier, again,
            latest=head[8:11], category=head[11], event=head[12],
            kinds=list(head[15 : 15 + _KINDS]), session_kinds=list(head[15 + _KINDS :]),
            recent=struct.unpack_from(f"<{recent}f", packed, _HEAD.size), older=packed[begin:end], events=packed[end:],
        )  # fmt: skip

    @property
    def kept(self) -> int:
        """How many of the last events are kept."""
        return len(self.events) // EVENT.itemsize

    def table(self) -> NDArray[np.void]:
        """The kept events, oldest first."""
        return np.frombuffer(self.events, dtype=EVENT)

    def last_event(self) -> Encoded:
        """The latest event."""
        return unpacked(self.events, len(self.events) - EVENT.itemsize)

    def seen(self) -> Seen:
        """What heads are told."""
        items = self.table()["item"].astype(np.int64)
        if self.older:
            items = np.concatenate([np.frombuffer(self.older, dtype=OLDER)["item"].astype(np.int64), items])
        return Seen(items[items > 0], self.latest, self.category, self.event)

    def holds(self, event: Encoded) -> bool:
        """Whether the same line is among the kept events. A time of midnight says a day only, and repeats nothing."""
        if not self.events or event.time > self.last or event.time % 86_400_000_000 == 0:
            return False
        table = self.table()
        return bool(((table["time"] == event.time) & (table["mark"] == event.mark)).any())

    def advance(self, event: Encoded, most: int, session_gap_us: int) -> None:
        """Take in the next event; of those before it at most ``most - 1`` stay."""
        new = self.position == 0 or event.time - self.last > session_gap_us
        if self.position == 0:
            self.first = event.time
        if new:
            self.session, self.sessions, self.session_kinds = self.position, self.sessions + 1, [0] * _KINDS
        self.earlier, self.again = self._before(event.item)
        self.kinds[event.event - 1] += 1
        self.session_kinds[event.event - 1] += 1
        if event.event == _PURCHASE:
            self.bought = event.time
        if event.item:
            self.latest = (event.item, *self.latest[:2])
        self.category = event.category or self.category
        self.event, self.last = event.event, event.time
        self.events += event.pack()
        self.position += 1
        if self.kept > most:
            self._let_go(self.kept - most)

    def _before(self, item: int) -> tuple[int, int]:
        """How many earlier events were about an item, and the position of the latest."""
        if not item or not self.events:
            return 0, -1
        found = np.flatnonzero(self.table()["item"] == item)
        count, place = len(found), self.position - self.kept + int(found[-1]) if len(found) else -1
        if self.older:
            older = np.frombuffer(self.older, dtype=OLDER)
            for old in older[older["item"] == item]:
                count, place = count + int(old["count"]), max(place, int(old["latest"]))
        return count, place

    def _let_go(self, count: int) -> None:
        """Keep of the oldest events only which items they were about."""
        begin = self.position - self.kept
        for place, item in enumerate(self.table()["item"][:count].tolist(), start=begin):
            if item:
                older = np.frombuffer(self.older, dtype=OLDER)
                same = older["item"] == item
                times = 1 + int(older["count"][same].sum())
                rest = older[~same][-(MOST_OLDER - 1) :]  # the one seen longest ago is first
                self.older = rest.tobytes() + struct.pack("<iII", item, times, place)
        self.events = self.events[count * EVENT.itemsize :]

    def past(self) -> Past:
        """What the intent head reads of the past."""
        facts: Mapping[str, int] = {
            "kind": self.event, "events": self.position, "session_events": self.position - self.session,
            "sessions": self.sessions, "earlier": self.earlier, "first": self.first, "last": self.last,
            "bought": self.bought or self.last,
        }  # fmt: skip
        arrays = {name: np.array([value], dtype=np.int64) for name, value in facts.items()}
        kinds = {
            name: np.array(getattr(self, name), dtype=np.int64)[:, None] for name in ("kinds", "session_kinds")
        }
        again, ever = np.array([self.again >= self.session]), np.array([self.kinds[_PURCHASE - 1] > 0])
        return Past(**kinds, **arrays, again=again, ever=ever)
