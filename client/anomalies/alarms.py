"""An alarm as it is kept and shown: what was odd, against what, which events drove it, and what it is nearest to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.guard.appendfile import HeldFile, hold
from common.atomic import private_folder
from common.strict_json import one_line

FILE = "alarms.jsonl"
KEPT = 5_000  # alarms, of which the older half goes when there are more
UNCLEAR = "unclear"

SIGNS = ("view", "buy", "review", "one item", "unlike own past")
PROTOTYPES: Mapping[str, tuple[float, ...]] = {
    "bot": (1.0, 0.0, 0.0, 0.15, 0.3),
    "account-takeover": (0.35, 0.65, 0.0, 0.3, 0.8),
    "brushing": (0.0, 0.65, 0.35, 1.0, 0.5),
    "fake-reviews": (0.0, 0.0, 1.0, 0.15, 0.5),
}
_FAR = 0.75


@dataclass(frozen=True)
class AlarmEvent:
    """One event of the stretch. ``drove``: its part of the score; ``nats``: its surprise.

    Units: ``time`` microseconds since 1970, UTC.
    """

    time: int
    event: str
    item: str
    category: str
    nats: float
    drove: float


@dataclass(frozen=True)
class Reason:
    """One number of the stretch that is far from what is usual. ``beyond``: share of the reference that is as far or farther."""

    what: str
    value: float
    usual: float
    beyond: float


@dataclass(frozen=True)
class Alarm:
    """An alarm about one consumer's stretch of events, from ``events[0].time`` to ``time``.

    ``base``: the threshold as nobody's verdicts move it; ``limit``: where it comes from, in words; ``distance`` to the prototype of ``kind``, 0 for equal.
    """

    id: str
    consumer: int
    time: int
    position: int
    score: float
    threshold: float
    base: float
    limit: str
    kind: str
    distance: float
    reasons: tuple[Reason, ...] = ()
    events: tuple[AlarmEvent, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """As it is written; the consumer as a pseudonym."""
        return asdict(self) | {"consumer": f"{self.consumer:016x}"}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Alarm:
        """Read it back. Raises: KeyError, TypeError, ValueError for another shape."""
        known = dict(value)
        known["consumer"] = int(known["consumer"], 16)
        known["reasons"] = tuple(Reason(**_numbers(one)) for one in known["reasons"])
        known["events"] = tuple(AlarmEvent(**_numbers(one)) for one in known["events"])
        return Alarm(**_numbers(known))


def _numbers(value: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a number that is missing was none."""
    return {name: math.nan if one is None else one for name, one in value.items()}


def nearest_kind(
    shares: Mapping[str, float],
    top_item: float,
    unlike_own: float,
    prototypes: Mapping[str, tuple[float, ...]] = PROTOTYPES,
) -> tuple[str, float]:
    """The prototype nearest to a stretch, and its distance; ``unclear`` if all are far.

    ``shares``: of event types; ``top_item``: share of the most frequent item; ``unlike_own``: nats per event by which
    everybody's habits explain the stretch better than the consumer's own.
    """
    bought = shares.get("cart", 0.0) + shares.get("purchase", 0.0)
    looked = shares.get("view", 0.0) + shares.get("search", 0.0) + shares.get("favourite", 0.0)
    signs = np.array([looked, bought, shares.get("review", 0.0), top_item, float(np.clip(unlike_own, 0, 1))])
    far = {name: float(np.linalg.norm(signs - np.array(one))) for name, one in prototypes.items()}
    name = min(far, key=lambda one: far[one])
    return (name if far[name] <= _FAR else UNCLEAR), far[name]


def reasons_of(
    profile: NDArray[np.float64], usual: NDArray[np.float64], deviation: NDArray[np.float64], names: Sequence[str]
) -> tuple[Reason, ...]:
    """The three numbers of a profile ``float64[K]`` that are farthest from the reference ``float64[M, K]``."""
    found = []
    for k in np.argsort(-np.abs(deviation), kind="stable")[:12]:
        middle, value = float(np.median(usual[:, k])), float(profile[k])
        side = usual[:, k] >= value if value > middle else usual[:, k] <= value
        found.append(Reason(names[k], value, middle, float(side.mean())))
    return tuple(sorted(found, key=lambda one: one.beyond)[:3])


class AlarmBook:
    """Alarms of one site, in a file that its owner alone can read; the newest ``KEPT`` at most, and at least half as many."""

    def __init__(self, home: Path) -> None:
        self._home, self._path = home, home / FILE
        self._count: int | None = None  # lines, as far as this process knows; read once

    def add(self, alarm: Alarm) -> None:
        """Keep an alarm. Raises: WorkFailedError."""
        private_folder(self._home)
        line = one_line(alarm.to_json()).encode() + b"\n"
        with hold(self._path) as file:
            if self._count is None or self._count >= KEPT:
                lines = _whole_lines(file)
                self._count = len(lines)
                if len(lines) >= KEPT:
                    kept = [*lines[-KEPT // 2 :], line]
                    file.replace(b"".join(kept))
                    self._count = len(kept)
                    return
            self._count += 1
            file.append(line, durable=False)

    def alarms(self) -> list[Alarm]:
        """All alarms, the newest first; lines of another version are left out."""
        if not self._path.exists():
            return []
        with hold(self._path) as file:
            lines = _whole_lines(file)
        found: dict[str, Alarm] = {}
        for line in reversed(lines):
            try:
                alarm = Alarm.from_json(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue
            found.setdefault(alarm.id, alarm)
        return list(found.values())

    def forget(self, consumer: int) -> int:
        """Remove all alarms about a consumer from the file, and say how many there were."""
        if not self._path.exists():
            return 0
        name = f'"consumer":"{consumer:016x}"'.encode()
        with hold(self._path) as file:
            lines = _whole_lines(file)
            kept = [line for line in lines if name not in line]
            if len(kept) < len(lines):
                file.replace(b"".join(kept))
        return len(lines) - len(kept)


def _whole_lines(file: HeldFile) -> list[bytes]:
    content = file.read_from(0)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        file.cut(whole)
    return content[:whole].splitlines(keepends=True)
