"""The fault matrix: every exchange, every way to lose a message or a site, enough and too few survivors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from common.errors import FedcartError, RoundAbortedError
from common.secagg import messages
from common.secagg.client import ClientProtocol
from common.secagg.evidence import verify_evidence
from common.secagg.journal import MemoryJournal
from common.secagg.messages import Params, Session
from common.secagg.server import EXCHANGES
from tests.secagg_rounds import Federation, ask, build

FAULTS = ("lost before", "lost after", "late", "duplicate", "reordered")
FAULTS += ("corrupted", "corrupted request", "other round", "other run", "other site")
HARMLESS = ("duplicate", "reordered")


def play(federation: Federation, phase: str, fault: str, victims: tuple[str, ...]) -> dict[str, int]:
    """Run a session with one fault at the victims in one exchange; how many answers each exchange took."""
    server, taken, gone = federation.server, {}, set()
    while not server.finished:
        late = []
        requests = list(server.requests().items())
        if fault == "reordered":
            requests.reverse()
        for site, request in requests:
            if server.phase == phase and site in victims:
                late += misbehave(federation, fault, site, request)
                gone |= {site} if fault not in HARMLESS else set()
            elif site not in gone:
                server.receive(site, federation.exchange(server.phase, site, request))
        taken[server.phase] = len(requests) - len(server.waiting_for)
        server.advance()
        for site, answer in late:
            with pytest.raises(FedcartError):
                server.receive(site, answer)
    return taken


def misbehave(federation: Federation, fault: str, site: str, request) -> list[tuple[str, bytes]]:
    server = federation.server
    if fault == "lost before":
        return []
    if fault == "corrupted request":
        refuse_damaged(federation, site, messages.encode(request), type(request))
        return []
    answer = federation.exchange(server.phase, site, request)
    if fault in ("lost after", *HARMLESS):
        server.receive(site, answer)
    if fault == "duplicate":
        with pytest.raises(FedcartError):
            federation.answer(site, request)
    wrong = {
        "duplicate": lambda: answer,
        "corrupted": lambda: (
            answer[: len(answer) // 2] + bytes([answer[len(answer) // 2] ^ 1]) + answer[len(answer) // 2 + 1 :]
        ),
        "other round": lambda: elsewhere(federation, federation.next_attempt(), site),
        "other run": lambda: elsewhere(federation, federation.next_attempt(session=Session("other", 1, 0)), site),
        "other site": lambda: federation.sent[server.phase, federation.names[0]][1],
    }.get(fault)
    if wrong is not None:
        with pytest.raises(FedcartError, match=site):
            server.receive(site, wrong())
    return [(site, answer)] if fault == "late" else []


def refuse_damaged(federation: Federation, site: str, raw: bytes, kind: type) -> None:
    """A request with one bit wrong: refused by the site, or (exchange 1) answered for other parameters."""
    changed = bytearray(raw)
    changed[len(changed) // 2] ^= 1
    client = federation.clients[site]
    before = client.to_state()
    try:
        request = messages.decode(kind, bytes(changed))
        client = ClientProtocol(federation.sites[site], request) if kind is Params else client
        answer = ask(client, request, federation.vectors[site], federation.contribution(site))
    except FedcartError:
        assert federation.clients[site].to_state() == before
        return
    with pytest.raises(FedcartError, match=site):
        federation.server.receive(site, messages.encode(answer))


def elsewhere(federation: Federation, other: Federation, site: str) -> bytes:
    """The same site's answer in the same exchange of another session (fresh journals: it is the real thing)."""
    fresh = {name: replace(local, journal=MemoryJournal()) for name, local in other.sites.items()}
    other = Federation(other.params, other.roster, fresh, other.vectors)
    phase = federation.server.phase
    return other.exchange(phase, site, other.run_until(phase).requests()[site])


def check(sites: int, phase: str, fault: str, *, too_few: bool) -> None:
    federation = build(sites)
    count = sites - federation.params.threshold + too_few
    victims = federation.names[1 : 1 + count]
    last = fault == "lost after" and phase == EXCHANGES[-1]
    if too_few and fault not in HARMLESS and not last:
        first_short = EXCHANGES[EXCHANGES.index(phase) + (fault == "lost after")]
        with pytest.raises(RoundAbortedError) as caught:
            play(federation, phase, fault, victims)
        assert caught.value.reason == federation.server.abort_reason == f"too-few-{first_short}"
        assert federation.server.requests() == {}
        return
    taken = play(federation, phase, fault, victims)
    result = federation.server.result
    assert min(taken.values()) >= federation.params.threshold
    np.testing.assert_array_equal(result.ring_sum, federation.plain_sum(result.survivors))
    verify_evidence(result.evidence, federation.roster, result.ring_sum)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("phase", EXCHANGES)
