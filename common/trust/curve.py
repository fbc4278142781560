"""Scalars of Ed25519, and a proof that one of them is shared as promised, from the primitives of ``cryptography``.

An Ed25519 signature *is* a Schnorr proof: whoever knows the scalar of a public point answers a challenge with
``response = nonce + challenge * scalar``. Here nonce and scalar are also the secrets of two Shamir sharings, so the
responses of the holders' shares must lie on one polynomial whose value at zero is that signature's.
No curve arithmetic of our own: points come from seeds, proofs are checked as signatures are.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import VerificationError
from common.trust.crypto import Agreement, x25519_agreement

ORDER = 2**252 + 27742317777372353535851937790883648493  # of the base point; a prime
SCALAR_BYTES = 32
POINT_BYTES = 32
_P = 2**255 - 19
_TOP = 1 << 254  # the bit that every X25519 secret has set, below 2**255, as it has the lowest three cleared


def scalar_of(seed: bytes) -> int:
    """The secret scalar of a 32-byte Ed25519 seed, modulo ``ORDER``. Source: RFC 8032, section 5.1.5."""
    return int.from_bytes(exchange_secret(seed), "little") % ORDER


def exchange_secret(seed: bytes) -> bytes:
    """The same scalar as an X25519 secret of 32 bytes: its public key is ``to_exchange(point_of(seed))``."""
    raw = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return ((raw & (_TOP - 8)) | _TOP).to_bytes(32, "little")


def point_of(seed: bytes) -> bytes:
    """The public point of a seed: ``bytes[32]``. Source: RFC 8032, section 5.1.5."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def to_exchange(point: bytes) -> bytes:
    """The X25519 public key of a point. Raises: VerificationError if it has none. Source: RFC 7748, section 4.1."""
    y = int.from_bytes(point, "little") & ((1 << 255) - 1)
    if len(point) != POINT_BYTES or (1 - y) % _P == 0:
        raise VerificationError("public point has the wrong length, or is the neutral element")
    return ((1 + y) * pow(1 - y, -1, _P) % _P).to_bytes(32, "little")


def challenge_of(nonce: bytes, point: bytes, message: bytes) -> int:
    """The challenge of a proof for ``point`` under the commitment ``nonce``. Source: RFC 8032, section 5.1.7."""
    return int.from_bytes(hashlib.sha512(nonce + point + message).digest(), "little") % ORDER


def check_proof(nonce: bytes, point: bytes, message: bytes, response: int) -> None:
    """Return if ``response`` proves knowledge of the scalar of ``point``. Raises: VerificationError."""
    try:
        key = Ed25519PublicKey.from_public_bytes(point)
        key.verify(nonce + response.to_bytes(SCALAR_BYTES, "little"), message)
    except (InvalidSignature, ValueError, OverflowError) as error:
        raise VerificationError("the proof about a public point does not hold") from error


def scalar_agreement(scalar: int) -> Agreement:
    """Key agreement by a scalar modulo ``ORDER``: what ``x25519_agreement`` of its X25519 secret gives.

    A scalar without such a secret (a dishonest site may have dealt one) is applied as a product of two that have one.
    Raises: VerificationError for zero.
    """
    if scalar % ORDER == 0:
        raise VerificationError("a scalar is zero")
    secret = _secret_of(scalar)
    if secret is not None:
        return x25519_agreement(secret)
    factor = _TOP
    while (secret := _secret_of(scalar * pow(factor, -1, ORDER))) is None:
        factor += 8
    first, second = x25519_agreement(factor.to_bytes(32, "little")), x25519_agreement(secret)
    return lambda public: second(first(public))


def _secret_of(scalar: int) -> bytes | None:
    """The X25519 secret equal to plus or minus the scalar modulo ``ORDER``: both give the same shared bytes."""
    for root in (scalar % ORDER, -scalar % ORDER):
        full = root + ORDER * (-root * pow(ORDER, -1, 8) % 8)  # the one representative that is a multiple of 8
        if _TOP <= full < 2 * _TOP:
            return full.to_bytes(32, "little")
    return None
