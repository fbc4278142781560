"""What the service does, without HTTP: events to alarms, questions to answers, one consumer forgotten, the state kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import client.serving.snapshot as snapshots
from client.scoring.lines import DriftingLevel
from client.serving.cleaning import DroppedError
from client.serving.live import LiveModel, Scored
from client.serving.repeats import Repeats
from client.serving.verdicts import WORDS, Verdicts
from common.errors import BadInputError, WorkFailedError
from common.strict_json import finite, one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONGEST_ID = 200  # characters of an event id
MOST_CHOICES = 1_000
COUNTED = ("events", "alarms", "repeated_ids", "repeated_lines", "late", "left_out", "refused")
_HEADS = {"item": "next-item", "category": "next-category", "event": "next-event"}


class NotAnsweredError(BadInputError):
    """The model has no such answer."""

    code = "not-answered"


@dataclass
class Counters:
    """Sums since the state began."""

    of: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))

    def add(self, name: str) -> None:
        """One more."""
        self.of[name] += 1


@dataclass(frozen=True)
class Parts:
    """What a service is made of. ``live`` None: the model does not read consumers. ``forecast``: category -> table, None
    without a sales model; ``path`` of the snapshot; ``digest`` of the model that answers."""

    live: LiveModel | None
    verdicts: Verdicts
    level: DriftingLevel
    repeats: Repeats
    digest: str
    path: Path
    forecast: Callable[[str], dict[str, Any]] | None = None


class Service:
    """One running model. It is used by one thread at a time."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.counters = parts, Counters()
        self.kept_at: float | None = None  # when the last snapshot was written, seconds since 1970
        self.changed = False
        self.restored = self._frozen = self._written = 0
        self._writing = threading.Lock()

    @property
    def live(self) -> LiveModel:
        """The model's live half. Raises: NotAnsweredError for one that does not read consumers."""
        if self.parts.live is None:
            raise NotAnsweredError(
                "this model forecasts sales, it does not read consumers", hint="ask /forecast, or serve another"
            )
        return self.parts.live

    def event(self, raw: Mapping[str, Any]) -> dict[str, Any] | bytes:
        """Score one event; an id that was answered before gets the same answer, as bytes, and changes nothing.

        Raises: BadInputError; such an event has changed nothing.
        """
        place = self._place(raw.get("id"), raw.get("consumer"))
        if place is not None and (known := self.parts.repeats.get(place)) is not None:
            self.counters.add("repeated_ids")
            return known
        try:
            consumer, event = self.live.read(raw)
        except BadInputError as error:
            self.counters.add("left_out" if isinstance(error, DroppedError) else "refused")
            raise
        scored = self.live.push(consumer, event)
        answer = self._judged(consumer, scored)
        self.changed = True
        if place is not None:
            self.parts.repeats.put(place, consumer, one_line(answer).encode())
        return answer

    def _place(self, event_id: Any, consumer: Any) -> int | None:
        if event_id is None or event_id == "":
            return None
        if not isinstance(event_id, str | int) or len(str(event_id)) > LONGEST_ID:
            raise BadInputError(f"id is no text of at most {LONGEST_ID} characters", hint="one id for each event")
        return self.parts.repeats.place(str(event_id), str(consumer))

    def _judged(self, consumer: int, scored: Scored) -> dict[str, Any]:
        limit, level = self.parts.level.level, self.parts.level
        judged = limit is not None and scored.position > 0 and not scored.repeated
        odd = bool(judged and limit is not None and scored.recent >= limit)
        said = self.parts.verdicts.of(consumer) if odd else ""
        alarm = odd and said != WORDS[1]
        if scored.position and not scored.repeated:
            level.add(scored.recent, consumer)
        self.counters.add("repeated_lines" if scored.repeated else "events")
        if scored.late:
            self.counters.add("late")
        if alarm:
            self.counters.add("alarms")
        told: dict[str, Any] = finite({
            "position": scored.position, "surprise": round(scored.surprise, 6), "recent": round(scored.recent, 6),
            "nats": {name: round(value, 6) for name, value in scored.nats.items()},
            "threshold": limit if limit is None else round(limit, 6), "alarm": alarm,
            "reason": _reason(scored, limit, said) if odd else "", "late": scored.late, "repeated": scored.repeated,
        })  # fmt: skip
        return told

    def next(self, consumer: str, what: str, most: int, exclude: frozenset[str], *, known: bool) -> dict[str, Any]:
        """The most probable next items, categories or event types, and which part of it comes from where."""
        if what not in _HEADS:
            raise BadInputError("what is unknown", hint=f"one of: {', '.join(_HEADS)}")
        if not 1 <= most <= MOST_CHOICES or len(exclude) > MOST_CHOICES:
            raise BadInputError(
                "k or exclude is out of range", hint=f"1 to {MOST_CHOICES} choices, as many left out"
            )
        self._need(_HEADS[what])
        who = self.live.consumer(consumer)
        found = (
            self.live.next_items(who, most, exclude, exclude_known=known)
            if what == "item"
            else self.live.next_values(who, what, _HEADS[what], most)
        )
        rows = [
            {what: one.name, "score": round(one.share, 7), "seen": one.seen,
             "from": {name: round(value, 7) for name, value in one.parts.items()}}
            for one in found
        ]  # fmt: skip
        return {"what": what, "known": who in self.live.store, "choices": rows}

    def intent(self, consumer: str) -> dict[str, Any]:
        """Will this consumer buy. Raises: NotAnsweredError, also for a consumer of whom nothing is known."""
        self._need("purchase-intent")
        who = self._known(consumer)
        row = self.live.known(who)
        return {"probability": round(self.live.intent(who), 7), "events": row.position if row else 0}

    def explain(self, consumer: str, about: str, choice: str, method: str) -> dict[str, Any]:
        """Which of the consumer's last events led to an answer."""
        from client.serving.explaining import METHODS, explained

        if method not in METHODS:
            raise BadInputError("method is unknown", hint=f"one of: {', '.join(METHODS)}")
        if about in (*_HEADS, "intent"):
            self._need(_HEADS.get(about, "purchase-intent"))
        return explained(self.live, self._known(consumer), about, choice, method)

    def forecast(self, category: str) -> dict[str, Any]:
        """The coming sales. Raises: NotAnsweredError without a sales model, or for a category that it does not know."""
        if self.parts.forecast is None:
            raise NotAnsweredError(
                "no sales model is served", hint="start with --sales MODEL --events LOG, or serve a sales model"
            )
        return self.parts.forecast(category)

    def judge(self, consumer: str, word: str) -> dict[str, Any]:
        """Remember what a person says of a consumer."""
        self.parts.verdicts.add(self.live.consumer(consumer), word)
        return {"verdicts": len(self.parts.verdicts.all())}

    def forget(self, consumer: str) -> dict[str, int]:
        """Remove one consumer from the live state, answers kept, verdicts and alarms, and from the files at once."""
        gone = self.remove(consumer)
        self.keep(self.frozen())
        return gone

    def remove(self, consumer: str) -> dict[str, int]:
        """As ``forget``, without the file: who calls it keeps the state before it answers."""
        meant = self.live.meant(consumer)
        gone = {
            "live state": sum(self.live.store.remove(who) for who in meant),
            "answers kept": sum(self.parts.repeats.forget(who) for who in meant),
            "verdicts": sum(self.parts.verdicts.forget(who) for who in meant),
            "alarms": sum(self.parts.verdicts.forget_alarms(who) for who in meant),
            "state put aside": snapshots.remove_from_aside(self.parts.path, meant),
        }
        return gone

    def frozen(self) -> snapshots.Snapshot:
        """The state of now, which no longer changes: it can be written beside the work."""
        live, parts = self.live, self.parts
        self._frozen += 1
        facts = {
            "number": self._frozen,
            "clock": live.clock,
            "counters": dict(self.counters.of),
            "usual": parts.level.values,
        }
        self.changed = False
        return snapshots.Snapshot(parts.digest, facts, live.store.freeze(), parts.repeats.all())

    def keep(self, frozen: snapshots.Snapshot) -> int:
        """Write a state, unless a newer one was written meanwhile; its size in bytes, 0 if it was not.

        Guarantee: a consumer that was forgotten does not come back with a state that was frozen before.
        Raises: WorkFailedError (disk).
        """
        with self._writing:
            if frozen.facts["number"] < self._written:
                return 0
            try:
                size = snapshots.write_snapshot(self.parts.path, frozen)
            except WorkFailedError:
                self.changed = True  # it is tried again, and at the end
                raise
            self._written, self.kept_at = frozen.facts["number"], time.time()
        return size

    def restore(self) -> int:
        """Go on from the snapshot, if there is one; how many consumers it held. Raises: BadInputError."""
        live = self.live
        found = snapshots.read_snapshot(self.parts.path, self.parts.digest, live.engine.state_size)
        if found is None:
            return 0
        live.store.thaw(found.consumers)
        live.see(int(found.facts["clock"]))
        for value in found.facts["usual"]:
            self.parts.level.add(float(value))
        for place, consumer, answer in found.repeats:
            self.parts.repeats.put(place, consumer, answer)
        self.counters.of |= {
            name: int(n) for name, n in found.facts["counters"].items() if name in self.counters.of
        }
        self.kept_at, self.restored = self.parts.path.stat().st_mtime, len(live.store)
        return self.restored

    def _need(self, head: str) -> None:
        if head not in self.live.answers():
            raise NotAnsweredError(
                f"this model has no head {head!r}, it answers: {', '.join(self.live.answers())}",
                hint="train one with this head, or serve another model",
            )

    def _known(self, consumer: str) -> int:
        who = self.live.consumer(consumer)
        if who not in self.live.store:
            raise NotAnsweredError("nothing is known of this consumer", hint="send its events first")
        return who


def _reason(scored: Scored, limit: float | None, said: str) -> str:
    """Why this is, or would be, an alarm: how far above what is usual, and which answer was most surprised."""
    known = {name: value for name, value in scored.nats.items() if value == value}
    most = max(known, key=lambda name: known[name]) if known else ""
    words = f"the last events are as surprising as few are here: {scored.recent:.2f} nats, usual up to {limit or 0:.2f}"
    if most:
        words += f"; of this one most by the {most.replace('next-', 'next ')}: {known[most]:.2f} nats"
    return words + ("; no alarm, a person has said normal" if said == WORDS[1] else "")
