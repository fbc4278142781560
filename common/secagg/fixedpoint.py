"""Real numbers to elements of the ring of integers modulo 2**32, and sums of them back.

Each block of a vector has its own clip and precision, and is proven not to wrap for the number of sites
before anything is masked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.contribution import MAX_BLOCKS, Block
from common.errors import BadInputError, ConfigError, LocalProtocolError
from common.trust import KEY_BYTES, system_entropy, uniform_words

RING_BITS = 32
MAX_LENGTH = 1 << 28  # 1 GiB on the wire
MAX_FRACTIONAL_BITS = 30
MAX_NOISE_BITS = 24
NOISE_TAIL = 9.0  # deviations of a sum's noise for which there is room in the ring
_CHUNK = 1 << 14  # coordinates; keeps the float64 temporaries in cache

Words = Callable[[int], NDArray[np.uint32]]


@dataclass(frozen=True, eq=False, repr=False)
class Quantized:
    """A site's vector in the ring, and how many coordinates the clip cut.

    ``saturated`` is a private number: it stays at the site. To release it, a noised count has to be a
    block of the Contribution like any other.

    Shapes: ``ring: uint32[d]``.
    """

    ring: NDArray[np.uint32]
    saturated: int

    def __repr__(self) -> str:
        return f"Quantized({self.ring.size} coordinates)"


def vector_length(blocks: tuple[Block, ...]) -> int:
    """Number of coordinates of a vector laid out in these blocks."""
    return sum(block.length for block in blocks)


def check_blocks(blocks: tuple[Block, ...], sites: int) -> None:
    """Return if no sum of ``sites`` vectors can wrap: ``sites * clip / step < 2**31`` in each block, noise included.

    Raises: ConfigError naming the block and the precision that would fit.
    """
    if len(blocks) > MAX_BLOCKS:
        raise ConfigError(f"a vector has at most {MAX_BLOCKS} blocks, got {len(blocks)}")
    if not blocks or not 1 <= vector_length(blocks) <= MAX_LENGTH:
        raise ConfigError(f"a vector has 1 to {MAX_LENGTH} coordinates, blocks say {vector_length(blocks)}")
    if len({block.name for block in blocks}) != len(blocks):
        raise ConfigError("two blocks of the vector have the same name")
    for block in blocks:
        _check_block(block, sites)


def quantize(vector: NDArray[np.float64], blocks: tuple[Block, ...], words: Words | None = None) -> Quantized:
    """Clip each coordinate to its block and round it to the grid, up or down at random without bias.

    ``words`` gives uniform 32-bit words; by default a keystream under a fresh key of the operating system.
    Shapes: ``vector: float64[d]``.
    Guarantee: zero stays zero; the expectation of the rounding error is below 2**-32 of a grid step.
    Raises: BadInputError for a wrong length or a value that is not finite.
    """
    if vector.shape != (vector_length(blocks),):
        raise BadInputError(f"vector has shape {vector.shape}, its blocks say ({vector_length(blocks)},)")
    vector = np.asarray(vector, dtype=np.float64)
    words = words or uniform_words(system_entropy(KEY_BYTES))
    ring = np.empty(vector.size, dtype=np.uint32)
    saturated = 0
    for block, part in slices(blocks):
        for start in range(part.start, part.stop, _CHUNK):
            piece = slice(start, min(start + _CHUNK, part.stop))
            saturated += _quantize_piece(vector[piece], block, words, ring[piece])
    return Quantized(ring, saturated)


def decode(ring_sum: NDArray[np.uint32], blocks: tuple[Block, ...]) -> NDArray[np.float64]:
    """The sum of the sites' vectors as real numbers.

    Shapes: ``ring_sum: uint32[d]`` -> ``float64[d]``.
    Guarantee: exact: every ring element is a float64.
    """
    signed = ring_sum.view(np.int32).astype(np.float64)
    for block, part in slices(blocks):
        signed[part] *= block.step
    return signed


def check_ring(ring: NDArray[np.uint32], blocks: tuple[Block, ...]) -> None:
    """Return if the vector is one that ``quantize`` can make for these blocks; noise in the ring can be any element of it.

    Raises: LocalProtocolError: masking anything else could wrap the sum.
    """
    if ring.dtype != np.uint32 or ring.shape != (vector_length(blocks),):
        raise LocalProtocolError(f"vector is {ring.dtype}{list(ring.shape)}, not uint32[{vector_length(blocks)}]")
    signed = ring.view(np.int32)
    for block, part in slices(blocks):
        limit = block.limit
        if block.noise_bits:
            continue
        if signed[part].max() > limit or signed[part].min() < -limit:
            raise LocalProtocolError(f"block {block.name} is outside its limit of {limit} ring units")


def _check_block(block: Block, sites: int) -> None:
    if not (isinstance(block.clip, float) and 0 < block.clip < math.inf):
        raise ConfigError(f"block {block.name} has the clip {block.clip!r}", hint="give a positive float")
    if not (0 <= block.unit < math.inf and 0 <= block.noise_bits <= MAX_NOISE_BITS):
        raise ConfigError(
            f"block {block.name} has the unit {block.unit!r} and noise of 2**{block.noise_bits} units",
            hint=f"a unit from 0, at most {MAX_NOISE_BITS} bits of noise",
        )
    if block.length < 1 or not 0 <= block.fractional_bits <= MAX_FRACTIONAL_BITS:
        raise ConfigError(
            f"block {block.name} has length {block.length} and {block.fractional_bits} fractional bits",
            hint=f"at least 1 coordinate, 0 to {MAX_FRACTIONAL_BITS} bits",
        )
    noise = math.ceil(NOISE_TAIL * math.sqrt(sites) * 2**block.noise_bits) if block.noise_bits else 0
    if sites * block.limit + noise >= 1 << (RING_BITS - 1):
        if block.unit:
            raise ConfigError(
                f"block {block.name} can wrap: {sites} sites * clip {block.clip} / {block.unit} and noise"
            )
        fits = math.floor(math.log2((1 << (RING_BITS - 1)) / (sites * block.clip)) - 1e-9)
        raise ConfigError(
            f"block {block.name} can wrap: {sites} sites * clip {block.clip} * 2**{block.fractional_bits} >= 2**31",
            hint=f"use at most {fits} fractional bits, a smaller clip, or fewer sites",
        )


def _quantize_piece(values: NDArray[np.float64], block: Block, words: Words, out: NDArray[np.uint32]) -> int:
    clipped, saturated = _clipped(values, block.clip)
    scaled = clipped / block.step if block.unit else clipped * 2.0**block.fractional_bits
    floor = np.floor(scaled)
    scaled -= floor
    scaled *= 2.0**32  # the fraction against a uniform 32-bit word
    signed = out.view(np.int32)
    np.copyto(signed, floor, casting="unsafe")
    signed += words(values.size) < scaled
    return saturated


def _clipped(values: NDArray[np.float64], clip: float) -> tuple[NDArray[np.float64], int]:
    low, high = values.min(), values.max()  # not a number, if one of the values is none
    if -clip <= low and high <= clip:
        return values, 0
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BadInputError("vector holds a value that is not finite", hint="look for a diverged training step")
    clipped = np.clip(values, -clip, clip)
    return clipped, int(np.count_nonzero(clipped != values))


def slices(blocks: tuple[Block, ...]) -> Iterator[tuple[Block, slice]]:
    """Each block with the stretch of the vector that it names."""
    start = 0
    for block in blocks:
        yield block, slice(start, start + block.length)
        start += block.length
