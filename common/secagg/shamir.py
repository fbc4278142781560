"""Shamir secret sharing of scalars: over the field whose prime is the order of the curve's base point.

Source: Shamir, "How to share a secret", 1979. The x coordinate of a holder is its position in the
cohort plus one, so a share needs no coordinate beside it. In this field the secret scalar of a mask key can be shared
so that its public point proves the sharing (``dealing``).
"""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import BadInputError, VerificationError
from common.trust import ORDER, Entropy, system_entropy

PRIME = ORDER
SECRET_BYTES = 32
SHARE_BYTES = 32
_COEFFICIENT_BYTES = 48  # reduced modulo the prime: over 128 bits of excess make the bias less than 2**-128


def draw_secret(entropy: Entropy = system_entropy) -> bytes:
    """A uniform field element as a secret of 32 bytes."""
    return (int.from_bytes(entropy(_COEFFICIENT_BYTES), "big") % PRIME).to_bytes(SECRET_BYTES, "big")


def split(secret: bytes, threshold: int, holders: int, *, entropy: Entropy = system_entropy) -> list[bytes]:
    """One 32-byte share per holder; any ``threshold`` of them give the secret back.

    Guarantee: fewer than ``threshold`` shares are independent of the secret.
    Raises: BadInputError.
    """
    if len(secret) != SECRET_BYTES or int.from_bytes(secret, "big") >= PRIME:
        raise BadInputError(f"a secret is {SECRET_BYTES} bytes below the field's prime, got {len(secret)}")
    if not 1 <= threshold <= holders:
        raise BadInputError(f"threshold {threshold} is not between 1 and the {holders} holders")
    raw = entropy(_COEFFICIENT_BYTES * (threshold - 1))
    starts = range(0, len(raw), _COEFFICIENT_BYTES)
    polynomial = [int.from_bytes(secret, "big")]
    polynomial += [int.from_bytes(raw[start : start + _COEFFICIENT_BYTES], "big") % PRIME for start in starts]
    return [_evaluate(polynomial, x).to_bytes(SHARE_BYTES, "big") for x in range(1, holders + 1)]


def check_share(share: bytes) -> None:
    """Return if the bytes are a field element. Raises: VerificationError."""
    if len(share) != SHARE_BYTES or int.from_bytes(share, "big") >= PRIME:
        raise VerificationError(f"a share is {SHARE_BYTES} bytes below the field's prime")


def lagrange_coefficients(points: Sequence[int], *, at: int = 0) -> list[int]:
    """Weights that turn the values at ``points`` into the value at ``at``.

    They depend on the holders only: compute them once and use them for every secret.
    Raises: BadInputError if a point occurs twice.
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
    return weighted(weights, [int.from_bytes(share, "big") for share in shares])


def weighted(weights: Sequence[int], values: Sequence[int]) -> int:
    """The same of shares that are numbers already."""
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) % PRIME


def combine(weights: Sequence[int], shares: Sequence[bytes]) -> bytes:
    """The 32-byte secret of a set of shares, *unverified*: the shares must have been checked one by one."""
    return interpolate(weights, shares).to_bytes(SECRET_BYTES, "big")


def _evaluate(polynomial: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):  # no reduction on the way: x is at most 7 bits, growth is slow
        value = value * x + coefficient
    return value % PRIME
