"""What verdicts of people weigh: how far they move a threshold, whose alarms they quieten, and how good the alarms were."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

STEEP = 2.5
"""By how much the odds of an anomaly grow, in nats, where a score is e times as high."""
PRIOR = 0.2
"""How far a threshold is off before anybody says so: the deviation of its logarithm."""
MOST = math.log(3.0)  # a threshold is moved to its triple or its third at most, however much is said
QUIET_DAYS = 30.0
FEW = 20  # verdicts, below which figures over them say little
_DAY_US = 86_400_000_000
_Z = 1.96


@dataclass(frozen=True)
class Verdict:
    """A person's yes or no on one alarm, or on a consumer where ``alarm`` is empty.

    ``score`` and ``threshold`` are those that it was said of (NaN: not scored). Units: ``ends`` microseconds since 1970, of the
    stretch; ``said`` seconds since 1970. ``number``: its place in the site's book, 0 before it is there.
    """

    consumer: int
    anomaly: bool
    score: float = math.nan
    threshold: float = math.nan
    ends: int = 0
    alarm: str = ""
    said: int = 0
    number: int = 0
    undone: bool = False

    @property
    def about(self) -> str:
        """What it is about: two verdicts on the same contradict or confirm each other."""
        return self.alarm or f"{self.consumer:016x}"

    @property
    def margin(self) -> float:
        """Logarithm of the score over the threshold, NaN if it is not known: an alarm from 0 on."""
        if not (self.score >= 0 and self.threshold > 0):
            return math.nan
        return min(max(math.log(max(self.score, 1e-9) / self.threshold), -3.0), 3.0)


@dataclass(frozen=True)
class Move:
    """How verdicts move thresholds. ``factor``: what each is multiplied by; ``verdicts`` that could be weighed."""

    factor: float = 1.0
    verdicts: int = 0
    consumers: int = 0

    @property
    def words(self) -> str:
        """For people."""
        heard = f"{self.verdicts:,} verdicts on {self.consumers:,} consumers"
        if self.factor == 1:
            return f"{heard} leave the threshold where it is"
        return f"{heard} move the threshold by {self.factor - 1:+.1%}"


def standing(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts that count: of each alarm the latest that was not undone."""
    return list({one.about: one for one in verdicts if not one.undone}.values())


def weighed(verdicts: Sequence[Verdict]) -> Move:
    """How far standing verdicts move thresholds: the mode of a Bayesian posterior, and no further than without any one consumer.

    An alarm is right with a probability that is logistic in its margin; the middle of that curve has a normal prior at
    the threshold as it is. A consumer weighs one verdict, however many alarms of theirs were judged. Taken is the move
    that remains whichever consumer's verdicts are left out.
    Guarantee: one consumer's verdicts alone move nothing; each further consumer moves the threshold by at most
    ``exp(STEEP * PRIOR**2) - 1``, a tenth.
    """
    known = [one for one in verdicts if math.isfinite(one.margin)]
    if not known:
        return Move()
    margin = np.array([one.margin for one in known])
    odd = np.array([one.anomaly for one in known], dtype=np.bool_)
    owner = np.unique([one.consumer for one in known], return_inverse=True)[1]
    weight = 1.0 / np.bincount(owner)[owner]

    def pulls(shift: float) -> NDArray[np.float64]:
        """What each consumer's verdicts pull at a threshold moved so far: upwards where they say no."""
        surely = 1.0 / (1.0 + np.exp(-STEEP * (margin - shift)))
        pull = np.where(odd, -STEEP * (1.0 - surely), STEEP * surely)
        total: NDArray[np.float64] = np.bincount(owner, weights=weight * pull).astype(np.float64)
        return total

    return Move(math.exp(_where_pulls_end(pulls)), len(known), int(owner.max()) + 1)


