"""One value, one encoding, or an error."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import cbor2
import pytest
from hypothesis import given, settings, strategies as st

from common import wire
from common.errors import RemoteProtocolError


@dataclass(frozen=True)
class Inner:
    name: str
    number: int


@dataclass(frozen=True)
class Outer:
    inner: Inner
    values: tuple[float, ...]
    pair: tuple[int, str]
    raw: bytes
    maybe: str | None = None

    def __post_init__(self) -> None:
        if self.pair[0] < 0:
            raise ValueError("negative")


SAMPLE = Outer(Inner("a", 1), (0.5, 2.0), (3, "x"), b"\x00\xff", None)

outers = st.builds(
    Outer,
    st.builds(Inner, st.text(max_size=20), st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.floats(allow_nan=False), max_size=5).map(tuple),
    st.tuples(st.integers(0, 10), st.text(max_size=5)),
    st.binary(max_size=40),
    st.none() | st.text(max_size=5),
)


@given(outers)
@settings(deadline=None, max_examples=60)
def test_decoding_gives_back_what_was_encoded(value: Outer) -> None:
    assert wire.decode(Outer, wire.encode(value)) == value


@pytest.mark.parametrize("position", range(len(wire.encode(SAMPLE))))
def test_a_flipped_byte_is_another_value_or_an_error(position: int) -> None:
    data = bytearray(wire.encode(SAMPLE))
    data[position] ^= 1
    with contextlib.suppress(RemoteProtocolError):
        assert wire.decode(Outer, bytes(data)) != SAMPLE


def test_a_second_encoding_of_the_same_value_is_refused() -> None:
    canonical = wire.encode(Inner("a", 1))
    longer = b"\x83\x18\x01" + canonical[2:]  # the version 1 in two bytes
    assert cbor2.loads(longer) == cbor2.loads(canonical)
    with pytest.raises(RemoteProtocolError, match="canonical"):
        wire.decode(Inner, longer)


@pytest.mark.parametrize(
    ("plain", "match"),
    [
        ([2, "Inner", ["a", 1]], "format 2"),
        ([True, "Inner", ["a", 1]], "format True"),
        ([1, "Outer", ["a", 1]], "expected a Inner"),
        ([1, "Inner", ["a"]], "2 fields"),
        ([1, "Inner", ["a", 1.0]], "must be int"),
        ([1, "Inner", ["a", True]], "must be int"),
        ([1, "Inner", [b"a", 1]], "must be str"),
        ({"a": 1}, "kind that is not used"),
        (["a"], "triple"),
    ],
)
def test_foreign_messages_are_refused_with_a_reason(plain: object, match: str) -> None:
    with pytest.raises(RemoteProtocolError, match=match):
        wire.decode(Inner, cbor2.dumps(plain))


def test_garbage_and_rules_of_the_dataclass_give_our_error() -> None:
    with pytest.raises(RemoteProtocolError, match="CBOR"):
        wire.decode(Inner, b"\xff\xff")
    bad = [1, "Outer", [["a", 1], [], [-1, "x"], b"", None]]
    with pytest.raises(RemoteProtocolError, match="negative"):
        wire.decode(Outer, cbor2.dumps(bad, canonical=True))


def test_digests_depend_on_domain_and_value() -> None:
    value = Inner("a", 1)
    assert (
        len(
            {
                wire.digest(value, domain="x"),
                wire.digest(value, domain="y"),
                wire.digest(Inner("a", 2), domain="x"),
            }
        )
        == 3
    )


def test_types_without_a_canonical_form_cannot_be_sent() -> None:
    with pytest.raises(TypeError, match="list"):
        wire.encode(Inner(["a"], 1))  # type: ignore[arg-type]
