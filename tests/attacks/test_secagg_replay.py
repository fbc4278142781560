"""Replayed, reordered and damaged messages, and contributions and sessions used twice; each attempt must raise."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from common.errors import (
    BadInputError,
    FedcartError,
    LocalProtocolError,
    RefusedError,
    RemoteProtocolError,
    RoundAbortedError,
)
from common.secagg import fixedpoint, messages
from common.secagg.client import TRANSITIONS, ClientProtocol
from common.secagg.messages import (
    ShareBundle,
)
from common.secagg.server import EXCHANGES
from tests.hostile_secagg import KINDS, S, advertised, refused_without_a_trace
from tests.secagg_rounds import Federation, ask, build

# --- replay, order, damage


@pytest.mark.parametrize("phase", EXCHANGES)
def test_a_stored_state_answers_no_exchange_twice(phase: str) -> None:
    federation = build(3)
    request = federation.run_until(phase).requests()[S[0]]
    stored = federation.clients[S[0]].to_state()
    federation.answer(S[0], request)
    replayed = ClientProtocol.from_state(federation.sites[S[0]], stored)
    with pytest.raises(RefusedError):
        ask(replayed, request, federation.vectors[S[0]], federation.contribution(S[0]))
    assert replayed.to_state() == stored


def test_every_request_in_the_wrong_phase_is_refused_and_changes_nothing() -> None:
    federation = build(3)
    federation.run_until("done")
    requests = {phase: messages.decode(kind, federation.sent[phase, S[0]][0]) for phase, kind in KINDS.items()}
    walker = Federation(federation.next_attempt().params, federation.roster, build(3).sites, federation.vectors)
    for phase in EXCHANGES:
        honest = walker.run_until(phase).requests()[S[0]]
        for other, request in requests.items():
            if other != phase:
                refused_without_a_trace(walker, S[0], request, RemoteProtocolError)
        assert honest is not None
    walker.run_until("done")
    for request in requests.values():
        refused_without_a_trace(walker, S[0], request, RemoteProtocolError)


@pytest.mark.parametrize("phase", EXCHANGES[1:])
def test_requests_of_another_session_are_refused(phase: str) -> None:
    federation = build(3)
    request = federation.run_until(phase).requests()[S[0]]
    later = federation.next_attempt()
    later = Federation(later.params, later.roster, build(3).sites, later.vectors)
    later.run_until(phase)
    if phase == "mask":  # names only: what is masked is masked under the session's own keys
        assert (later.answer(S[0], request).ring != federation.answer(S[0], request).ring).any()
    else:
        refused_without_a_trace(later, S[0], request, FedcartError)


@pytest.mark.parametrize("phase", EXCHANGES)
def test_truncated_requests_and_answers_are_refused(phase: str) -> None:
    federation = build(3)
    server = federation.run_until(phase)
    raw = messages.encode(server.requests()[S[0]])
    for length in {0, 1, 5, len(raw) // 3, len(raw) // 2, len(raw) - 1}:
        with pytest.raises(FedcartError):
            messages.decode(KINDS[phase], raw[:length])
    with pytest.raises(FedcartError):
        messages.decode(KINDS[phase], raw + b"\0")
    answer = federation.exchange(phase, S[0], server.requests()[S[0]])
    for length in {0, 1, 5, len(answer) // 3, len(answer) // 2, len(answer) - 1}:
        with pytest.raises(FedcartError, match=S[0]):
            server.receive(S[0], answer[:length])
    with pytest.raises(FedcartError):
        server.receive(S[0], answer + b"\0")
    server.receive(S[0], answer)


@pytest.mark.parametrize("phase", EXCHANGES)
def test_no_flipped_bit_of_an_answer_gets_past_the_server(phase: str) -> None:
    federation = build(3, length=6)
    server = federation.run_until(phase)
    answer = federation.exchange(phase, S[0], server.requests()[S[0]])
    draw = random.Random(phase)
    for bit in draw.sample(range(8 * len(answer)), 150):
        changed = bytearray(answer)
        changed[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(FedcartError):
            server.receive(S[0], bytes(changed))
    server.receive(S[0], answer)


def test_answers_of_other_kinds_sites_and_strangers_are_refused() -> None:
    federation = build(3)
    server = federation.server
    own = federation.answer(S[0], federation.params)
    empty = ShareBundle(S[0], bytes(32), b"", bytes(64))
    for site, answer in ((S[1], own), ("stranger", own), (S[0], empty), (S[0], b"")):
        with pytest.raises(RemoteProtocolError):
            server.receive(site, answer)
    assert server.waiting_for == federation.names


# --- one contribution, one sum


def test_the_differencing_attack_is_refused() -> None:
    # Two sums of the same contributions, with and without one site, would differ by exactly its update.
    federation = build(4)
    federation.run_until("done")
    again = federation.next_attempt()
    with pytest.raises(RefusedError, match="has left"):
        again.run_until("done", {("mask", S[3])})
    assert again.server._sum.any() == np.False_


def test_a_contribution_that_never_left_may_be_used_in_the_next_attempt() -> None:
    federation = build(4)
    with pytest.raises(RoundAbortedError):
        federation.run_until("done", {("share", S[0]), ("share", S[1])})
    again = federation.next_attempt()
    np.testing.assert_array_equal(again.run_until("done").result.ring_sum, federation.plain_sum(S[:4]))


def test_a_contribution_masked_in_an_aborted_round_is_dead() -> None:
    federation = build(4)
    with pytest.raises(RoundAbortedError):
        federation.run_until("done", {("confirm", S[0]), ("confirm", S[1])})
    with pytest.raises(RefusedError, match="has left"):
        federation.next_attempt().run_until("done")


def test_two_contributions_never_leave_under_the_same_masks() -> None:
    federation = build(4)
    request = federation.run_until("mask").requests()[S[0]]
    stored = federation.clients[S[0]].to_state()
    federation.answer(S[0], request)
    replayed = ClientProtocol.from_state(federation.sites[S[0]], stored)
    with pytest.raises(RefusedError):
        replayed.mask(request, federation.vectors[S[1]], b"another contribution ".ljust(32, b"."))


def test_a_session_is_never_used_twice_even_after_a_restart() -> None:
    for phase in EXCHANGES:
        federation = build(3)
        server = federation.run_until(phase)
        if phase != EXCHANGES[0]:
            restarted = ClientProtocol(federation.sites[S[0]], federation.params)
            with pytest.raises(RefusedError):
                restarted.advertise()
            other = replace(federation.params, query_digest=b"y" * 32)
            with pytest.raises(RefusedError):
                ClientProtocol(federation.sites[S[0]], other).advertise()
            request = server.requests()[S[0]]
            with pytest.raises(RemoteProtocolError):
                ask(restarted, request, federation.vectors[S[0]], federation.contribution(S[0]))


def test_two_rounds_with_one_journal_have_no_key_in_common() -> None:
    federation = build(3)
    first = advertised(federation)
    federation.run_until("done")
    session = replace(federation.params.session, round=2)
    later = federation.next_attempt(session=session)
    for i, site in enumerate(later.names):
        later.vectors[site] = later.vectors[site].copy()
        later.vectors[site][0] = i
    second = advertised(later)
    np.testing.assert_array_equal(later.run_until("done").result.ring_sum, later.plain_sum(later.names))
    keys = [k for a in (*first, *second) for k in (a.channel_key, a.mask_key)]
    assert len(set(keys)) == len(keys)


# --- what goes in


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_become_a_vector(bad: float) -> None:
    vector = np.zeros(40)
    vector[7] = bad
    with pytest.raises(BadInputError):
        fixedpoint.quantize(vector, build(3).params.blocks)


def test_a_vector_outside_its_blocks_is_never_masked() -> None:
    federation = build(3)
    request = federation.run_until("mask").requests()[S[0]]
    for change in (lambda v: v[:-1], lambda v: v | np.uint32(1 << 30), lambda v: v.astype(np.int64)):
        federation.vectors[S[0]] = change(build(3).vectors[S[0]])
        refused_without_a_trace(federation, S[0], request, LocalProtocolError)
    federation.vectors[S[0]] = build(3).vectors[S[0]]
    with pytest.raises(LocalProtocolError):
        federation.clients[S[0]].mask(request, federation.vectors[S[0]], b"short")


def test_masking_leaves_the_sites_vector_as_it_was() -> None:
    federation = build(3)
    before = {site: vector.copy() for site, vector in federation.vectors.items()}
    federation.run_until("done")
    assert all(np.array_equal(before[site], federation.vectors[site]) for site in before)


def test_the_table_of_transitions_is_one_line() -> None:
    phases = [start for start, _ in TRANSITIONS.values()]
    ends = [end for _, end in TRANSITIONS.values()]
    assert phases[1:] == ends[:-1]
    assert len(set(phases)) == len(phases)
