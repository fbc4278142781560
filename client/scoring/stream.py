"""Scoring one event after another: the model's state is carried per consumer, so an event costs the same always.

    scorer = StreamScorer(shared)
    for event in events:
        scored = scorer.push(event)

Memory is bounded: the consumers seen longest ago are forgotten and begin anew if they come back.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.anomalies.likelihood import surprise
from client.scoring.consumers import chunks
from client.scoring.model import SharedModel
from common.data import (
    EARLIEST,
    LATEST,
    MAX_PRICE,
    ConsumerSequences,
    EventLog,
    event_type,
    hashed_bucket,
    one_id,
    one_number,
    one_time,
    pseudonym,
)
from common.errors import BadInputError, ConfigError
from common.model import RECENT, STEP_HEADS, Batch, Batcher, ClassHead, whole_rows

MEAN_OF = 16  # events whose surprise is averaged
SEEN_ITEMS = 500  # of a consumer that the copy path remembers


@dataclass(frozen=True)
class StreamEvent:
    """One event as the model reads it. Units: ``timestamp`` microseconds since 1970, UTC.

    ``features`` are the model's own integer ids by feature name; the pause to the event before is filled in.
    """

    consumer: int
    timestamp: int
    features: Mapping[str, int]


@dataclass(frozen=True)
class ScoredEvent:
    """How surprising an event was: nats per head (NaN where nothing could be said), their sum, and the mean
    sum of the consumer's last ``MEAN_OF`` events. ``position`` counts the consumer's events from 0.
    """

    consumer: int
    timestamp: int
    position: int
    nats: Mapping[str, float]
    surprise: float
    recent: float


@dataclass
class _Memory:
    """What is kept of one consumer between events."""

    hidden: NDArray[np.float32]  # behind the last event: what the heads read
    state: Tensor  # of one consumer, as in SequenceModel.step
    last: int
    seen: dict[int, None] = field(default_factory=dict)
    latest: list[int] = field(default_factory=list)  # the last items known, the newest last
    category: int = 0  # the last one known
    event: int = 0  # the last one's type
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=MEAN_OF))
    position: int = 0


class StreamScorer:
    """Scores events as they come; at most ``capacity`` consumers are remembered.

    Guarantee: for consumers that were not forgotten and have at most ``SEEN_ITEMS`` different items, the
    nats are those of ``likelihood.surprise`` on the whole log, up to rounding.

    Example:
        >>> scorer = StreamScorer(open_model(Path("runs/latest")))  # doctest: +SKIP
        >>> scorer.push(scorer.event("c17", "2024-05-01T10:00:00", "view", item="item-3")).surprise  # doctest: +SKIP
    """

    def __init__(self, shared: SharedModel, capacity: int = 100_000, key: bytes = b"stream") -> None:
        self._shared, self._capacity, self._key = shared, capacity, key
        if not isinstance(capacity, int) or capacity < 1:
            raise ConfigError(f"{capacity!r} consumers cannot be remembered", hint="1 or more")
        self._heads = tuple(name for name in shared.heads if name in STEP_HEADS)
        if not self._heads:
            raise BadInputError(
                f"this model does not predict behaviour, it was trained for: {', '.join(shared.heads)}",
                hint="use a model with the heads next-event, next-category or next-item",
            )
        self._kept: OrderedDict[int, _Memory] = OrderedDict()
        self._reader = _Reader(shared)
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._kept)

    def event(self, consumer: str | int, timestamp: str | float, kind: str, **known: Any) -> StreamEvent:
        """Encode an event given in the words of the log, whose ids may be numbers. Raises: BadInputError."""
        return self.parse({**known, "consumer": consumer, "timestamp": timestamp, "event": kind})

    def parse(self, line: Mapping[str, Any]) -> StreamEvent:
        """Encode one object of a stream. Raises: BadInputError naming the field that is wrong."""
        consumer = one_id(line.get("consumer"), "consumer")
        if not consumer:
            raise BadInputError("consumer is missing", hint="every event names its consumer")
        return self._reader.read(line, pseudonym(consumer, self._key))

    def push(self, event: StreamEvent) -> ScoredEvent:
        """Score one event and remember it; the cost does not depend on how much came before."""
        memory = self._kept.pop(event.consumer, None)
        features = dict(event.features)
        # a clock that jumps back counts as no pause, as in the batch after sorting
        pause_us = max(event.timestamp - memory.last, 0) if memory else None
        features["gap"] = self._reader.gap(pause_us)
        nats = self._nats(memory, features) if memory else dict.fromkeys(self._heads, float("nan"))
        memory = self._advance(memory, features, event.timestamp)
        total = float(np.nansum(list(nats.values())))
        if memory.position:
            memory.recent.append(total)
        recent = sum(memory.recent) / len(memory.recent) if memory.recent else 0.0
        scored = ScoredEvent(event.consumer, event.timestamp, memory.position, nats, total, recent)
        memory.position += 1
        self._kept[event.consumer] = memory
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
            self.forgotten += 1
        return scored

    def warm(self, log: EventLog, max_events: int = 400) -> NDArray[np.float64]:
        """Remember the consumers of a log as if its events had been pushed; returns their ``recent``: ``float64[N]``.

        Batches do it many times faster than events. Only the last ``max_events`` of a consumer are read.
        """
        sequences = self._shared.sequences(log, max_events=max_events)
        total = np.nansum(surprise(self._shared, sequences).nats, axis=1)
        order = np.argsort(sequences.timestamps[sequences.offsets[1:] - 1], kind="stable")[-self._capacity :]
        batcher = Batcher(sequences, (), whole_rows(sequences))
        for rows in chunks(len(order), 256):
            batch = batcher.packed(order[rows])
            for memory, row in zip(self._memories(batch, sequences), batch.consumers.tolist(), strict=True):
                part = total[sequences.offsets[row] + 1 : sequences.offsets[row + 1]]
                memory.recent.extend(part[-MEAN_OF:].tolist())
                self._kept[int(sequences.consumers[row])] = memory
        self._kept = OrderedDict(sorted(self._kept.items(), key=lambda pair: pair[1].last))
        recent = [m.recent for m in self._kept.values() if m.recent]
        return np.array([sum(values) / len(values) for values in recent])

    def _memories(self, batch: Batch, sequences: ConsumerSequences) -> list[_Memory]:
        model = self._shared.model
        with torch.no_grad():
            read, states = model.carried(batch)
            hidden = read[batch.last_row].numpy()
        item, ends = sequences.column("item"), sequences.offsets[1:]
        memories = []
        for place, row in enumerate(batch.consumers.tolist()):
            begin, end = int(sequences.offsets[row]), int(ends[row])
            state = states[:, :, place : place + 1].clone()
            memory = _Memory(hidden[place].copy(), state, int(sequences.timestamps[end - 1]))
            known = [int(i) for i in item[begin:end] if i > 0]
            memory.seen = dict.fromkeys(list(dict.fromkeys(known[::-1]))[:SEEN_ITEMS][::-1])
            memory.latest = known[-RECENT:]
            memory.event = int(sequences.column("event")[end - 1])
            memory.category = int(batch.category[batch.last_row[place]])
            memory.position = end - begin
            memories.append(memory)
        return memories

    def _nats(self, memory: _Memory, features: Mapping[str, int]) -> dict[str, float]:
        nats = {}
        hidden = torch.from_numpy(memory.hidden)[None]
        asked = _one_row(features, memory)
        with torch.no_grad():
            for name in self._heads:
                head, target = self._shared.model.heads[name], features[STEP_HEADS[name]]
                assert isinstance(head, ClassHead)
                if target == 0:
                    nats[name] = float("nan")
                    continue
                nats[name] = -float(torch.log_softmax(head.logits(hidden, asked), dim=1)[0, target])
        return nats

    def _advance(self, memory: _Memory | None, features: Mapping[str, int], timestamp: int) -> _Memory:
        model = self._shared.model
        before = model.first_state(1) if memory is None else memory.state
        with torch.no_grad():
            hidden, state = model.step({name: torch.tensor([value]) for name, value in features.items()}, before)
        kept = memory or _Memory(hidden[0].numpy(), state, timestamp)
        kept.hidden, kept.state, kept.last = hidden[0].numpy(), state, timestamp
        item = features["item"]
        if item:
            kept.seen.pop(item, None)
            kept.seen[item] = None
            kept.latest = [*kept.latest, item][-RECENT:]
            if len(kept.seen) > SEEN_ITEMS:
                kept.seen.pop(next(iter(kept.seen)))
        kept.category, kept.event = features.get("category", 0) or kept.category, features.get("event", 0)
        return kept


def _one_row(features: Mapping[str, int], memory: _Memory) -> Batch:
    """A batch of one consumer and one step; what was seen before is given, not derived."""
    seen, recent = memory.seen, memory.latest[-RECENT:][::-1]
    one, zero = torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    return Batch(
        consumers=zero,
        lengths=one,
        inputs={name: torch.tensor([value]) for name, value in features.items()},
        targets={},
        weights={},
        valid=torch.ones(1, dtype=torch.bool),
        consumer_of_row=zero,
        step_of_row=zero,
        batch_sizes=one,
        last_row=zero,
        seen_rows=torch.zeros(len(seen), dtype=torch.int64),
        seen_items=torch.tensor(list(seen), dtype=torch.int64),
        category=torch.tensor([memory.category]),
        recent=torch.tensor([recent + [0] * (RECENT - len(recent))]),
        last_event=torch.tensor([memory.event]),
    )


class _Reader:
    """Turns the words of an event into the model's ids, by the same public constants as the batch encoding."""

    def __init__(self, shared: SharedModel) -> None:
        self._shared = shared
        spec, names = shared.spec, shared.catalogue
        self._items = {name: i for i, name in enumerate(names.items, start=1)} if names else {}
        self._categories = {name: i for i, name in enumerate(names.categories, start=1)} if names else {}
        self._events = {name: i for i, name in enumerate(spec.event_types, start=1)}
        self._gap_edges = np.array(spec.gap_edges_s)
        self._price_edges = np.array(spec.price_edges)

    def gap(self, pause_us: int | None) -> int:
        """Bucket of the pause to the event before; 0 for the first."""
        if pause_us is None:
            return 0
        return int(np.searchsorted(self._gap_edges, pause_us / 1e6, side="right")) + 1

    def read(self, line: Mapping[str, Any], consumer: int) -> StreamEvent:
        """Encode one event. Raises: BadInputError for a missing or unreadable time, event type or price."""
        moment = _moment(line.get("timestamp"))
        kind = self._events.get(event_type(str(line.get("event"))), 0)
        if not kind:
            raise BadInputError(
                f"event type {line.get('event')!r} is unknown", hint=f"known: {', '.join(self._events)}"
            )
        spec = self._shared.spec
        item = self._index(one_id(line.get("item"), "item"), self._items, spec.catalogue_items, spec.item_buckets)
        own = self._index(
            one_id(line.get("category"), "category"),
            self._categories,
            spec.catalogue_categories,
            spec.category_buckets,
        )
        names = self._shared.catalogue
        listed = names.item_category[item] if names is not None and item <= spec.catalogue_items else 0
        features = {
            "event": kind,
            "item": int(self._shared.rows.translate(np.array([item]))[0]),
            "category": int(listed) or own,
            "price": self._price(line.get("price")),
            "gap": 0,
            "hour": moment.hour + 1,
            "weekday": moment.isoweekday(),
            "month": moment.month,
        }
        return StreamEvent(consumer, _microseconds(moment), features)

    @staticmethod
    def _index(name: str, known: Mapping[str, int], first: int, buckets: int) -> int:
        return (known.get(name) or hashed_bucket(name, first, buckets)) if name else 0

    def _price(self, value: Any) -> int:
        price = one_number(value, "price")
        if price is None or not 0 < price <= MAX_PRICE:
            return 0
        return int(np.searchsorted(self._price_edges, np.float32(price), side="right")) + 1


def _moment(value: Any) -> datetime:
    moment = one_time(value)
    if not EARLIEST <= moment < LATEST:
        raise BadInputError(
            f"timestamp {str(value)[:60]!r} is before 1995 or after 2036", hint="a placeholder is no time"
        )
    return moment.replace(tzinfo=UTC)


def _microseconds(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
