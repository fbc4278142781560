"""``Query``, ``Release`` and ``Contribution``: what a site is asked, and the one vector it may release.

Nothing else leaves a site. Training, evaluation and statistics for preprocessing all take this path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.bounds import check_bytes, check_run, check_text, check_whole, check_word
from common.errors import BadInputError, LocalProtocolError
from common.privacy import PrivacyEvent
from common.wire import digest

TRAIN = "train"
EVALUATE = "evaluate"
STATISTICS = "statistics"
UPDATE = "update"
METRICS = "metrics"
SERIES = "series"

MAX_BLOCKS = 16
MAX_BLOCK_NAME = 40
MAX_PLAN_LENGTH = 1 << 22  # characters; 200 sites and a public catalogue's facts take some twenty thousand
MAX_QUERY_BYTES = 4 * MAX_PLAN_LENGTH + 1_024
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Block:
    """A named stretch of a contribution vector and how its numbers become ring elements.

    ``clip`` bounds each coordinate's absolute value before any noise; ``fractional_bits`` is the fixed-point precision,
    unless ``unit`` gives the real value of one ring unit. ``noise_bits``: each site has added discrete Gaussian noise of
    2**noise_bits units in the ring; 0: none.
    Guarantee: with n sites no sum wraps iff ``n * clip / step < 2**31``, and but for one in 10^15 with noise if there is room for
    nine of its deviations besides.
    """

    name: str
    length: int
    clip: float
    fractional_bits: int
    unit: float = 0.0
    noise_bits: int = 0

    def __post_init__(self) -> None:
        check_text(self.name, "name of a block", MAX_BLOCK_NAME)

    @property
    def step(self) -> float:
        """Real value of one ring unit."""
        return self.unit or 2.0**-self.fractional_bits

    @property
    def limit(self) -> int:
        """The largest absolute integer that one site's coordinate can become, before noise."""
        return math.ceil(self.clip / self.step)

    @property
    def noise_scale(self) -> float:
        """Standard deviation of the noise that each site has added in the ring, as a real value; 0: none."""
        return self.step * 2.0**self.noise_bits if self.noise_bits else 0.0


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

    def __post_init__(self) -> None:
        check_word(self.kind, "kind of a question")
        check_run(self.run)
        check_whole(self.round, "round")
        check_bytes(self.model_digest, "model digest", DIGEST_BYTES)
        if len(self.settings) > MAX_PLAN_LENGTH:
            raise BadInputError(
                f"settings have {len(self.settings)} characters, at most {MAX_PLAN_LENGTH} are read"
            )

    def digest(self) -> bytes:
        """SHA-256 over the canonical bytes: ``bytes[32]``."""
        return digest(self, domain="query")


@dataclass(frozen=True)
class Release:
    """What a mechanism has made fit to leave, with the events of the draws that made it so.

    ``name`` is the block that it fills. ``events`` come from the code that drew the noise (``GaussianMechanism``);
    a release without any was made without privacy, or from what has been released before.
    Shapes: ``vector: float64[length of the block]``; float32 until it is ``scaled``; ``uint32``: elements of the ring, where
    the noise was drawn in it.
    Guarantee: adding or removing one consumer changes the distribution of ``vector`` by no more than the
    composition of ``events`` allows.
    """

    name: str
    vector: NDArray[np.float64] | NDArray[np.float32] | NDArray[np.uint32]
    events: tuple[PrivacyEvent, ...]

    @property
    def in_ring(self) -> bool:
        """Whether it consists of ring elements, to which nothing may be done any more but adding masks."""
        return self.vector.dtype == np.uint32

    def scaled(self, weight: float) -> Release:
        """The release times a public weight: post-processing, at the same cost. Raises: LocalProtocolError in the ring."""
        if self.in_ring:
            raise LocalProtocolError(
                "ring elements are not multiplied: a sum of them would not be one of the sites'"
            )
        return replace(self, vector=np.multiply(self.vector, weight, dtype=np.float64))

    def __repr__(self) -> str:
        return f"Release({self.name}[{self.vector.size}], {len(self.events)} events)"


@dataclass(frozen=True)
class Contribution:
    """The one vector a site may release for a Query. It is made of releases, and costs what they cost.

    Guarantee: that of its releases, composed. Nobody can state another cost: there is no field for it.
    Raises: LocalProtocolError if the releases do not fill the blocks one by one.
    """

    query_digest: bytes
    blocks: tuple[Block, ...]
    releases: tuple[Release, ...]

    def __post_init__(self) -> None:
        filled = [(release.name, release.vector.shape) for release in self.releases]
        wanted = [(block.name, (block.length,)) for block in self.blocks]
        if filled != wanted:
            raise LocalProtocolError(f"the releases fill {filled}, the blocks are {wanted}")
        if any(
            release.in_ring != bool(block.noise_bits)
            for release, block in zip(self.releases, self.blocks, strict=True)
        ):
            raise LocalProtocolError("noise is drawn in the ring where the block says so, and nowhere else")

    @staticmethod
    def of(query: Query, blocks: Sequence[Block], releases: Sequence[Release]) -> Contribution:
        """Put releases, in any order, into the blocks of an answer. Raises: LocalProtocolError if one is missing."""
        named: Mapping[str, Release] = {release.name: release for release in releases}
        if len(named) != len(releases) or named.keys() != {block.name for block in blocks}:
            raise LocalProtocolError(
                f"an answer of {[b.name for b in blocks]} was given {[r.name for r in releases]}"
            )
        return Contribution(query.digest(), tuple(blocks), tuple(named[block.name] for block in blocks))

    @property
    def ring(self) -> NDArray[np.uint32] | None:
        """All blocks in a row as ring elements: ``uint32[sum of block lengths]``; None where rounding is still to come."""
        if not all(release.in_ring for release in self.releases):
            return None
        whole: NDArray[np.uint32] = np.concatenate([release.vector for release in self.releases], dtype=np.uint32)
        return whole

    @property
    def vector(self) -> NDArray[np.float64]:
        """All blocks in a row: ``float64[sum of block lengths]``, finite.

        A diverged step is the coordinator's doing (learning rate, model); refusing it would tell something.
        """
        whole: NDArray[np.float64] = np.concatenate([r.vector for r in self.releases], dtype=np.float64)
        finite = np.isfinite(whole)
        if not finite.all():
            whole[~finite] = 0.0
        return whole

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """What the mechanisms did that made it."""
        return tuple(event for release in self.releases for event in release.events)

    def __repr__(self) -> str:
        names = ", ".join(f"{b.name}[{b.length}]" for b in self.blocks)
        return f"Contribution({names}, query={self.query_digest.hex()[:12]})"
