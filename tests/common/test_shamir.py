from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings, strategies as st

from common.errors import BadInputError, VerificationError
from common.secagg import shamir
from tests.secagg_rounds import counting_entropy

SECRET = bytes(range(32))


def rebuilt(points: list[int], shares: list[bytes]) -> bytes:
    return shamir.combine(shamir.lagrange_coefficients(points), shares)


def test_the_modulus_is_the_prime_order_of_the_curve() -> None:
    assert (
        shamir.PRIME == 0x1000000000000000000000000000000014DEF9DEA2F79CD65812631A5CF5D3ED
    )  # RFC 8032, section 5.1
    assert all(pow(base, shamir.PRIME - 1, shamir.PRIME) == 1 for base in (2, 3, 5, 7, 11, 13))


def test_drawn_secrets_are_below_the_modulus_and_differ() -> None:
    drawn = {shamir.draw_secret() for _ in range(50)}
    assert len(drawn) == 50
    assert all(int.from_bytes(secret, "big") < shamir.PRIME for secret in drawn)


def test_every_subset_of_threshold_size_gives_the_secret() -> None:
    shares = shamir.split(SECRET, 3, 5)
    for subset in itertools.permutations(range(5), 3):
        assert rebuilt([i + 1 for i in subset], [shares[i] for i in subset]) == SECRET


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(0, shamir.PRIME - 1), st.integers(1, 8), st.integers(0, 5), st.randoms(use_true_random=False))
def test_any_secret_survives_any_threshold(number: int, threshold: int, spare: int, draw) -> None:
    secret = number.to_bytes(32, "big")
    shares = shamir.split(secret, threshold, threshold + spare)
    chosen = draw.sample(range(threshold + spare), threshold)
    assert rebuilt([i + 1 for i in chosen], [shares[i] for i in chosen]) == secret


@pytest.mark.parametrize("secret", [bytes(32), (shamir.PRIME - 1).to_bytes(32, "big"), b"\0" * 31 + b"\1"])
def test_extreme_secrets_survive(secret: bytes) -> None:
    shares = shamir.split(secret, 67, 100)
    assert rebuilt(list(range(34, 101)), shares[33:]) == secret


def test_fewer_shares_than_the_threshold_fit_every_secret_equally() -> None:
    # t-1 shares plus any other secret at 0 define one polynomial of the right degree: nothing is excluded.
    shares = shamir.split(SECRET, 3, 5)
    for other in (0, 1, 2**251, shamir.PRIME - 1):
        points, values = [0, 1, 2], [other.to_bytes(32, "big"), shares[0], shares[1]]
        third = shamir.interpolate(shamir.lagrange_coefficients(points, at=3), values)
        forged = [shares[0], shares[1], third.to_bytes(32, "big")]
        assert rebuilt([1, 2, 3], forged) == other.to_bytes(32, "big")


def test_shares_of_equal_secrets_differ_each_time() -> None:
    assert not set(shamir.split(SECRET, 3, 5)) & set(shamir.split(SECRET, 3, 5))


def test_a_wrong_share_gives_another_secret() -> None:
    shares = shamir.split(SECRET, 3, 4)
    for bit in range(0, 256, 13):
        changed = bytearray(shares[0])
        changed[bit // 8] ^= 1 << (bit % 8)
        assert rebuilt([1, 2, 3], [bytes(changed), *shares[1:3]]) != SECRET


def test_a_share_outside_the_field_is_refused() -> None:
    shamir.check_share((shamir.PRIME - 1).to_bytes(32, "big"))
    for bad in (shamir.PRIME.to_bytes(32, "big"), b"\xff" * 32, b"\0" * 31, b"\0" * 33, b""):
        with pytest.raises(VerificationError):
            shamir.check_share(bad)


@pytest.mark.parametrize(
    ("secret", "threshold", "holders"), [(b"short", 2, 3), (b"\xff" * 32, 2, 3), (SECRET, 0, 3), (SECRET, 4, 3)]
)
def test_impossible_splits_are_refused(secret: bytes, threshold: int, holders: int) -> None:
    with pytest.raises(BadInputError):
        shamir.split(secret, threshold, holders)


def test_a_holder_counted_twice_is_refused() -> None:
    with pytest.raises(BadInputError):
        shamir.lagrange_coefficients([1, 2, 2])


def test_our_vector_of_two_of_three() -> None:
    # f(x) = secret + c x with c the reduction of the first 48 drawn bytes: computed here by hand
    draw = counting_entropy("shamir")
    shares = shamir.split(SECRET, 2, 3, entropy=draw)
    slope = int.from_bytes(counting_entropy("shamir")(48), "big") % shamir.PRIME
    secret = int.from_bytes(SECRET, "big")
    assert [int.from_bytes(s, "big") for s in shares] == [(secret + slope * x) % shamir.PRIME for x in (1, 2, 3)]
