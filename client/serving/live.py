"""A model that answers live: events go in one at a time, every head answers about each consumer at any moment.

live = LiveModel(shared, engine, capacity=100_000, key=key)
consumer, event = live.read({"consumer": "c17", "timestamp": "2024-05-01T10:00:00", "event": "view", "item": "i3"})
live.push(consumer, event).surprise
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client.serving.encoding import Encoder, sequences_of
from client.serving.engine import Chances, Engine, Floats, Seen
from client.serving.names import candidates
from client.serving.row import EVENT, MEAN_OF, Encoded, Row, unpacked
from client.serving.store import Store
from common.data import Mapping as Format, mappings_of, pseudonym
from common.tasks import INTENT, STEP_HEADS

if TYPE_CHECKING:
    from client.scoring.model import SharedModel
    from common.data import ConsumerSequences, EventLog

_DAY_US = 86_400_000_000
MOST_KEPT = 200  # events of a consumer, whatever the model was trained on
LATE_SORTED, LATE_APPENDED = "sorted in", "appended"


@dataclass(frozen=True)
class Scored:
    """How surprising an event was: nats of each head (NaN: nothing can be said), their sum, and the mean sum of the
    consumer's last events. ``position`` counts from 0. ``late``: what became of an event older than the latest.
    ``repeated``: the same line was there, nothing has changed.
    """

    position: int
    nats: Mapping[str, float]
    surprise: float
    recent: float
    late: str = ""
    repeated: bool = False


@dataclass(frozen=True)
class Likely:
    """A class that may come next, its probability, and how much of it each part says."""

    name: str
    share: float
    parts: Mapping[str, float]
    seen: bool


class LiveModel:
    """The state of every consumer, and what a model says of it.

    Guarantee: for a consumer that was not forgotten and has at most as many events as the model reads, every answer is
    that of the batch commands on a file of the same lines, up to rounding; so is a late event's, whose place in the row
    is found again as long as all events of the consumer are kept.
    """

    def __init__(
        self, shared: SharedModel, engine: Engine, *, capacity: int, key: bytes, format_name: Format | None = None
    ) -> None:
        self.shared, self.engine, self._key = shared, engine, key
        self.encoder = Encoder(shared, format_name or mappings_of("fedcart")[0])
        self.store = Store(capacity, engine.state_size)
        self.kept = min(shared.max_events, MOST_KEPT) + 1  # one more, for the pause before the first that is read
        self.clock = 0  # time of the newest event
        self._session_gap_us = int(shared.plan.config.intent.session_gap_minutes * 60e6)

    def read(self, raw: Mapping[str, Any]) -> tuple[int, Encoded]:
        """Clean and encode one event. Raises: DroppedError, BadInputError."""
        clean = self.encoder.cleaner.clean(raw)
        return pseudonym(clean.consumer, self._key), self.encoder.encode(clean)

    def consumer(self, name: str) -> int:
        """The pseudonym of an id as the shop writes it, or of a pseudonym as it is printed.

        Raises: BadInputError for one that says nothing.
        """
        meant = self.meant(name)
        return next((who for who in meant if who in self.store), meant[0])

    def meant(self, name: str) -> list[int]:
        """Every pseudonym that a name can mean. Raises: BadInputError."""
        return candidates(name, self._key)

    def push(self, consumer: int, event: Encoded) -> Scored:
        """Score one event and remember it. The cost does not depend on how much came before, unless it is late."""
        held = self.store.get(consumer)
        row, state = held if held is not None else (Row(), self.engine.first())
        if row.holds(event):
            return Scored(row.position, {}, 0.0, _mean(row.recent), repeated=True)
        self.see(event.time)
        late = ""
        if row.position and event.time < row.last:
            if row.kept == row.position:
                return self._sorted_in(consumer, row, event)
            event, late = replace(event, time=row.last), LATE_APPENDED
        scored, state = self._advanced(row, state, event)
        self.store.put(consumer, row, state)
        return replace(scored, late=late) if late else scored

    def see(self, time_us: int) -> None:
        """Move the clock to a newest event; one from beyond tomorrow moves it to tomorrow only.

        At the clock everybody's question about days is asked: a wrong date of one consumer must not answer for all others.
        """
        self.clock = max(self.clock, min(time_us, time.time_ns() // 1_000 + _DAY_US))

    def _sorted_in(self, consumer: int, row: Row, event: Encoded) -> Scored:
        """All events once more, with a late one in its place."""
        events = [unpacked(row.events, begin) for begin in range(0, len(row.events), EVENT.itemsize)]
        place = sum(one.time <= event.time for one in events)
        row, state, found = Row(), self.engine.first(), None
        for number, one in enumerate([*events[:place], event, *events[place:]]):
            scored, state = self._advanced(row, state, one)
            found = scored if number == place else found
        assert found is not None
        self.store.put(consumer, row, state)
        return replace(found, recent=_mean(row.recent), late=LATE_SORTED)

    def _advanced(self, row: Row, state: Floats, event: Encoded, *, score: bool = True) -> tuple[Scored, Floats]:
        """One event more in a row, which changes, and the state behind it."""
        pause = event.time - row.last if row.position else None
        event = replace(event, gap=self.encoder.gap(pause))
        features, nats = event.features(), dict[str, float]()
        if row.position and score:
            read, seen = self._behind(row, state), row.seen()
            nats = {
                name: self.engine.nats(name, read, seen, features[STEP_HEADS[name]]) for name in self.engine.heads
            }
        state, _ = self.engine.step(features, state)
        position, total = row.position, float(np.nansum(list(nats.values()))) if nats else 0.0
        if nats:
            row.recent = (*row.recent, total)[-MEAN_OF:]
        row.advance(event, self.kept, self._session_gap_us)
        return Scored(position, nats, total, _mean(row.recent)), state

    def _behind(self, row: Row, state: Floats) -> Floats:
        return self.engine.read(row.last_event().features(), state)

    def warm(self, log: EventLog) -> NDArray[np.float64]:
        """Remember the consumers of a log as if its events had been pushed; their ``recent``: ``float64[N]``."""
        events, offsets, recent = self.encoder.of_log(log), log.offsets, []
        order = np.argsort(log.frame["timestamp"].to_physical().to_numpy()[offsets[1:] - 1], kind="stable")
        consumers = log.consumers
        for number in order[-self.store.capacity :].tolist():
            row, state = Row(), self.engine.first()
            begin, end = int(offsets[number]), int(offsets[number + 1])
            for place in range(begin, end):
                _, state = self._advanced(row, state, events(place), score=place >= end - MEAN_OF)
            self.store.put(int(consumers[number]), row, state)
            self.see(row.last)
            recent += [_mean(row.recent)] if row.recent else []
        return np.array(recent)

    def known(self, consumer: int) -> Row | None:
        """What is remembered of a consumer."""
        held = self.store.get(consumer)
        return held[0] if held else None

    def chances(self, head: str, consumer: int) -> tuple[Chances, Seen]:
        """What comes next, of a head that the engine has; of an unknown consumer what is likely for anybody."""
        held = self.store.get(consumer)
        if held is None:
            seen = Seen(np.zeros(0, dtype=np.int64), (0, 0, 0), 0, 0)
            return self.engine.chances(head, np.zeros(self.engine.dim, dtype=np.float32), seen), seen
        row, state = held
        seen = row.seen()
        return self.engine.chances(head, self._behind(row, state), seen), seen

    def next_items(self, consumer: int, most: int, barred: frozenset[str], *, exclude_known: bool) -> list[Likely]:
        """The most probable next items, without those that are barred (or known), the rest scaled to sum to 1."""
        found, seen = self.chances("next-item", consumer)
        out = [i for i in map(self.encoder.local_item, barred) if i]
        shares, parts = found.shares, found.parts
        if out or (exclude_known and len(seen.items)):
            gone = np.concatenate([np.array(out, dtype=np.int64), seen.items if exclude_known else seen.items[:0]])
            shares = shares.copy()
            shares[gone] = 0.0
            left = float(shares.sum())
            scale = np.float32(1 / left if left else 0.0)
            shares, parts = shares * scale, {name: part * scale for name, part in parts.items()}
        known = set(seen.items.tolist())
        return [
            Likely(
                self.shared.item_name(i), float(shares[i]), {n: float(p[i]) for n, p in parts.items()}, i in known
            )
            for i in best(shares, most)
        ]

    def next_values(self, consumer: int, what: str, head: str, most: int) -> list[Likely]:
        """The most probable next categories or event types."""
        from client.scoring.predict import class_name

        found, seen = self.chances(head, consumer)
        last = seen.category if what == "category" else seen.event
        return [
            Likely(
                class_name(self.shared, what, i),
                float(found.shares[i]),
                {name: float(part[i]) for name, part in found.parts.items()},
                i == last,
            )
            for i in best(found.shares, most)
        ]

    def intent(self, consumer: int) -> float:
        """Probability of a purchase, asked now: at the newest event of all for a question about days, else at the
        consumer's own last one; NaN for a consumer of whom nothing is known.
        """
        held = self.store.get(consumer)
        if held is None:
            return float("nan")
        row, state = held
        own = self.shared.personal.kept.intent if self.shared.personal is not None else None
        if own is not None and own.trees is not None:
            return self._by_trees(consumer, row)
        history = row.past().numbers(np.array([self.asked_at(row)], dtype=np.int64))[0]
        logit = self.engine.intent_logit(self._behind(row, state), state, history)
        return float(1 / (1 + np.exp(-logit)))

    def asked_at(self, row: Row) -> int:
        """When a question about days is asked: at the newest event of all; any other at the consumer's own last one."""
        return max(self.clock, row.last) if self.shared.plan.config.intent.ask == "days" else row.last

    def _by_trees(self, consumer: int, row: Row) -> float:
        from client.scoring.predict import intent_scores
        from common.model import asked_now

        rows = self.sequences(consumer, row)
        targets = asked_now(self.shared.plan.config, rows, self.asked_at(row))
        return float(intent_scores(self.shared, rows, targets)[0])

    def sequences(self, consumer: int, row: Row) -> ConsumerSequences:
        """The last events of a consumer as a batch reads them."""
        return sequences_of(consumer, row, self.shared.spec, min(self.shared.max_events, MOST_KEPT))

    def answers(self) -> tuple[str, ...]:
        """Names of the heads that can be asked."""
        return (*self.engine.heads, *([INTENT] if self.engine.intent is not None else []))


def best(shares: Floats, most: int) -> list[int]:
    """The most probable classes, best first; none of no probability."""
    count = min(most, len(shares) - 1)
    top = np.argpartition(shares, len(shares) - count)[len(shares) - count :]
    ordered = top[np.lexsort((top, -shares[top]))]
    return [int(i) for i in ordered if shares[i] > 0]


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values) if values else 0.0
