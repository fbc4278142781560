"""Key agreement, key derivation, sealing, and keystreams added to ring vectors.

The only module through which ``common.secagg`` meets the ``cryptography`` package. Every function
takes and returns plain bytes, so that a protocol state can be stored between two messages.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from common.errors import BadInputError, VerificationError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
SEAL_OVERHEAD = NONCE_BYTES + TAG_BYTES

# Fits the second-level cache together with the stretch of the vector it is added to; 64-256 KiB are
# equal within noise on the machines we measured, 32 KiB and 1 MiB are slower.
BLOCK_BYTES = 128 * 1024
_AES_BLOCK = 16
_P = 2**255 - 19
_ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
_SMALL_ORDER = frozenset((0, 1, *_ORDER_8, _P - 1, _P, _P + 1))

Entropy: TypeAlias = Callable[[int], bytes]
Mask: TypeAlias = tuple[bytes, int]
Agreement: TypeAlias = Callable[[bytes], bytes]

system_entropy: Entropy = os.urandom


def sha256(*parts: bytes | memoryview) -> bytes:
    """SHA-256 over length-prefixed parts (bytes, or views of bytes): two different lists of parts never share an input."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def x25519_public(secret: bytes) -> bytes:
    """The public key of a 32-byte X25519 secret. Source: RFC 7748."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def x25519_agreement(secret: bytes) -> Agreement:
    """The key agreement of one secret, as a function from the other side's public key to 32 shared bytes.

    The function raises VerificationError for a public key of small order (the result would be zero).
    Source: RFC 7748, section 6.1.
    """
    key = X25519PrivateKey.from_private_bytes(secret)

    def agree(public: bytes) -> bytes:
        try:
            return key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise VerificationError("X25519 public key is unusable: wrong length or small order") from error

    return agree


def x25519_usable(public: bytes) -> bool:
    """Whether a public key has 32 bytes and is none of the seven u-coordinates of small order.

    Source: RFC 7748, section 6.1.
    """
    if len(public) != KEY_BYTES:
        return False
    return int.from_bytes(public, "little") & ((1 << 255) - 1) not in _SMALL_ORDER


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, *, size: int = KEY_BYTES) -> bytes:
    """HKDF, extract and expand. Source: RFC 5869."""
    return HKDF(algorithm=SHA256(), length=size, salt=salt, info=info).derive(secret)


def derive_key(secret: bytes, salt: bytes, *labels: str) -> bytes:
    """A 32-byte key from a secret under a salt and a list of labels.

    Guarantee: different lists of labels give independent keys (each label is length-prefixed).
    """
    raw = (label.encode() for label in labels)
    return hkdf_sha256(secret, salt, b"fedcart/derive/1" + b"".join(len(r).to_bytes(2, "big") + r for r in raw))


def aes_ctr(key: bytes, counter: bytes = bytes(_AES_BLOCK)) -> CipherContext:
    """AES-256 in counter mode. Source: NIST SP 800-38A, section 6.5."""
    return Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()


def seal(key: bytes, plain: bytes, associated: bytes, *, entropy: Entropy = system_entropy) -> bytes:
    """ChaCha20-Poly1305 under a fresh random nonce: ``nonce || ciphertext || tag``.

    Source: RFC 8439.
    """
    nonce = entropy(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, associated)


def unseal(key: bytes, box: bytes, associated: bytes) -> bytes:
    """Open what ``seal`` made.

    Raises: VerificationError if key, associated data or any byte differs.
    """
    if len(box) < SEAL_OVERHEAD:
        raise VerificationError(f"sealed box has {len(box)} bytes, at least {SEAL_OVERHEAD} are needed")
    try:
        return ChaCha20Poly1305(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], associated)
    except InvalidTag as error:
        raise VerificationError("sealed box does not open: wrong key, context or bytes") from error


def checksum(key: bytes, vector: NDArray[np.uint32]) -> bytes:
    """GMAC of a vector's bytes under a key that both ends know: ``bytes[16]``.

    Not a signature: it finds damage and messages of another round or site, at memory speed. Whoever
    knows the key can make a second vector with the same value.
    """
    flat = np.ascontiguousarray(vector).data.cast("B") if vector.size else b""
    return AESGCM(key).encrypt(b"\0" * NONCE_BYTES, b"", flat)


def add_masks(vector: NDArray[np.uint32], masks: Iterable[Mask]) -> None:
    """Add (sign +1) or subtract (sign -1) one AES-256-CTR keystream per key, in place, modulo 2**32.

    All keystreams of a cache-sized stretch are added before the next stretch is touched, so the vector
    is read from memory once, whatever the number of masks.

    Shapes: ``vector: uint32[d]``, C-contiguous.
    Guarantee: needs one-time keys (the counter starts at zero).
    """
    if vector.dtype != np.uint32 or vector.ndim != 1 or not vector.flags.c_contiguous:
        raise BadInputError("masks are added to a contiguous uint32 vector only")
    streams = [(aes_ctr(key), sign) for key, sign in masks]
    length = min(vector.size, BLOCK_BYTES // 4)
    zeros = bytes(4 * length)
    buffer = bytearray(4 * length + _AES_BLOCK)  # update_into asks for a spare cipher block
    words = np.frombuffer(buffer, dtype="<u4", count=length)
    for start in range(0, vector.size, BLOCK_BYTES // 4):
        part = vector[start : start + length]
        plain = zeros if part.size == length else zeros[: 4 * part.size]
        mask = words[: part.size]
        for stream, sign in streams:
            stream.update_into(plain, buffer)
            (np.add if sign > 0 else np.subtract)(part, mask, out=part)


def uniform_words(key: bytes) -> Callable[[int], NDArray[np.uint32]]:
    """A stream of uniform 32-bit words, AES-256-CTR under ``key``: call it with how many are wanted."""
    stream = aes_ctr(key)

    zeros = memoryview(bytes(BLOCK_BYTES))

    def words(count: int) -> NDArray[np.uint32]:
        size = 4 * count
        room = np.empty(size + _AES_BLOCK, dtype=np.uint8)  # update_into asks for a spare cipher block
        stream.update_into(zeros[:size] if size <= len(zeros) else bytes(size), room.data)
        return room[:size].view("<u4").astype(np.uint32, copy=False)

    return words
