"""``QuorumMechanism``: a clipped sum becomes ring elements that hold this site's share of the noise, and the account of that.

    clamp each coordinate -> round to the grid, up or down at random -> add discrete Gaussian noise -> wrap

Nothing may come after the noise but the masks: a clip would act on it, and what it does to a share it does not do to the sum.
The ring lives in memory only, and serves one session.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.training.discrete_gaussian import draw
from common.contribution import Block, Release
from common.errors import LocalProtocolError
from common.privacy import NoisedGrid, PrivacyEvent, Quorum, carried_multiplier, to_ring
from common.trust.randomness import RandomStream

_EVERYBODY = 1.0


@dataclass(frozen=True)
class Share:
    """What a share of noise is meant to be worth. Units: ``multiplier`` = own noise / ``sensitivity`` (L2, in the block's values)."""

    block: Block
    sensitivity: float
    multiplier: float
    quorum: Quorum
    side: str

    @property
    def grid(self) -> NoisedGrid:
        """The block's grid."""
        return NoisedGrid(self.block.unit, self.block.noise_bits, self.block.limit)


class QuorumMechanism:
    """One noised sum in the ring, over consumers sampled by Poisson, or over all.

    Guarantee: the event says what was drawn: the plan's multiplier if the draw carries it, else the smaller one that it does
    carry, which the guard then refuses; nothing for a stream that is not private. A mechanism makes one release.
    """

    def __init__(self, share: Share, stream: RandomStream) -> None:
        self._share, self._stream = share, stream
        self._rate = _EVERYBODY
        self._done = False

    def __repr__(self) -> str:
        return f"QuorumMechanism({self._share.block.name}, {self._share.multiplier:g})"

    def sample(self, rate: float, consumers: int) -> NDArray[np.int64]:
        """Choose the consumers of the sum, each with probability ``rate``: row numbers ``int64[B]``."""
        self._rate = rate
        return np.flatnonzero(self._stream.bernoulli(rate, consumers))

    def release(self, total: NDArray[np.float64]) -> Release:
        """The sum ``float64[d]``, which one consumer moves by at most the sensitivity, as ring elements ``uint32[d]``.

        Raises: LocalProtocolError if this mechanism has released already.
        """
        if self._done:
            raise LocalProtocolError("a share of noise serves one release")
        self._done = True
        block = self._share.block
        finite = np.nan_to_num(total, nan=0.0, posinf=0.0, neginf=0.0)
        noise = draw(self._stream, block.noise_bits, len(total))
        return Release(block.name, to_ring(finite, self._share.grid, self._stream, noise), self._events())

    def _events(self) -> tuple[PrivacyEvent, ...]:
        if not self._stream.private:
            return ()
        share = self._share
        carried = carried_multiplier(share.grid, share.sensitivity, share.block.length)
        noise = share.multiplier if carried >= share.multiplier else math.nextafter(carried, 0.0)
        return (share.quorum.event(noise, self._rate, 1, share.side),)
