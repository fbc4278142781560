"""The only randomness for privacy: a keystream of AES-256-CTR under a key of the operating system.

Noise, Poisson sampling and stochastic rounding of a site come from here and from nowhere else: the
generators of torch and numpy keep little seed entropy and their state can be recovered from outputs.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

Buffer: TypeAlias = bytes | memoryview
Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

KEY_BYTES = 32
_BLOCK_PAIRS = 1 << 14  # pairs per pass: small enough that every intermediate stays in the L2 cache
_LOW_63_BITS = np.int64(2**63 - 1)
_ZEROS = memoryview(bytes(16 * _BLOCK_PAIRS))  # a part of it is no copy


def cosine_and_sine(angle: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine of angles, which are overwritten."""
    cosine: Floats = np.cos(angle)
    return cosine, np.sin(angle, out=angle)


Turn: TypeAlias = Callable[[Floats], tuple[Floats, Floats]]


class RandomStream:
    """Uniform, Bernoulli and Gaussian draws from a keystream. Use ``PrivateStream``; see ``private``.

    Guarantee: no two objects and no two processes share a key: a child made by fork draws a new one,
    and a stream can be neither copied nor serialized.
    """

    private: bool

    def __init__(self, key: bytes) -> None:
        self._process = os.getpid()
        self._cipher = _keystream(key)

    def __reduce__(self) -> str:
        raise TypeError("a random stream can be neither copied nor serialized: it would repeat its noise")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(private={self.private})"

    def _rekey_after_fork(self) -> None:
        raise NotImplementedError

    def bytes(self, size: int) -> bytes:
        """Return ``size`` bytes of the keystream."""
        return self._words(np.uint8, size).tobytes()

    def _words(self, kind: type, count: int) -> NDArray[np.uint8]:
        """Draw ``count`` numbers of an integer type, each bit uniform."""
        if self._process != os.getpid():
            self._rekey_after_fork()
            self._process = os.getpid()
        size = count * np.dtype(kind).itemsize
        room = np.empty(size + 15, dtype=np.uint8)  # the cipher may ask for one block more than it writes
        zeros: Buffer = _ZEROS[:size] if size <= len(_ZEROS) else bytes(size)
        self._cipher.update_into(zeros, room.data)
        return room[:size].view(kind)

    def words(self, n: int) -> NDArray[np.uint64]:
        """Draw 64 random bits each. Shapes: result: uint64[n], to be overwritten at will."""
        return self._words(np.uint64, n).view(np.uint64)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """Draw from [0, 1) with 53 bits. Shapes: result: float64[n]."""
        words = self.words(n)
        fractions: NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64)
        fractions *= 2.0**-53
        return fractions

    def bernoulli(self, p: float, n: int) -> NDArray[np.bool_]:
        """Draw ``n`` independent coins, true with probability ``p``: Poisson sampling of consumers.

        Shapes: result: bool[n]. Guarantee: the probability is ``p`` to within 2^-64; 0 and 1 are exact.
        Raises: ValueError if ``p`` is not a probability.
        """
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"probability must be in [0, 1], got {p}")
        if p == 1.0:
            return np.ones(n, dtype=np.bool_)
        words = self.words(n)
        return words < np.uint64(int(math.ldexp(p, 64)))

    def gaussian(self, n: int) -> NDArray[np.float64]:
        """Draw standard normal numbers in double precision. Shapes: result: float64[n]."""
        out = np.empty(n, dtype=np.float64)
        self.fill_gaussian(out)
        return out

    def gaussian_hardened(self, n: int) -> NDArray[np.float64]:
        """Draw standard normal numbers, each from four: harder to invert from their low bits.

        Shapes: result: float64[n]. Source: Holohan and Braghin 2021, "Secure random sampling in
        differential privacy", section 3.2.
        """
        out = np.empty(n, dtype=np.float64)
        self.fill_gaussian(out, hardened=True)
        return out

    def fill_gaussian(
        self, out: Floats, *, scale: float = 1.0, hardened: bool = False, turn: Turn = cosine_and_sine
    ) -> None:
        """Overwrite ``out`` with normal numbers of standard deviation ``scale``, block by block.

        ``turn`` may be a faster cosine and sine of the same precision.

        Shapes: ``out``: float32 or float64, contiguous, any shape. float32 is the fast path: its
        radius still comes from 63 random bits, so the tail reaches 9.3 standard deviations.
        Raises: ValueError if ``out`` is not contiguous or of another type.
        """
        if not out.flags.c_contiguous or out.dtype not in (np.float32, np.float64):
            raise ValueError(f"need a contiguous float32 or float64 array, got {out.dtype}")
        flat = out.reshape(-1)
        for start in range(0, flat.size, 2 * _BLOCK_PAIRS):
            part = flat[start : start + 2 * _BLOCK_PAIRS]
            self._fill_block(part, turn)
            if hardened:
                self._add_three_more(part, turn)
            if scale != 1.0:
                part *= part.dtype.type(scale)

    def _add_three_more(self, part: Floats, turn: Turn) -> None:
        extra = np.empty_like(part)
        for _ in range(3):
            self._fill_block(extra, turn)
            part += extra
        part *= part.dtype.type(0.5)

    def _fill_block(self, part: Floats, turn: Turn) -> None:
        """Box-Muller: two numbers from one 63-bit radius and one angle (32 bits, in float64 53 bits)."""
        pairs = (part.size + 1) // 2
        radius, angle = self._radius(pairs, part.dtype), self._angle(pairs, part.dtype)
        cosine, sine = turn(angle)
        np.multiply(radius, cosine, out=part[:pairs])
        rest = part.size - pairs
        np.multiply(radius[:rest], sine[:rest], out=part[pairs:])

    def _radius(self, pairs: int, kind: np.dtype[np.float32] | np.dtype[np.float64]) -> Floats:
        words = self._words(np.int64, pairs).view(np.int64)
        np.bitwise_and(words, _LOW_63_BITS, out=words)
        u: Floats = np.empty(pairs, dtype=kind)
        u[...] = words
        u += kind.type(0.5)  # never log(0)
        u *= kind.type(2.0**-63)
        np.log(u, out=u)
        u *= kind.type(-2.0)
        return np.sqrt(u, out=u)

    def _angle(self, pairs: int, kind: np.dtype[np.float32] | np.dtype[np.float64]) -> Floats:
        if kind == np.float32:
            angle: Floats = self._words(np.int32, pairs).view(np.int32).astype(np.float32)
            angle *= np.float32(math.pi * 2.0**-31)
            return angle
        turns: Floats = self._words(np.int64, pairs).view(np.int64).astype(np.float64)
        turns *= math.pi * 2.0**-63
        return turns

    def stochastic_round(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Round each value down or up at random so that the mean is kept.

        Shapes: ``values``: float64[...]; result: int64 of the same shape.
        Raises: ValueError if a value is not finite or does not fit 63 bits.
        """
        if values.size and not np.max(np.abs(values)) < 2.0**62:
            raise ValueError("values to round must be finite and below 2^62")
        floor = np.floor(values)
        up = self.uniform(values.size).reshape(values.shape) < values - floor
        return floor.astype(np.int64) + up


class PrivateStream(RandomStream):
    """The stream of every real site: 256 key bits from the operating system, never seeded, never stored."""

    private = True

    def __init__(self) -> None:
        super().__init__(os.urandom(KEY_BYTES))

    def _rekey_after_fork(self) -> None:
        self._cipher = _keystream(os.urandom(KEY_BYTES))


class SeededStream(RandomStream):
    """A repeatable stream for tests. NOT PRIVATE: whoever knows the seed can subtract the noise.

    Guarantee: none: ``private`` is False, and whatever was made with it must be marked NOT PRIVATE.
    """

    private = False

    def __init__(self, seed: int) -> None:
        self._seed = seed
        super().__init__(_seeded_key(f"{seed}"))

    def _rekey_after_fork(self) -> None:
        self._cipher = _keystream(_seeded_key(f"{self._seed}/{os.getpid()}"))


def _seeded_key(text: str) -> bytes:
    return hashlib.sha256(f"fedcart/seeded-stream/1\0{text}".encode()).digest()


def _keystream(key: bytes) -> CipherContext:
    # the key is used once, so a fixed counter block cannot repeat a keystream
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
