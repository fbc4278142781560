"""``Query`` and ``Contribution``: what a site is asked, and the one vector it may release.

Nothing else leaves a site. Training, evaluation and statistics for preprocessing all take this path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common import wire
from common.privacy.mechanism import PrivacyEvent

TRAIN = "train"
EVALUATE = "evaluate"
STATISTICS = "statistics"


@dataclass(frozen=True)
class Block:
    """A named stretch of a contribution vector and how its numbers become ring elements.

    ``clip`` bounds each coordinate's absolute value; ``fractional_bits`` is the fixed-point precision.
    Guarantee: with n sites no sum wraps iff ``n * clip * 2**fractional_bits < 2**31``.
    """

    name: str
    length: int
    clip: float
    fractional_bits: int


@dataclass(frozen=True)
class Query:
    """What every site of a cohort is asked in one round. Signed by the coordinator.

    ``settings`` is the canonical JSON of the run's public settings (``RunConfig.public_json``), all of
    them fixed before round 1. ``model_digest`` binds the parameters that travel beside the query.
    The digest of a Query excludes the attempt, which lives in the session.
    """

    kind: str
    run: str
    round: int
    settings: str
    model_digest: bytes

    def digest(self) -> bytes:
        """SHA-256 over the canonical bytes: ``bytes[32]``."""
        return wire.digest(self, domain="query")


@dataclass(frozen=True)
class Contribution:
    """The one vector a site may release for a Query, with what it costs.

    Shapes: ``vector: float64[sum of block lengths]``, already noised and already multiplied by the
    site's public weight.
    Guarantee: adding or removing one consumer changes the distribution of ``vector`` by no more than
    the composition of ``events`` allows.
    """

    query_digest: bytes
    blocks: tuple[Block, ...]
    vector: NDArray[np.float64]
    events: tuple[PrivacyEvent, ...]

    def __post_init__(self) -> None:
        expected = sum(b.length for b in self.blocks)
        if self.vector.shape != (expected,):
            raise ValueError(f"vector has shape {self.vector.shape}, blocks say ({expected},)")

    def __repr__(self) -> str:
        names = ", ".join(f"{b.name}[{b.length}]" for b in self.blocks)
        return f"Contribution({names}, query={self.query_digest.hex()[:12]})"
