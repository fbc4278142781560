"""What a message may cost before it is refused, and what an answer that is none costs: its site, and no other."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from common import wire
from common.contribution import MAX_QUERY_BYTES, Query
from common.errors import FedcartError, RemoteProtocolError
from common.run import AggregationSettings
from common.secagg import messages
from common.secagg.messages import Params, largest_bytes
from common.secagg.server import EXCHANGES
from server.exchange import Answer, Exchange
from server.secure_sum import Opening, secure_sum
from tests.secagg_rounds import ANSWERS, REQUESTS, Federation, build

EVIL = "site-1"
ANSWER_OF = dict(zip(EXCHANGES, ANSWERS, strict=True))


# --- what a message may cost before it is refused


BOMBS = {
    "ten million empty lists": b"\x83\x01\x6dAdvertisement\x9a\x00\x98\x96\x80" + b"\x80" * 10_000_000,
    "a list that says it is huge": b"\x83\x01\x6dAdvertisement\x9b" + b"\xff" * 8,
    "text that says it is huge": b"\x83\x01\x6dAdvertisement\x85\x7b" + b"\x7f" * 8,
    "nested without end": b"\x81" * 9_000_000,
    "a number of 5,000 digits": cbor2.dumps([1, "Advertisement", ["site-1", 10**5_000, b"", b"", b""]]),
    "a list without a length": b"\x83\x01\x6dAdvertisement\x9f" + b"\x80" * 1_000 + b"\xff",
    "a map": cbor2.dumps([1, "Advertisement", {n: n for n in range(1_000)}]),
    "shared references": b"\x83\x01\x6dAdvertisement\xd8\x1c\x81\xd8\x1d\x00",
    "a decimal fraction": cbor2.dumps([1, "Advertisement", [cbor2.CBORTag(4, [10**6, 1])]]),
    "a date": cbor2.dumps([1, "Advertisement", [cbor2.CBORTag(0, "2020-01-01T00:00:00Z")]]),
    "more after the end": wire.encode(messages.SurvivorList((), (), bytes(32))) + b"\x80",
}


@pytest.mark.parametrize("kind", [messages.Advertisement, messages.MaskedVector, messages.AdvertisementList])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_anything_is_made_of_it(name: str, kind: type) -> None:
    data = BOMBS[name]
    params = build(3).params
    began = time.process_time()
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError):
        messages.decode(kind, data, params)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", [n for n in BOMBS if len(BOMBS[n]) < wire.MAX_MESSAGE_BYTES])
def test_the_same_bombs_are_refused_where_no_session_says_how_large_a_message_is(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.decode(messages.Advertisement, BOMBS[name])


def test_no_object_is_made_of_what_fits_the_limit_and_is_a_bomb() -> None:
    """Within the bytes that a Query may have, empty lists would become a gigabyte of objects."""
    data = b"\x83\x01\x65Query\x9a\x00\x40\x00\x00" + b"\x80" * (1 << 22)
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError, match="items"):
        wire.decode(Query, data, MAX_QUERY_BYTES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("sites", [3, 10, pytest.param(100, marks=pytest.mark.full)])
def test_honest_messages_fit_their_limits_and_the_limits_are_close(sites: int) -> None:
    federation = build(sites, length=500)
    federation.run_until("done", {("mask", f"site-{sites - 1}")} if sites > 3 else ())
    for (phase, _), (request, answer) in federation.sent.items():
        for kind, data in ((REQUESTS[phase], request), (ANSWER_OF[phase], answer)):
            largest = largest_bytes(kind, federation.params)
            assert len(data) <= largest
            # Params are read before anything is known of the session; a receipt may hold a complaint about everybody
            if kind not in (Params, messages.Receipt):
                assert largest < 8 * len(data) + 1_000, kind


def test_names_of_the_greatest_length_still_fit() -> None:
    name = "a" * 40
    one = messages.Advertisement(name, bytes(32), bytes(32), bytes(64))
    many = messages.AdvertisementList((one,) * 100)
    assert len(messages.encode(many)) <= largest_bytes(messages.AdvertisementList)
    against = (messages.Accusation(name, bytes(32)),) * 100
    complaint = messages.Receipt(name, bytes(32), against, bytes(32), bytes(64))
    assert len(messages.encode(complaint)) <= largest_bytes(messages.Receipt)
    with pytest.raises(FedcartError):  # an unsigned complaint, and a receipt that opens a channel for nothing
        replace(complaint, signature=b"")
    with pytest.raises(FedcartError):
        replace(complaint, accused=())


# --- the sum goes on without it


class AllIn:
    """An admission that asks for no ledger."""

    def admit(self, site: str, parts: dict[str, Any]) -> None: ...
    def note_charge(self, site: str, parts: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class Scripted(Exchange):
    """Honest sites that answer, and one that sends what it likes in one exchange."""

    def __init__(self, federation: Federation, phase: str, parts: dict[str, Any]) -> None:
        super().__init__(None, {})  # type: ignore[arg-type]
        self._federation, self._phase, self._parts = federation, phase, parts

    def ask(self, phase: str, requests: Any, *, deadline_s: float, group: str) -> dict[str, Answer]:
        answers = {}
        for site, parts in requests.items():
            if (site, phase) == (EVIL, self._phase):
                answers[site] = Answer(site, self._parts)
                continue
            request = messages.decode(REQUESTS[phase], parts["message"])
            answers[site] = Answer(site, {"message": self._federation.exchange(phase, site, request)})
        return answers


def sum_with(phase: str, parts: dict[str, Any]) -> tuple[Federation, Any]:
    federation = build(5)
    opening = Opening({site: {} for site in federation.names}, AllIn())  # type: ignore[arg-type]
    exchange = Scripted(federation, phase, parts)
    return federation, secure_sum(exchange, federation.params, opening, AggregationSettings())


PARTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no bytes": {"message": 5},
    "a list": {"message": [1, 2]},
    "a number of 5,000 digits": {"message": BOMBS["a number of 5,000 digits"]},
    "nested without end": {"message": BOMBS["nested without end"]},
    "ten million lists": {"message": BOMBS["ten million empty lists"]},
    "ten megabytes of zeros": {"message": bytes(10_000_000)},
}


@pytest.mark.parametrize("phase", EXCHANGES)
@pytest.mark.parametrize("name", PARTS)
def test_one_malformed_answer_loses_its_site_and_no_other(phase: str, name: str) -> None:
    federation, outcome = sum_with(phase, PARTS[name])
    assert not outcome.aborted
    survivors = set(federation.names) - ({EVIL} if phase in EXCHANGES[:4] else set())
    assert set(outcome.survivors) == survivors
    if phase in EXCHANGES[:4]:  # later its vector is in the sum already
        assert (outcome.sites[EVIL].status, outcome.sites[EVIL].reason) == ("lost", "malformed")
        assert outcome.sites[EVIL].phase == phase
    assert any(EVIL in remark and "malformed" in remark for remark in outcome.remarks)
