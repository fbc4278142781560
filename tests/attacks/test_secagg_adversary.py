"""What a dishonest server, or dishonest sites, may try; each attempt must raise and give away nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from common.errors import (
    BadInputError,
    ConfigError,
    FedcartError,
    LocalProtocolError,
    PolicyRefusedError,
    RefusedError,
    RemoteProtocolError,
    RoundAbortedError,
    VerificationError,
)
from common.secagg import fixedpoint, messages
from common.secagg.client import TRANSITIONS, ClientProtocol, CohortPolicy
from common.secagg.dealing import dealt_digest
from common.secagg.messages import (
    Advertisement,
    AdvertisementList,
    ConfirmationList,
    Member,
    Params,
    ShareBundle,
    SurvivorList,
    default_threshold,
)
from common.secagg.server import EXCHANGES, ServerProtocol
from common.trust.crypto import add_masks, x25519_public
from common.trust.identity import COORDINATOR, Identity, Party, Roster
from tests.secagg_rounds import Federation, ask, build

S = [f"site-{i}" for i in range(10)]


def refused_without_a_trace(federation: Federation, site: str, request, error: type[FedcartError]) -> FedcartError:
    """The site raises and stays exactly where it was; the honest request still works afterwards."""
    before = federation.clients[site].to_state()
    with pytest.raises(error) as caught:
        federation.answer(site, request)
    assert federation.clients[site].to_state() == before
    return caught.value


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


def advertised(federation: Federation) -> tuple[Advertisement, ...]:
    return next(iter(federation.run_until("share").requests().values())).advertisements


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


KINDS = {
    "advertise": messages.Params,
    "share": messages.AdvertisementList,
    "accept": messages.ShareDelivery,
    "mask": messages.AcceptedList,
    "confirm": messages.SurvivorList,
    "unmask": messages.ConfirmationList,
}


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


# --- what the server sees


def test_masked_vectors_look_uniform() -> None:
    # Chi-square over 256 byte values at the most revealing input, zero; fixed seeds, so it cannot flicker.
    federation = build(3, length=60_000, seeded=True)
    federation.vectors = {site: np.zeros(60_000, dtype=np.uint32) for site in federation.names}
    server = federation.run_until("mask")
    total = np.zeros(60_000, dtype=np.uint32)
    for site, request in server.requests().items():
        ring = federation.answer(site, request).ring
        total += ring
        for shift in (0, 8, 16, 24):
            counts = np.bincount((ring >> shift) & 0xFF, minlength=256)
            expected = ring.size / 256
            statistic = float(((counts - expected) ** 2 / expected).sum())
            assert 160 < statistic < 360  # 255 degrees of freedom: 1e-6 on either side
    assert len(np.unique(total)) > 59_000  # the self masks are still in the sum


def test_shares_of_less_than_t_sites_leave_the_sum_masked() -> None:
    # A server with the shares of t-1 colluding sites: what it reconstructs is neither the seed nor the mask key.
    from common.secagg import shamir
    from common.trust.curve import scalar_of

    federation = build(4)
    federation.run_until("mask")
    own = [federation.clients[site]._state.secrets for site in federation.names]
    held = {site: federation.clients[site]._state.held for site in S[:3]}
    for count in (2, 3):
        points = [federation.params.positions[site] + 1 for site in S[:count]]
        weights = shamir.lagrange_coefficients(points)
        for i, secrets in enumerate(own):
            seed = shamir.interpolate(weights, [held[site][i].seed_share for site in S[:count]])
            key = shamir.interpolate(weights, [held[site][i].key_share for site in S[:count]])
            opened = seed == int.from_bytes(secrets.seed, "big"), key == scalar_of(secrets.mask_key)
            assert opened == ((True, True) if count == federation.params.threshold else (False, False))


def test_a_survivors_vector_stays_masked_by_its_own_seed_when_its_pair_masks_are_known() -> None:
    # All other sites collude: the pairwise masks of site-0 fall, its self mask does not (until unmask).
    federation = build(3)
    server = federation.run_until("mask")
    request = server.requests()[S[0]]
    from common.secagg import masks
    from common.trust.crypto import x25519_agreement
    from common.trust.curve import exchange_secret, to_exchange

    masked = federation.answer(S[0], request).ring.copy()
    public = to_exchange(next(a for a in server._u1.advertisements if a.site == S[0]).mask_key)
    for peer in S[1:3]:
        secret = federation.clients[peer]._state.secrets.mask_key
        agree = x25519_agreement(exchange_secret(secret))
        add_masks(masked, [masks.pair_mask(federation.params, agree(public), (peer, S[0]))])
    difference = masked - federation.vectors[S[0]]
    assert len(np.unique(difference)) == difference.size


# --- secrets


def test_no_secret_is_in_any_repr_error_or_evidence() -> None:
    federation = build(4)
    shown, secrets = [], []
    for phase in (*EXCHANGES, "done"):
        federation.run_until(phase, {("mask", S[3])})
        for site in federation.names:
            client = federation.clients[site]
            state = client._state
            shown += [
                repr(client),
                repr(state),
                repr(state.secrets),
                repr(state.held),
                repr(federation.sites[site]),
            ]
            if state.secrets is not None:
                secrets += [secret for secret in vars(state.secrets).values() if secret]
            secrets += [value for h in state.held for value in (h.seed_share, h.key_share)]
        shown += [repr(federation.server), repr(federation.server.requests())]
    result = federation.server.result
    shown += [repr(result), repr(result.evidence), result.evidence.to_json(), repr(federation.roster)]
    shown += [repr(messages.decode(KINDS[p], raw)) for (p, _), (raw, _) in federation.sent.items()]
    secrets += [vector.tobytes()[:16] for vector in federation.vectors.values()]
    assert len(secrets) > 40
    text = "\n".join(shown)
    for secret in secrets:
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text
    assert repr(Identity.generate("x")).count("public_key") == 1


def test_a_site_forgets_its_secrets_after_masking_its_shares_after_revealing_and_all_when_it_gives_up() -> None:
    federation = build(3)
    federation.run_until("mask")
    kept = federation.clients[S[0]]._state
    owned = (kept.secrets.seed, kept.secrets.mask_key)
    assert kept.secrets.channel_key == b""
    federation.run_until("confirm")
    assert not any(secret in federation.clients[S[0]].to_state() for secret in owned)
    held = [h.key_share for h in federation.clients[S[0]]._state.held]
    federation.run_until("done")
    assert not any(share in federation.clients[S[0]].to_state() for share in held)
    other = build(3)
    other.run_until("mask")
    other.clients[S[0]].close()
    assert other.clients[S[0]]._state.secrets is None
    assert other.clients[S[0]].phase == "closed"
    with pytest.raises(RemoteProtocolError):
        other.clients[S[0]].advertise()


def test_the_wire_never_carries_a_secret_or_a_plain_vector() -> None:
    federation = build(3)
    federation.run_until("mask")
    secrets = [s for c in federation.clients.values() for s in vars(c._state.secrets).values() if s]
    federation.run_until("confirm")
    secrets += [h.key_share for c in federation.clients.values() for h in c._state.held]
    secrets += [vector.tobytes()[:12] for vector in federation.vectors.values()]
    federation.run_until("done")
    sent = b"".join(part for pair in federation.sent.values() for part in pair)
    assert not any(secret in sent for secret in secrets)


def test_the_table_of_transitions_is_one_line() -> None:
    phases = [start for start, _ in TRANSITIONS.values()]
    ends = [end for _, end in TRANSITIONS.values()]
    assert phases[1:] == ends[:-1]
    assert len(set(phases)) == len(phases)


def test_params_survive_their_encoding_and_no_other_bytes_do() -> None:
    params = build(5).params
    again = messages.decode(Params, messages.encode(params))
    assert again == params
    assert again.salt == params.salt


def test_the_roster_refuses_twins() -> None:
    identity = Identity.generate("a")
    with pytest.raises(BadInputError):
        Roster((Party("a", "site", identity.public_key), Party("b", "site", identity.public_key)))
