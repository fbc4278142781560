"""Alarms as they happen: one scored event at a time, judged as a batch judges the stretch that ends with it.

    live = LiveDetector(shared, Usual.of(profile_log(shared, log), "last month"))
    alarm = live.take(event, scorer.push(event))

Kept of a consumer are the last ``WINDOW`` events and how often they did what before: never more, however long they stay.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from client.anomalies.alarms import Alarm, AlarmEvent, nearest_kind, reasons_of
from client.anomalies.detectors import Scored
from client.anomalies.evidence import Verdict, quiet_level, weighed
from client.anomalies.likelihood import Surprise
from client.anomalies.usual import Usual
from client.anomalies.windows import FEWEST, OWN, WINDOW, Table, profile_names, profile_stretches
from client.scoring.lines import DriftingLevel
from client.scoring.model import SharedModel
from client.scoring.stream import ScoredEvent, StreamEvent, StreamScorer
from common.data import ConsumerSequences
from common.model import STEP_HEADS

__all__ = ["Alarm", "LiveDetector", "SharedModel", "StreamScorer", "Usual", "Verdict"]  # all that a caller needs

LEAST = 1e-6
_EVERY = WINDOW // 2  # events of a consumer between two scores that count as usual, as windows of a batch overlap
_STARTED = 5_000  # scores of the reference that the threshold begins with


@dataclass
class _Recent:
    """What is kept of one consumer."""

    before: dict[str, NDArray[np.int64]]  # how often they did what before the events below
    integers: deque[tuple[int, ...]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    times: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW))
    nats: deque[tuple[float, ...]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    position: int = 0
    quiet_until: int = 0  # the position from which on no event was part of the last alarm


class LiveDetector:
    """Scores the newest stretch of a consumer with every event; at most ``capacity`` consumers are remembered.

    Guarantee: for consumers of at most ``MAX_EVENTS`` events that were not forgotten, the score behind an event is that of
    ``detect`` for the window that ends with it, up to rounding.
    """

    def __init__(
        self,
        shared: SharedModel,
        usual: Usual,
        *,
        rate: float = 0.01,
        verdicts: Sequence[Verdict] = (),
        capacity: int = 100_000,
    ) -> None:
        self._shared, self._usual, self._rate, self._capacity = shared, usual, rate, capacity
        self._kept: OrderedDict[int, _Recent] = OrderedDict()
        self._edges = np.array(shared.spec.gap_edges_s)
        self._types = ("", *shared.spec.event_types)
        self._heads = tuple(name for name in shared.heads if name in STEP_HEADS)
        spread = np.linspace(0, len(usual.scores) - 1, min(len(usual.scores), _STARTED)).astype(np.intp)
        self._level = DriftingLevel(rate, usual.scores[spread])
        self._starts = usual.start_levels(rate)
        self._first = max(float(np.quantile(usual.scores, 1 - rate)), LEAST)
        self.score = math.nan
        self.hear(verdicts)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def threshold(self) -> float:
        """From which score on there is an alarm now, for consumers of whom nobody has said no."""
        known = self._level.level
        return (self._first if known is None else max(known, LEAST)) * self._factor

    @property
    def moved(self) -> bool:
        """Whether verdicts have moved the threshold."""
        return self._factor != 1

    @property
    def left(self) -> float:
        """The share of the reference's own stretches that would be an alarm now."""
        return float((self._usual.scores >= self.threshold).mean())

    def hear(self, verdicts: Sequence[Verdict]) -> None:
        """Take standing verdicts into account from now on, all of them."""
        self._factor = weighed(verdicts).factor
        said_no = {one.consumer for one in verdicts if not one.anomaly}
        self._noes = {who: [one for one in verdicts if one.consumer == who] for who in said_no}

    def warm(self, scored: Scored) -> None:
        """Remember the consumers of a log as if its events had been taken; nothing is reported."""
        sequences = scored.sequences
        values = {name: self._usual.habits.value(sequences, name) for name in OWN}
        ends = sequences.timestamps[sequences.offsets[1:] - 1]
        for row in np.argsort(ends, kind="stable")[-self._capacity :].tolist():
            begin, end = (int(x) for x in sequences.offsets[row : row + 2])
            recent, cut = self._new(), max(end - WINDOW, begin)
            for name in OWN:
                shares = self._usual.habits.shares[name]
                recent.before[name] += np.bincount(values[name][begin:cut], minlength=len(shares))
            recent.integers.extend(map(tuple, sequences.integers[cut:end].tolist()))
            recent.times.extend(sequences.timestamps[cut:end].tolist())
            recent.nats.extend(map(tuple, scored.nats[cut:end].tolist()))
            recent.position = end - begin
            self._keep(int(sequences.consumers[row]), recent)

    def take(self, event: StreamEvent, scored: ScoredEvent) -> Alarm | None:
        """Judge the stretch that ends with this event; the alarm, if it is one and the last one is over.

        ``score`` is then that of the stretch, NaN for fewer than three events.
        """
        recent = self._kept.pop(event.consumer, None) or self._new()
        self._remember(recent, event, scored)
        self._keep(event.consumer, recent)
        self.score = math.nan
        if len(recent.times) < FEWEST:
            return None
        events = self._events(event.consumer, recent)
        profile = self._profiles(events, recent, np.arange(len(recent.times))[None])
        self.score = float(self._usual.detector.score(profile)[0])
        limit, base = self._limits(recent, event)
        alarm = (
            self._alarm(event.consumer, recent, events, (profile, limit, base))
            if self._raised(recent, limit)
            else None
        )
        if recent.position % _EVERY == 0:
            self._level.add(self.score, event.consumer)
        return alarm

    def forget(self, consumer: int) -> bool:
        """Let go of a consumer; whether there was one."""
        return self._kept.pop(consumer, None) is not None

    def _limits(self, recent: _Recent, event: StreamEvent) -> tuple[float, float]:
        """From which score on this stretch is an alarm, and from which it would be if nobody had said anything."""
        few = len(recent.times)
        base = max(self.threshold / self._factor, float(self._starts[few]) if few < WINDOW else 0.0)
        quiet = quiet_level(self._noes.get(event.consumer, ()), event.consumer, event.timestamp)
        return max(base * self._factor, quiet), base

    def _raised(self, recent: _Recent, limit: float) -> bool:
        return self.score >= limit and recent.position >= recent.quiet_until

    def _new(self) -> _Recent:
        return _Recent({name: np.zeros(len(self._usual.habits.shares[name]), dtype=np.int64) for name in OWN})

    def _keep(self, consumer: int, recent: _Recent) -> None:
        self._kept[consumer] = recent
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def _remember(self, recent: _Recent, event: StreamEvent, scored: ScoredEvent) -> None:
        if len(recent.times) == WINDOW:
            oldest = dict(zip(ConsumerSequences.integer_names, recent.integers[0], strict=True))
            for name in OWN:
                counts = recent.before[name]
                counts[min(oldest[name], len(counts) - 1)] += 1
        features = dict(event.features)
        if recent.times:  # a clock that jumps back counts as no pause, as in the batch after sorting
            pause_s = max(event.timestamp - recent.times[-1], 0) / 1e6
            features["gap"] = int(np.searchsorted(self._edges, pause_s, side="right")) + 1
        recent.integers.append(tuple(features[name] for name in ConsumerSequences.integer_names))
        recent.times.append(event.timestamp)
        recent.nats.append(tuple(scored.nats.values()))
        recent.position += 1

    def _events(self, consumer: int, recent: _Recent) -> tuple[ConsumerSequences, Surprise]:
        count = len(recent.times)
        sequences = ConsumerSequences(
            np.array([consumer], dtype=np.uint64),
            np.array([0, count]),
            np.array(recent.integers, dtype=np.int32),
            np.zeros((count, 3), dtype=np.float32),
            np.array(recent.times, dtype=np.int64),
        )
        return sequences, Surprise(
            self._heads, np.array(recent.nats, dtype=np.float32), np.zeros((count, 0), np.float32)
        )

    def _profiles(
        self, events: tuple[ConsumerSequences, Surprise], recent: _Recent, at: NDArray[np.int64]
    ) -> Table:
        return profile_stretches(*events, self._usual.habits, at, recent.before)

    def _alarm(
        self,
        consumer: int,
        recent: _Recent,
        events: tuple[ConsumerSequences, Surprise],
        judged: tuple[Table, float, float],
    ) -> Alarm:
        profile, limit, base = judged
        sequences, count = events[0], len(recent.times)
        recent.quiet_until = recent.position + WINDOW
        # without each event in turn: an even share, and by how much more the score falls than without another
        others = np.array([[i for i in range(count) if i != left] for left in range(count)])
        without = self._usual.detector.score(self._profiles(events, recent, others))
        drove = self.score / count + without.mean() - without
        names = profile_names(self._heads)
        unlike = float(profile[0, [names.index(f"unlike_own_{name}") for name in OWN]].sum())
        kind, distance = nearest_kind(*self._shares(sequences, np.maximum(drove, 0)), unlike)
        digest = hashlib.blake2b(f"{consumer} {recent.times[-1]} {recent.position}".encode(), digest_size=6)
        usual = self._usual
        return Alarm(
            digest.hexdigest(),
            consumer,
            recent.times[-1],
            recent.position,
            self.score,
            limit,
            base,
            self._limit_words(limit, count),
            kind,
            distance,
            reasons_of(profile[0], usual.profile, usual.detector.deviation(profile)[0], names),
            tuple(self._shown(sequences, recent, i, float(drove[i])) for i in range(count)),
        )

    def _limit_words(self, limit: float, count: int) -> str:
        words = f"what {self._rate:.1%} of recent stretches reach, beginning with {len(self._usual.scores):,} of {self._usual.source}"
        if self._factor != 1:
            words += f", moved by verdicts {self._factor - 1:+.1%}"
        if limit > self.threshold and count < WINDOW:
            words = f"what {self._rate:.1%} of the consumers of {self._usual.source} reach in their first events"
        elif limit > self.threshold:
            words += ", raised for this consumer: a person said no"
        return words

    def _shares(self, sequences: ConsumerSequences, drove: Table) -> tuple[Mapping[str, float], float]:
        """Shares of event types and of the most frequent item, each event as heavy as it drove the alarm."""
        weight = drove + 0.1 * drove.max(initial=0) + 1e-9
        weight = weight / weight.sum()
        shares, items = defaultdict[str, float](float), defaultdict[int, float](float)
        for kind, item, heavy in zip(sequences.column("event"), sequences.column("item"), weight, strict=True):
            shares[self._types[int(kind)]] += heavy
            items[int(item)] += heavy if item > 0 else 0.0
        return shares, max(items.values(), default=0.0)

    def _shown(self, sequences: ConsumerSequences, recent: _Recent, i: int, drove: float) -> AlarmEvent:
        item, category = int(sequences.column("item")[i]), int(sequences.column("category")[i])
        return AlarmEvent(
            recent.times[i],
            self._types[int(sequences.column("event")[i])],
            self._shared.item_name(item),
            self._shared.category_name(category),
            float(np.nansum(recent.nats[i])),
            drove,
        )
