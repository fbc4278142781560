"""``PrivacyEvent``: what one mechanism did, in public fields only; ``Losses``: all that was spent.

The event is the currency of accounting. The ledger stores events, never an epsilon as source of truth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from common.errors import MechanismError

TRAIN_SIDE = "train"
VALIDATION_SIDE = "validation"
HOLDOUT_SIDE = "holdout"
SUB_SCOPES = (TRAIN_SIDE, VALIDATION_SIDE, HOLDOUT_SIDE)


def sides_of(holdout: float, validation: float) -> tuple[str, ...]:
    """The parts that these shares make of the consumers: all of them pay for what reads everybody."""
    if holdout <= 0:
        return (TRAIN_SIDE,)
    return SUB_SCOPES if validation > 0 else (TRAIN_SIDE, HOLDOUT_SIDE)


MIN_NOISE, MAX_NOISE = 1e-6, 1e9  # outside, the accountants divide by zero or overflow
MIN_RATE = 1e-9
MAX_STEPS = 10**12
MECHANISM, UNIT, RELATION = "poisson-subsampled-gaussian", "consumer", "add-or-remove-one"
MAX_HONEST = 100  # one session of secure aggregation sums no more
_HINT = "for example PrivacyEvent(noise_multiplier=1.0, sampling_rate=0.1, steps=100)"


@dataclass(frozen=True)
class PrivacyEvent:
    """``steps`` runs of a (Poisson-subsampled) Gaussian mechanism on consumers.

    Fields are public constants, never measured from data. Unit of privacy: consumer. Neighbouring
    relation: add or remove one consumer.

    Units: ``noise_multiplier`` = noise standard deviation / L2 sensitivity; ``sampling_rate`` in (0, 1],
    1 means no sampling; ``sub_scope`` says which disjoint part of the consumers was read.

    ``noise_multiplier`` is that of the site's own draw. ``honest`` above 1: the release is opened in a sum only, which
    holds as much noise of at least so many honest sites, this one included, while at most ``colluders`` of the others
    work with whoever reads it (quorum noise). What is gained against them is ``noise_in_sum``; against everybody else,
    the own draw is all there is.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    sub_scope: str = TRAIN_SIDE
    honest: int = 1
    colluders: int = 0
    mechanism: str = MECHANISM
    unit: str = UNIT
    relation: str = RELATION

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and MIN_NOISE <= self.noise_multiplier <= MAX_NOISE):
            raise MechanismError(
                f"noise multiplier must be positive, {MIN_NOISE:g} to {MAX_NOISE:g}, got {self.noise_multiplier}",
                hint=_HINT,
            )
        if not MIN_RATE <= self.sampling_rate <= 1:
            raise MechanismError(
                f"sampling rate must be in (0, 1], from {MIN_RATE:g}, got {self.sampling_rate}", hint=_HINT
            )
        if not isinstance(self.steps, int) or not 0 <= self.steps <= MAX_STEPS:
            raise MechanismError(
                f"steps must not be negative, nor over {MAX_STEPS:g}: got {str(self.steps)[:20]}", hint=_HINT
            )
        if self.sub_scope not in SUB_SCOPES:
            raise MechanismError(f"sub-scope must be one of {SUB_SCOPES}, got {self.sub_scope!r}", hint=_HINT)
        if not (_is_whole(self.honest, 1, MAX_HONEST) and _is_whole(self.colluders, 0, MAX_HONEST)):
            raise MechanismError(
                f"noise of {str(self.honest)[:20]} honest sites against {str(self.colluders)[:20]} colluding ones: both are "
                f"whole numbers, up to {MAX_HONEST}",
                hint=_HINT,
            )
        if self.honest == 1 and self.colluders:
            raise MechanismError("noise of one site holds against any number of colluding ones", hint=_HINT)
        if (self.mechanism, self.unit, self.relation) != (MECHANISM, UNIT, RELATION):
            raise MechanismError(
                f"only a {MECHANISM} per {UNIT} ({RELATION}) can be accounted for, got {self}", hint=_HINT
            )

    @property
    def in_quorum(self) -> bool:
        """Whether the sum holds more noise than the site's own draw."""
        return self.honest > 1

    @property
    def noise_in_sum(self) -> float:
        """Noise multiplier of the sum, against whoever commands at most ``colluders`` other sites of the session."""
        return self.noise_multiplier * math.sqrt(self.honest)


@dataclass(frozen=True)
class Losses:
    """All that was spent on the consumers of a scope: every mechanism once, with all its steps, in a fixed order.

    A value: operators make new ones. Made by ``Losses.of``.
    """

    events: tuple[PrivacyEvent, ...] = ()

    @classmethod
    def of(cls, events: Iterable[PrivacyEvent]) -> Self:
        """Add up events in any order; those without steps are nothing."""
        return cls._of(_steps(events))

    @classmethod
    def _of(cls, steps: Counter[PrivacyEvent]) -> Self:
        summed = [replace(one, steps=count) for one, count in steps.items() if count > 0]
        return cls(tuple(sorted(summed, key=_place)))

    def __iter__(self) -> Iterator[PrivacyEvent]:
        return iter(self.events)

    def __bool__(self) -> bool:
        return bool(self.events)

    def __add__(self, other: Losses) -> Self:
        """Both."""
        return self._of(_steps(self) + _steps(other))

    def __sub__(self, other: Losses) -> Self:
        """What is left without the other. Raises: ValueError if the other is not a part of this."""
        if not self.covers(other):
            raise ValueError("cannot give back what was not spent")
        return self._of(_steps(self) - _steps(other))

    def __or__(self, other: Losses) -> Self:
        """Of each mechanism the larger number of steps."""
        return self._of(_steps(self) | _steps(other))

    def beyond(self, other: Losses) -> Self:
        """The steps of each mechanism that the other does not have."""
        return self._of(_steps(self) - _steps(other))

    def covers(self, other: Losses) -> bool:
        """Whether the other is a part of this."""
        return not other.beyond(self)

    def on_every_side(self) -> Self:
        """What any consumer may have lost where it is unknown who was held out: all of it, in every sub-scope."""
        return self.of(replace(event, sub_scope=sub_scope) for event in self for sub_scope in SUB_SCOPES)

    @property
    def colluders(self) -> int | None:
        """How many colluding sites of a session the account holds against; None: any number."""
        return min((event.colluders for event in self if event.in_quorum), default=None)


def _place(event: PrivacyEvent) -> tuple[str, float, float, int, int]:
    return event.sub_scope, event.sampling_rate, event.noise_multiplier, event.honest, event.colluders


def _is_whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _steps(events: Iterable[PrivacyEvent]) -> Counter[PrivacyEvent]:
    total: Counter[PrivacyEvent] = Counter()
    for event in events:
        if event.steps:
            total[replace(event, steps=1)] += event.steps
    return total
