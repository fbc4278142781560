"""The consumers that are remembered: one row of a large array and one packed row each; who was seen longest ago goes first."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.serving.row import Row
from common.errors import ConfigError

_NONE = -1


@dataclass(frozen=True)
class Frozen:
    """All consumers at one moment, seen longest ago first. Shapes: ``consumers: uint64[N]``, ``states: float32[N, S]``."""

    consumers: NDArray[np.uint64]
    states: NDArray[np.float32]
    rows: list[bytes]


class Store:
    """At most ``capacity`` consumers. Memory is taken when it is used, not before.

    The order of use is a linked list in two arrays: an ordered dictionary of a million takes 100 MB more. Numbers that
    rise with every use give the order of all at once, without following the list.
    """

    def __init__(self, capacity: int, state_size: int) -> None:
        if not 1 <= capacity <= 100_000_000:
            raise ConfigError(f"{capacity} consumers cannot be remembered", hint="1 to 100,000,000")
        self.capacity, self.forgotten = capacity, 0
        self._place: dict[int, int] = {}
        self._rows: list[bytes] = []
        self._free: list[int] = []
        try:
            self._states = np.zeros((capacity, state_size), dtype=np.float32)
            self._owner, self._used = (np.zeros(capacity, dtype=np.uint64) for _ in range(2))
            self._before, self._after = (np.zeros(capacity, dtype=np.int32) for _ in range(2))
        except MemoryError:
            raise ConfigError(f"no memory for {capacity} consumers", hint="a smaller --consumers") from None
        self._oldest = self._newest = _NONE
        self._row_bytes = self._tick = 0

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, consumer: int) -> bool:
        return consumer in self._place

    def get(self, consumer: int) -> tuple[Row, NDArray[np.float32]] | None:
        """A consumer's row and state (a view), None if nothing is remembered. Looking does not count as use."""
        place = self._place.get(consumer)
        return None if place is None else (Row.unpack(self._rows[place]), self._states[place])

    def put(self, consumer: int, row: Row, state: NDArray[np.float32]) -> None:
        """Remember a consumer as the one seen last."""
        packed = row.pack()
        place = self._place.get(consumer, _NONE)
        if place == _NONE:
            place = self._new_place()
            self._place[consumer], self._owner[place] = place, consumer
        else:
            self._unlink(place)
        self._row_bytes += len(packed) - len(self._rows[place])
        self._rows[place], self._states[place] = packed, state
        self._link(place)
        self._tick += 1
        self._used[place] = self._tick

    def remove(self, consumer: int) -> bool:
        """Forget one consumer; whether anything was remembered. Guarantee: the state is overwritten."""
        place = self._place.pop(consumer, _NONE)
        if place == _NONE:
            return False
        self._unlink(place)
        self._row_bytes -= len(self._rows[place])
        self._rows[place], self._states[place] = b"", 0.0
        self._owner[place] = self._used[place] = 0
        self._free.append(place)
        return True

    def freeze(self) -> Frozen:
        """A copy that does not change any more."""
        used = self._used[: len(self._rows)]
        places = np.flatnonzero(used)
        order = places[np.argsort(used[places])]
        return Frozen(self._owner[order], self._states[order], [self._rows[place] for place in order])

    def thaw(self, frozen: Frozen) -> None:
        """Take over a copy into an empty store; the oldest beyond its capacity are let go."""
        for consumer, state, row in zip(frozen.consumers.tolist(), frozen.states, frozen.rows, strict=True):
            self.put(consumer, Row.unpack(row), state)

    def size_bytes(self) -> int:
        """What the consumers take: states, packed rows, their places and order."""
        count = len(self)
        objects = count * (sys.getsizeof(b"") + 8) + sys.getsizeof(self._place) + count * 64
        return count * (self._states.shape[1] * 4 + 24) + self._row_bytes + objects

    def _new_place(self) -> int:
        if len(self._place) >= self.capacity:
            self.remove(int(self._owner[self._oldest]))
            self.forgotten += 1
        if self._free:
            return self._free.pop()
        self._rows.append(b"")
        return len(self._rows) - 1

    def _unlink(self, place: int) -> None:
        before, after = int(self._before[place]), int(self._after[place])
        if before == _NONE:
            self._oldest = after
        else:
            self._after[before] = after
        if after == _NONE:
            self._newest = before
        else:
            self._before[after] = before

    def _link(self, place: int) -> None:
        self._before[place], self._after[place] = self._newest, _NONE
        if self._newest == _NONE:
            self._oldest = place
        else:
            self._after[self._newest] = place
        self._newest = place
