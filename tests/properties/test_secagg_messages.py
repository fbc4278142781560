"""Whatever bytes arrive, decoding gives an error of ours or a message whose encoding is those bytes."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings, strategies as st

from common.errors import FedcartError
from common.secagg import messages
from common.secagg.client import ClientProtocol
from tests.secagg_rounds import ANSWERS, Federation, build

REQUESTS = (
    messages.Params,
    messages.AdvertisementList,
    messages.ShareDelivery,
    messages.AcceptedList,
    messages.SurvivorList,
    messages.ConfirmationList,
)
edits = st.lists(
    st.tuples(st.sampled_from(["flip", "drop", "add", "cut"]), st.integers(0, 10**6), st.integers(0, 255))
)


@cache
def finished() -> Federation:
    federation = build(4, length=6)
    federation.run_until("done", {("mask", "site-3")})
    return federation


@cache
def real_bytes() -> dict[type, bytes]:
    sent = [pair for (_, site), pair in finished().sent.items() if site == "site-0"]
    return dict(zip((*REQUESTS, *ANSWERS), [r for r, _ in sent] + [a for _, a in sent], strict=True))


def edited(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    out = bytearray(data)
    for what, where, value in changes:
        at = where % max(1, len(out))
        if what == "flip" and out:
            out[at] ^= value
        elif what == "drop":
            del out[at : at + 1 + value % 8]
        elif what == "add":
            out[at:at] = bytes([value])
        elif what == "cut":
            del out[at:]
    return bytes(out)


@pytest.mark.parametrize("kind", [*REQUESTS, *ANSWERS], ids=lambda kind: kind.__name__)
def test_real_messages_survive_their_encoding(kind: type) -> None:
    data = real_bytes()[kind]
    assert messages.encode(messages.decode(kind, data)) == data


@settings(deadline=None, derandomize=True, max_examples=150)
@given(kind=st.sampled_from((*REQUESTS, *ANSWERS)), other=st.sampled_from((*REQUESTS, *ANSWERS)), changes=edits)
def test_edited_bytes_are_refused_or_are_another_canonical_message(kind: type, other: type, changes) -> None:
    data = edited(real_bytes()[other], changes)
    try:
        message = messages.decode(kind, data)
    except FedcartError:
        return
    assert messages.encode(message) == data


@settings(deadline=None, derandomize=True, max_examples=100)
@given(data=st.binary(max_size=200), kind=st.sampled_from((*REQUESTS, *ANSWERS)))
def test_random_bytes_are_refused_with_an_error_of_ours(data: bytes, kind: type) -> None:
    with pytest.raises(FedcartError):
        messages.decode(kind, data)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(changes=edits)
def test_an_edited_state_is_refused_with_an_error_of_ours(changes) -> None:
    federation = finished()
    client = federation.clients["site-3"]
    data = edited(client.to_state(), changes)
    try:
        again = ClientProtocol.from_state(federation.sites["site-3"], data)
    except FedcartError:
        return
    assert again.to_state() == data
