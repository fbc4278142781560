"""What a dishonest server, or dishonest sites, may try with cohorts, thresholds and lists; each attempt must raise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.errors import (
    BadInputError,
    ConfigError,
    FedcartError,
    PolicyRefusedError,
    RefusedError,
    RemoteProtocolError,
    VerificationError,
)
from common.secagg import messages
from common.secagg.client import ClientProtocol, CohortPolicy
from common.secagg.dealing import dealt_digest
from common.secagg.messages import (
    AdvertisementList,
    ConfirmationList,
    Member,
    Params,
    SurvivorList,
    default_threshold,
)
from common.secagg.server import ServerProtocol
from common.trust.crypto import x25519_public
from common.trust.identity import COORDINATOR, Identity, Party, Roster
from tests.hostile_secagg import S, advertised, refused_without_a_trace
from tests.secagg_rounds import Federation, build

# --- who is in the cohort


@pytest.mark.parametrize("count", [0, 1, 2, 101, 201])
def test_cohorts_of_less_than_three_or_over_a_hundred_are_refused(count: int) -> None:
    params = build(3).params
    cohort = tuple(Member(f"s{i}", i.to_bytes(32, "big"), 1.0) for i in range(count))
    with pytest.raises(ConfigError) as caught:
        replace(params, cohort=cohort, threshold=max(2, default_threshold(count)))
    assert caught.value.hint


def test_a_cohort_with_a_site_that_is_not_pinned_is_refused() -> None:
    federation = build(4)
    stranger = Identity.generate("stranger")
    cohort = (*federation.params.cohort[:3], Member("stranger", stranger.public_key, 1.0))
    client = ClientProtocol(federation.sites[S[0]], replace(federation.params, cohort=cohort))
    with pytest.raises(VerificationError, match="stranger"):
        client.advertise()


def test_a_cohort_with_the_servers_key_under_a_sites_name_is_refused() -> None:
    federation = build(4)
    servers = Identity.generate(S[2]).public_key
    cohort = tuple(replace(m, public_key=servers) if m.site == S[2] else m for m in federation.params.cohort)
    with pytest.raises(VerificationError, match=S[2]):
        ClientProtocol(federation.sites[S[0]], replace(federation.params, cohort=cohort)).advertise()


def test_the_coordinator_cannot_sit_in_the_cohort() -> None:
    federation = build(4)
    roster = federation.roster.parties
    roster = Roster((*roster[:3], replace(roster[3], role=COORDINATOR)))
    site = replace(federation.sites[S[0]], roster=roster)
    with pytest.raises(VerificationError, match=S[3]):
        ClientProtocol(site, federation.params).advertise()


def test_a_site_that_is_not_invited_does_not_answer() -> None:
    federation = build(4)
    params = replace(federation.params, cohort=federation.params.cohort[1:], threshold=3)
    with pytest.raises(RemoteProtocolError):
        ClientProtocol(federation.sites[S[0]], params).advertise()


def test_a_site_filled_into_the_cohort_twice_is_refused() -> None:
    params = build(4).params
    for twin in (params.cohort[0], replace(params.cohort[0], site="twin")):
        with pytest.raises(ConfigError):
            replace(params, cohort=(*params.cohort[:3], twin))


# --- the threshold


@pytest.mark.parametrize("sites", [3, 4, 5, 10, 99, 100])
def test_no_threshold_under_two_thirds_is_expressible(sites: int) -> None:
    params = build(sites).params
    lowest = 2 if sites == 3 else default_threshold(sites)
    assert 3 * default_threshold(sites) > 2 * sites
    for threshold in (0, 1, lowest - 1, sites + 1):
        with pytest.raises(ConfigError):
            replace(params, threshold=threshold)
    replace(params, threshold=sites)


def test_two_of_three_needs_the_operators_explicit_choice() -> None:
    federation = build(3, threshold=2, policy=CohortPolicy())
    with pytest.raises(PolicyRefusedError) as caught:
        federation.clients[S[0]].advertise()
    assert caught.value.rule == "min_threshold"
    allowed = build(3, threshold=2, policy=CohortPolicy(min_threshold=2))
    result = allowed.run_until("done", {("mask", S[1]), ("confirm", S[1]), ("unmask", S[1])}).result
    np.testing.assert_array_equal(result.ring_sum, allowed.plain_sum([S[0], S[2]]))


def test_a_sites_own_minimum_holds_whatever_the_server_says() -> None:
    for policy, rule in (
        (CohortPolicy(min_cohort=5), "min_cohort"),
        (CohortPolicy(min_threshold=4), "min_threshold"),
    ):
        with pytest.raises(PolicyRefusedError) as caught:
            build(4, policy=policy).clients[S[0]].advertise()
        assert caught.value.rule == rule


# --- different stories to different sites


@pytest.mark.parametrize("field", ["model_digest", "query_digest", "threshold", "cohort", "blocks", "session"])
def test_sites_that_were_told_different_parameters_give_no_sum(field: str) -> None:
    federation = build(4)
    params = federation.params
    other = {
        "model_digest": b"x" * 32,
        "query_digest": b"x" * 32,
        "threshold": 4,
        "cohort": (*params.cohort[:3], replace(params.cohort[3], weight=16.0)),
        "blocks": (replace(params.blocks[0], clip=2.0), params.blocks[1]),
        "session": replace(params.session, attempt=7),
    }
    told = replace(params, **{field: other[field]})
    federation.clients[S[1]] = ClientProtocol(federation.sites[S[1]], told)
    advertisements = tuple(federation.clients[site].advertise() for site in federation.names)
    with pytest.raises(VerificationError, match=S[1]):
        federation.server.receive(S[1], advertisements[1])
    for site in federation.names:
        liar = S[0] if site == S[1] else S[1]
        error = refused_without_a_trace(federation, site, AdvertisementList(advertisements), VerificationError)
        assert liar in error.message


@pytest.mark.parametrize("field", ["channel_key", "mask_key", "signature"])
def test_keys_swapped_by_the_server_are_refused(field: str) -> None:
    federation = build(4)
    listed = advertised(federation)
    evil = x25519_public(b"\x05" * 32) if field != "signature" else bytes(64)
    request = AdvertisementList((listed[0], replace(listed[1], **{field: evil}), *listed[2:]))
    assert S[1] in refused_without_a_trace(federation, S[0], request, VerificationError).message
    refused_without_a_trace(federation, S[1], request, RemoteProtocolError)  # its own was changed
    federation.run_until("done")


def test_advertisement_lists_that_no_honest_server_makes_are_refused() -> None:
    federation = build(4)
    a, b, c, d = advertised(federation)
    outsider = replace(d, site="outsider")
    for wrong in ((a, b), (b, c, d), (a, c, b, d), (a, a, b, c), (a, b, c, outsider), ()):
        refused_without_a_trace(federation, S[0], AdvertisementList(wrong), RemoteProtocolError)
    federation.run_until("done")


def test_a_site_that_repeats_another_sites_keys_is_stopped_at_the_server_and_at_the_sites() -> None:
    federation = build(4)
    a, b, *rest = advertised(federation)
    copy = replace(b, channel_key=a.channel_key)
    copy = replace(copy, signature=federation.sites[S[1]].identity.sign(copy.statement(federation.params.salt)))
    refused_without_a_trace(federation, S[2], AdvertisementList((a, copy, *rest)), RemoteProtocolError)
    server = ServerProtocol(federation.params)
    server.receive(S[0], a)
    with pytest.raises(RemoteProtocolError, match="twice"):
        server.receive(S[1], copy)


def test_keys_of_small_order_are_stopped_at_the_server_and_at_the_sites() -> None:
    federation = build(4)
    a, b, *rest = advertised(federation)
    weak = replace(b, channel_key=bytes(32))
    weak = replace(weak, signature=federation.sites[S[1]].identity.sign(weak.statement(federation.params.salt)))
    with pytest.raises(RemoteProtocolError, match="small order"):
        ServerProtocol(federation.params).receive(S[1], weak)
    refused_without_a_trace(federation, S[0], AdvertisementList((a, weak, *rest)), VerificationError)


def test_shares_dealt_to_another_or_by_another_do_not_open() -> None:
    federation = build(4)
    requests = federation.run_until("accept").requests()
    mine, other = requests[S[0]], requests[S[1]]
    piece = messages.cut(mine.pieces, messages.piece_bytes(4))
    foreign = messages.cut(other.pieces, messages.piece_bytes(4))
    for pieces in (
        [piece[1], piece[0], *piece[2:]],
        [piece[1], *piece[1:]],
        [foreign[0], *piece[1:]],
        [*piece[:2], foreign[2], piece[3]],
        piece[1:],
        [*piece, piece[2]],
        [*piece[:3], piece[3][:-1]],
        [],
    ):
        refused_without_a_trace(federation, S[0], replace(mine, pieces=b"".join(pieces)), FedcartError)
    for dealers in (mine.dealers[1:], mine.dealers[::-1], (*mine.dealers, S[9]), mine.dealers[:2]):
        refused_without_a_trace(federation, S[0], replace(mine, dealers=dealers), RemoteProtocolError)
    federation.run_until("done")


def test_accepted_lists_that_no_honest_server_makes_are_refused() -> None:
    federation = build(4)
    federation.run_until("mask", {("accept", S[3])})
    names = federation.names
    for wrong in (names[1:], names[:2], names[2::-1], (*names[:3], S[9]), (names[0], *names[:2]), ()):
        refused_without_a_trace(federation, S[0], messages.AcceptedList(wrong), RemoteProtocolError)
    federation.run_until("done")


# --- survivor lists


def test_two_survivor_lists_never_both_get_enough_signatures() -> None:
    federation = build(4)
    shared = federation.names
    server = federation.run_until("confirm")
    first = next(iter(server.requests().values()))
    second = replace(first, survivors=shared[:3])
    assert first == SurvivorList(shared, shared, dealt_of(federation))
    one = [federation.answer(site, first) for site in S[:2]]
    two = [federation.answer(site, second) for site in S[2:3]]
    refused_without_a_trace(federation, S[3], second, RemoteProtocolError)  # it is not in that list
    one.append(federation.answer(S[3], first))
    for site in S[:2]:
        refused_without_a_trace(federation, site, second, RemoteProtocolError)  # signs once
    refused_without_a_trace(federation, S[0], ConfirmationList(second, tuple(two)), RemoteProtocolError)
    mixed = ConfirmationList(second, (*one[:2], *two))
    refused_without_a_trace(federation, S[0], mixed, VerificationError)
    forged = ConfirmationList(first, (one[0], one[1], replace(two[0], signature=bytes(64))))
    refused_without_a_trace(federation, S[0], forged, VerificationError)
    doubled = ConfirmationList(first, (one[0], one[0], one[1]))
    refused_without_a_trace(federation, S[0], doubled, RemoteProtocolError)
    assert federation.answer(S[0], ConfirmationList(first, tuple(one))).key_shares == b""
    assert server.phase == "confirm"


def test_survivor_lists_that_no_honest_server_makes_are_refused() -> None:
    federation = build(4)
    federation.run_until("confirm")
    names = federation.names
    for shared, survivors in (
        (names, names[:2]),
        (names, names[1:]),
        (names[:3], names[:3]),
        (names, (names[0], names[2], names[1])),
        (names, (*names, "outsider")),
        (names, (names[0], names[0], names[1])),
        ((), ()),
    ):
        wrong = SurvivorList(shared, survivors, dealt_of(federation))
        refused_without_a_trace(federation, S[0], wrong, RemoteProtocolError)
    other = SurvivorList(names, names, bytes(32))  # dealings that it has not seen
    refused_without_a_trace(federation, S[0], other, RemoteProtocolError)


def dealt_of(federation: Federation) -> bytes:
    return dealt_digest([h.dealing for h in federation.clients[S[0]]._state.held])


def test_a_site_lost_before_sharing_is_in_no_list_of_survivors() -> None:
    federation = build(4)
    federation.run_until("confirm", {("share", S[3])})
    wrong = SurvivorList(federation.names[:3], federation.names, dealt_of(federation))
    refused_without_a_trace(federation, S[0], wrong, RemoteProtocolError)


def test_the_second_list_is_refused_by_the_journal_even_from_a_stored_state() -> None:
    federation = build(4)
    lists = next(iter(federation.run_until("confirm").requests().values()))
    stored = federation.clients[S[0]].to_state()
    federation.answer(S[0], lists)
    replayed = ClientProtocol.from_state(federation.sites[S[0]], stored)
    with pytest.raises(RefusedError):
        replayed.confirm(replace(lists, survivors=federation.names[:3]))


def test_params_survive_their_encoding_and_no_other_bytes_do() -> None:
    params = build(5).params
    again = messages.decode(Params, messages.encode(params))
    assert again == params
    assert again.salt == params.salt


def test_the_roster_refuses_twins() -> None:
    identity = Identity.generate("a")
    with pytest.raises(BadInputError):
        Roster((Party("a", "site", identity.public_key), Party("b", "site", identity.public_key)))
