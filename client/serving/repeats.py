"""Events that were answered already: a repeated id gets the same answer and changes nothing. Bounded."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

Answered = tuple[int, bytes]  # consumer, answer


class Repeats:
    """Answers by event id, the latest ``most``; which was asked for does not move an id to the end."""

    def __init__(self, most: int, key: bytes) -> None:
        self._most, self._key = most, key
        self._known: OrderedDict[int, Answered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def place(self, event_id: str, consumer: str) -> int:
        """What stands for an id of a consumer's events, as both were sent: a keyed hash, so that no id is kept."""
        said = f"{consumer}\0{event_id}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(said, key=self._key, digest_size=8).digest(), "little")

    def get(self, place: int) -> bytes | None:
        """The answer given before."""
        found = self._known.get(place)
        return None if found is None else found[1]

    def put(self, place: int, consumer: int, answer: bytes) -> None:
        """Remember an answer; the oldest one goes."""
        self._known[place] = (consumer, answer)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self, consumer: int) -> int:
        """Remove the answers about one consumer; how many there were."""
        gone = [place for place, (who, _) in self._known.items() if who == consumer]
        for place in gone:
            del self._known[place]
        return len(gone)

    def all(self) -> list[tuple[int, int, bytes]]:
        """Place, consumer and answer of each, oldest first."""
        return [(place, *answered) for place, answered in self._known.items()]
