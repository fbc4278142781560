"""``GaussianMechanism``: the one place where a site's noise is drawn, and the account of what was drawn.

    mechanism.sample(rate, consumers) -> who takes part in the next sum     (left out: everybody)
    mechanism.noise(size)             -> what is added to that sum
    mechanism.events()                -> what all that costs

An event is written by the draw itself, never by the plan that asked for it: a loop that runs three times as
often, or draws half the noise, says so, and the guard refuses what was not charged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import LocalProtocolError
from common.privacy import PrivacyEvent
from common.trust.randomness import RandomStream, Turn, cosine_and_sine

_EVERYBODY = 1.0


@dataclass(frozen=True)
class Noise:
    """How noise is made. Units: ``multiplier`` = standard deviation / ``sensitivity`` (L2); 0 means none at all.

    ``sub_scopes``: the parts of a site's consumers that are read. ``turn`` changes speed only.
    """

    multiplier: float
    sensitivity: float
    sub_scopes: tuple[str, ...]
    hardened: bool = False
    turn: Turn = cosine_and_sine


class GaussianMechanism:
    """Poisson-subsampled Gaussian mechanisms on sums that one consumer moves by at most the sensitivity.

    Guarantee: ``events`` is exactly what was drawn from the stream: nothing for noise from a stream that is not
    private, and no answer at all while a sampled sum has not been noised.
    """

    def __init__(self, noise: Noise, stream: RandomStream) -> None:
        self._noise, self._stream = noise, stream
        self._sampled: float | None = None  # the rate of the sum that is under way
        self._steps: dict[tuple[float, float], int] = {}  # (noise multiplier, sampling rate) -> noised sums

    def __repr__(self) -> str:
        return f"GaussianMechanism({self._noise.multiplier}, {sum(self._steps.values())} noised sums)"

    def sample(self, rate: float, consumers: int) -> NDArray[np.int64]:
        """Choose the consumers of the next sum, each with probability ``rate``: row numbers ``int64[B]``.

        Raises: LocalProtocolError if the sum before this one was never noised.
        """
        self._refuse_open_sum()
        self._sampled = rate
        return np.flatnonzero(self._stream.bernoulli(rate, consumers))

    def noise(self, size: int) -> NDArray[np.float64]:
        """Noise for every coordinate of one sum, in double precision: ``float64[size]``; zeros without privacy."""
        rate, self._sampled = _EVERYBODY if self._sampled is None else self._sampled, None
        multiplier = self._noise.multiplier
        if not multiplier > 0:
            return np.zeros(size)
        drawn, scale = np.empty(size), multiplier * self._noise.sensitivity
        self._stream.fill_gaussian(drawn, scale=scale, hardened=self._noise.hardened, turn=self._noise.turn)
        self._steps[multiplier, rate] = self._steps.get((multiplier, rate), 0) + 1
        return drawn

    def events(self) -> tuple[PrivacyEvent, ...]:
        """What the draws so far cost. Raises: LocalProtocolError if a sampled sum was never noised."""
        self._refuse_open_sum()
        if not self._stream.private:
            return ()
        return tuple(
            PrivacyEvent(multiplier, rate, steps, scope)
            for scope in self._noise.sub_scopes
            for (multiplier, rate), steps in self._steps.items()
        )

    def _refuse_open_sum(self) -> None:
        if self._sampled is not None:
            raise LocalProtocolError(
                "a sum over sampled consumers was never noised", hint="this is a bug: report it"
            )