def _where_pulls_end(pulls: Callable[[float], NDArray[np.float64]]) -> float:
    """The shift nearest to 0 at which prior and pulls are even once the strongest consumer is left out."""
    for sign in (1.0, -1.0):

        def left(size: float, sign: float = sign) -> float:
            each = sign * pulls(sign * size)
            return float(each.sum() - each.max() - size / PRIOR**2)

        if left(0.0) <= 0:
            continue
        low, high = 0.0, MOST
        if left(high) >= 0:
            return sign * MOST
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if left(middle) > 0 else (low, middle)
        return sign * low
    return 0.0


def quiet_level(verdicts: Sequence[Verdict], consumer: int, time: int) -> float:
    """The score below which nothing is reported of a consumer at a time: 0 unless the latest word on them was no.

    A no quietens this consumer alone, for 30 days from the judged stretch on, and up to twice the score that was judged.
    """
    latest = max((one for one in verdicts if one.consumer == consumer), key=lambda one: one.number, default=None)
    if latest is None or latest.anomaly or (latest.ends and time > latest.ends + QUIET_DAYS * _DAY_US):
        return 0.0
    return 2.0 * latest.score if math.isfinite(latest.score) else math.inf


@dataclass(frozen=True)
class Figure:
    """A share with its 95 % interval (Wilson); NaN where there is nothing to divide by."""

    value: float
    low: float
    high: float
    of: int


@dataclass(frozen=True)
class JudgedQuality:
    """Quality of alarms over the verdicts on them. Recall knows only anomalies that somebody said yes to."""

    right: int
    wrong: int
    missed: int
    precision: Figure
    recall: Figure
    f1: Figure

    @property
    def few(self) -> str:
        """What to think of figures over few verdicts; empty for many."""
        judged = self.right + self.wrong + self.missed
        return f"only {judged} verdicts: the bars say how little these figures are worth" if judged < FEW else ""


def judged_quality(verdicts: Sequence[Verdict], factor: float = 1.0) -> JudgedQuality:
    """Precision, recall and F1 of the alarms at a moved threshold, over standing verdicts with a score.

    The interval of F1 is that of ``right / (right + wrong + missed)``, of which it is a function.
    """
    known = [one for one in verdicts if math.isfinite(one.margin)]
    alarm = [one.margin >= math.log(factor) - 1e-9 for one in known]
    right = sum(a and one.anomaly for a, one in zip(alarm, known, strict=True))
    wrong = sum(a and not one.anomaly for a, one in zip(alarm, known, strict=True))
    missed = sum(one.anomaly for one in known) - right
    both = wilson(right, right + wrong + missed)
    value, low, high = (2 * share / (1 + share) for share in (both.value, both.low, both.high))
    f1 = Figure(value, low, high, both.of)
    return JudgedQuality(right, wrong, missed, wilson(right, right + wrong), wilson(right, right + missed), f1)


def wilson(hits: int, of: int) -> Figure:
    """A share and its 95 % interval. Source: Wilson 1927."""
    if not of:
        return Figure(math.nan, 0.0, 1.0, 0)
    share, square = hits / of, _Z**2 / of
    middle = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of)) / (1 + square)
    return Figure(share, max(0.0, middle - half), min(1.0, middle + half), of)


def moves(verdicts: Sequence[Verdict], most: int = 120) -> list[tuple[int, float]]:
    """How the factor went as verdict after verdict was said: (number, factor), at most so many points.

    Each point is what would have counted then; verdicts that were undone since are left out of all.
    """
    spoken = [one for one in verdicts if not one.undone]
    ends = sorted({round(end) for end in np.linspace(1, len(spoken), min(most, len(spoken)))}) if spoken else []
    return [(spoken[end - 1].number, weighed(standing(spoken[:end])).factor) for end in ends]


def renewed(verdicts: Sequence[Verdict], now: dict[int, tuple[float, float]]) -> list[Verdict]:
    """Verdicts on consumers with the score and threshold of now, where there are any; those on alarms as they are."""
    return [
        replace(one, score=now[one.consumer][0], threshold=now[one.consumer][1])
        if not one.alarm and one.consumer in now
        else one
        for one in verdicts
    ]
