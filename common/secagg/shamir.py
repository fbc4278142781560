"""Shamir secret sharing of 32-byte secrets over a prime field just above 2**256.

**Source**: Shamir, "How to share a secret", 1979. The x coordinate of a holder is its position in the
cohort plus one, so a share needs no coordinate beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import BadInputError, VerificationError
from common.trust.crypto import Entropy, system_entropy

PRIME = 2**256 + 297  # the smallest prime above 2**256: every 32-byte secret is a field element
SECRET_BYTES = 32
SHARE_BYTES = 33
_COEFFICIENT_BYTES = 48  # reduced modulo the prime: 128 bits of excess make the bias 2**-128


def split(secret: bytes, threshold: int, holders: int, *, entropy: Entropy = system_entropy) -> list[bytes]:
    """One 33-byte share per holder; any ``threshold`` of them give the secret back.

    **Guarantee**: fewer than ``threshold`` shares are independent of the secret.
    **Raises**: BadInputError.
    """
    if len(secret) != SECRET_BYTES:
        raise BadInputError(f"a secret has {SECRET_BYTES} bytes, got {len(secret)}")
    if not 1 <= threshold <= holders:
        raise BadInputError(f"threshold {threshold} is not between 1 and the {holders} holders")
    raw = entropy(_COEFFICIENT_BYTES * (threshold - 1))
    starts = range(0, len(raw), _COEFFICIENT_BYTES)
    polynomial = [int.from_bytes(secret, "big")]
    polynomial += [int.from_bytes(raw[start : start + _COEFFICIENT_BYTES], "big") % PRIME for start in starts]
    return [_evaluate(polynomial, x).to_bytes(SHARE_BYTES, "big") for x in range(1, holders + 1)]


def check_share(share: bytes) -> None:
    """Return if the bytes are a field element. **Raises**: VerificationError."""
    if len(share) != SHARE_BYTES or int.from_bytes(share, "big") >= PRIME:
        raise VerificationError(f"a share is {SHARE_BYTES} bytes below the field's prime")


def lagrange_coefficients(points: Sequence[int], *, at: int = 0) -> list[int]:
    """Weights that turn the values at ``points`` into the value at ``at``.

    They depend on the holders only: compute them once and use them for every secret.
    **Raises**: BadInputError if a point occurs twice.
    """
    if len(set(points)) != len(points):
        raise BadInputError("two shares have the same holder")
    weights = []
    for i, point in enumerate(points):
        numerator, denominator = 1, 1
        for other in (*points[:i], *points[i + 1 :]):
            numerator = numerator * (at - other) % PRIME
            denominator = denominator * (point - other) % PRIME
        weights.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return weights


def interpolate(weights: Sequence[int], shares: Sequence[bytes]) -> int:
    """The field element that the shares give under ``lagrange_coefficients`` of their holders."""
    products = (weight * int.from_bytes(share, "big") for weight, share in zip(weights, shares, strict=True))
    return sum(products) % PRIME


def combine(weights: Sequence[int], shares: Sequence[bytes]) -> bytes:
    """The 32-byte secret of a set of shares, *unverified*: compare it with its commitment.

    **Raises**: VerificationError if no 32-byte secret has such shares.
    """
    value = interpolate(weights, shares)
    if value >= 1 << (8 * SECRET_BYTES):
        raise VerificationError("the shares do not belong to one secret")
    return value.to_bytes(SECRET_BYTES, "big")


def _evaluate(polynomial: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):  # no reduction on the way: x is at most 7 bits, growth is slow
        value = value * x + coefficient
    return value % PRIME