def test_sum_is_exact_or_the_round_aborts_by_name(phase: str, fault: str) -> None:
    check(4, phase, fault, too_few=False)


@pytest.mark.parametrize("fault", ["lost before", "lost after", "corrupted"])
@pytest.mark.parametrize("phase", EXCHANGES)
def test_one_site_too_few_aborts_by_name(phase: str, fault: str) -> None:
    check(4, phase, fault, too_few=True)


@pytest.mark.full
@pytest.mark.parametrize("too_few", [False, True], ids=["enough", "too-few"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("phase", EXCHANGES)
@pytest.mark.parametrize("sites", [3, 4, 10])
def test_any_cohort_sums_exactly_or_aborts_by_name(sites: int, phase: str, fault: str, too_few: bool) -> None:
    check(sites, phase, fault, too_few=too_few)


@pytest.mark.parametrize("phase", EXCHANGES)
def test_the_reason_of_an_abort_names_the_exchange(phase: str) -> None:
    federation = build(4)
    with pytest.raises(RoundAbortedError) as caught:
        play(federation, phase, "lost before", federation.names[:2])
    assert caught.value.reason == f"too-few-{phase}"
    assert "site-0, site-1" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("phases", list(itertools.combinations(EXCHANGES, 3))[::3])
def test_sum_is_exact_when_sites_vanish_in_three_different_exchanges(phases: tuple[str, ...]) -> None:
    federation = build(10)
    lost = {(later, f"site-{2 * i}") for i, phase in enumerate(phases) for later in after(phase)}
    federation.run_until("done", lost)
    result = federation.server.result
    gone = {f"site-{2 * i}" for i, phase in enumerate(phases) if phase in ("advertise", "share", "accept", "mask")}
    assert set(federation.names) - set(result.survivors) == gone
    np.testing.assert_array_equal(result.ring_sum, federation.plain_sum(result.survivors))


def after(phase: str) -> tuple[str, ...]:
    return EXCHANGES[EXCHANGES.index(phase) :]


def test_no_loss_gives_everybodys_sum_and_the_weight_of_everybody() -> None:
    federation = build(5)
    result = federation.run_until("done").result
    assert result.survivors == federation.names
    assert result.weight == 1 + 2 + 4 + 8 + 1
    parts = result.decode_blocks()
    np.testing.assert_array_equal(np.concatenate([parts["update"], parts["counts"]]), result.decode())
    expected = sum(v.view(np.int32).astype(np.int64) for v in federation.vectors.values())
    np.testing.assert_array_equal(parts["update"], expected[:-2] * 2.0**-22)
    np.testing.assert_array_equal(parts["counts"], expected[-2:])


@pytest.mark.full
def test_a_hundred_sites_sum_exactly_with_a_third_lost() -> None:
    federation = build(100)
    lost = {(p, f"site-{i}") for i in range(10) for p in after("share")}
    lost |= {(p, f"site-{i}") for i in range(10, 30) for p in after("mask")}
    lost |= {(p, f"site-{i}") for i in range(30, 33) for p in after("confirm")}
    result = federation.run_until("done", lost).result
    assert len(result.survivors) == 70
    np.testing.assert_array_equal(result.ring_sum, federation.plain_sum(result.survivors))


def test_an_early_end_is_known_when_all_have_answered() -> None:
    federation = build(3)
    server = federation.server
    assert server.waiting_for == federation.names
    for site, request in server.requests().items():
        server.receive(site, federation.exchange("advertise", site, request))
    assert server.waiting_for == ()


def upload(sites: int, length: int) -> Callable[[str], int]:
    federation = build(sites, length=length)
    federation.run_until("done")
    return lambda site: sum(len(answer) for (_, sender), (_, answer) in federation.sent.items() if sender == site)


@pytest.mark.parametrize("sites", [3, 10])
def test_upload_is_four_bytes_per_parameter_and_little_more(sites: int) -> None:
    size = upload(sites, 5000)
    for i in range(sites):
        assert size(f"site-{i}") <= 4 * 5000 + 2000 + 200 * sites


def test_requests_that_are_equal_are_one_object_so_that_they_are_encoded_once() -> None:
    federation = build(4)
    for phase in ("advertise", "share", "mask", "confirm", "unmask"):
        federation.run_until(phase)
        assert len({id(request) for request in federation.server.requests().values()}) == 1
        assert messages.encode(next(iter(federation.server.requests().values())))
