"""A site that breaks the protocol is named, with a proof that everybody can check; no other site can be."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from common.audit.binding import proof_problems
from common.errors import FedcartError, RoundAbortedError, VerificationError
from common.run.records import FaultRecord, RoundRecord
from common.secagg import messages
from common.secagg.blame import Fault, ProofFile, Proofs, culprits
from common.secagg.dealing import Dealing, dealt_digest
from common.secagg.server import PROVEN_FAULT
from server.blame import excluded
from tests.hostile_sites import (
    EVIL,
    RIVAL,
    HostileFederation,
    Lie,
    false_complaint,
    garbage_boxes,
    hostile,
    next_attempt,
    one_wrong_share,
    other_shares_in_the_box,
    shares_of_a_higher_degree,
    shares_of_another_key,
    shares_of_no_polynomial,
    silent_from,
    unsigned,
    wrong_shares,
)
from tests.secagg_rounds import build

EIGHT = [f"site-{i}" for i in range(8)]
OTHERS = [site for site in EIGHT if site != EVIL]


def unsigned_complaint(*arguments):
    """A complaint about a right share, under no signature."""
    return unsigned("accept")(*arguments[:-1], false_complaint(RIVAL)(*arguments))


TEN_WAYS: dict[str, tuple[Lie, set[Fault]]] = {
    "a garbage box for one rival": (garbage_boxes(RIVAL), {Fault(EVIL, RIVAL, "bad-box")}),
    "garbage boxes for all others": (garbage_boxes(*OTHERS), {Fault(EVIL, s, "bad-box") for s in OTHERS}),
    "other shares than committed": (other_shares_in_the_box(RIVAL), {Fault(EVIL, RIVAL, "bad-box")}),
    "shares of no polynomial": (shares_of_no_polynomial, {Fault(EVIL, "", "bad-dealing")}),
    "shares of a higher degree": (shares_of_a_higher_degree, {Fault(EVIL, "", "bad-dealing")}),
    "shares of another key": (shares_of_another_key, {Fault(EVIL, "", "bad-dealing")}),
    "a false complaint": (false_complaint(RIVAL), {Fault(EVIL, RIVAL, "false-complaint")}),
    "a wrong share revealed": (wrong_shares(RIVAL), {Fault(EVIL, RIVAL, "wrong-share")}),
    "a dealing that it did not sign": (unsigned("share"), set()),
    "shares revealed without a signature": (unsigned("unmask"), set()),
}

OTHER_WAYS: dict[str, tuple[Lie, set[Fault]]] = {
    "one wrong share of the seed": (one_wrong_share(0), {Fault(EVIL, "", "bad-dealing")}),
    "one wrong share of the mask key": (one_wrong_share(1), {Fault(EVIL, "", "bad-dealing")}),
    "a complaint under another key": (false_complaint(RIVAL, secret=b"\1" * 32), set()),
    "a complaint that it did not sign": (unsigned_complaint, set()),
}


def round_with(lie: Lie) -> tuple[HostileFederation, set[Fault], list[Proofs]]:
    """One question, as the coordinator asks it: a new attempt without the culprits while faults are proven."""
    federation, faults, proofs = hostile(build(8)), set(), []
    while True:
        with suppress(RoundAbortedError):
            federation.play({EVIL: lie})
        if federation.server.phase == "aborted":
            assert federation.server.abort_reason == PROVEN_FAULT
            assert federation.left == set()  # what is reserved serves the next attempt: nothing is charged twice
        faults |= set(federation.server.faults)
        proofs += [federation.server.proofs] if federation.server.faults else []
        if federation.server.phase == "done":
            return federation, faults, proofs
        federation = next_attempt(federation, culprits(federation.server.faults))


@pytest.mark.parametrize("way", TEN_WAYS | OTHER_WAYS)
def test_a_round_with_one_hostile_site_of_eight_completes_and_names_it(way: str) -> None:
    lie, expected = (TEN_WAYS | OTHER_WAYS)[way]
    federation, faults, proofs = round_with(lie)
    result = federation.server.result
    assert faults == expected
    assert set(result.survivors) >= set(OTHERS)  # the rival too
    np.testing.assert_array_equal(result.ring_sum, federation.plain_sum(result.survivors))
    assert not set(federation.refused) - {EVIL}
    proven = {fault for case in proofs for fault in case.verdicts(federation.roster)}
    assert proven == expected
    again = ProofFile.from_json(ProofFile(tuple(proofs)).to_json())
    assert {fault for case in again.sessions for fault in case.verdicts(federation.roster)} == expected
    if not expected:
        assert EVIL in federation.refused


@pytest.mark.parametrize("dealers", [(RIVAL,), ("site-7",), (RIVAL, "site-7"), tuple(EIGHT)])
def test_wrong_shares_of_survivors_and_of_lost_sites_are_set_aside(dealers: tuple[str, ...]) -> None:
    federation = hostile(build(8))
    federation.play({EVIL: wrong_shares(*dealers), "site-7": silent_from("mask")})
    result = federation.server.result
    assert set(federation.server.faults) == {Fault(EVIL, dealer, "wrong-share") for dealer in dealers}
    np.testing.assert_array_equal(result.ring_sum, federation.plain_sum(set(EIGHT) - {"site-7"}))
    assert federation.server.proofs.verdicts(federation.roster) == federation.server.faults
    proof = ProofFile((federation.server.proofs,)).to_json()
    for site in set(EIGHT) - {"site-7"}:
        answer = federation.answered["unmask", site]
        assert not any(share.hex() in proof for share in messages.cut(answer.seed_shares + answer.key_shares, 32))


def test_a_round_with_too_many_liars_aborts_and_names_them() -> None:
    federation = hostile(build(8))
    with pytest.raises(RoundAbortedError) as caught:
        federation.play({site: wrong_shares("site-7") for site in EIGHT[:3]})
    assert caught.value.reason == "too-few-unmask"
    assert set(culprits(federation.server.faults)) == set(EIGHT[:3])


def test_a_lost_mask_key_that_is_no_exchange_secret_still_gives_the_sum() -> None:
    # A dishonest site may deal a scalar that no honest site draws: small ones have no X25519 secret of their own.
    from common.trust.crypto import x25519_agreement
    from common.trust.curve import ORDER, exchange_secret, point_of, scalar_agreement, scalar_of, to_exchange

    base = (9).to_bytes(32, "little")
    for seed in (bytes([i]) * 32 for i in range(20)):
        public = to_exchange(point_of(b"peer".ljust(32, b".")))
        expected = x25519_agreement(exchange_secret(seed))(public)
        assert scalar_agreement(scalar_of(seed))(public) == scalar_agreement(-scalar_of(seed))(public) == expected
    for small in (8, 16, 8 * 3**40, ORDER - 8):
        inverse = pow(small, -1, ORDER)
        assert scalar_agreement(inverse)(scalar_agreement(small)(base)) == base
    with pytest.raises(VerificationError):
        scalar_agreement(0)


# --- nobody can be framed


def test_what_the_coordinator_alters_makes_no_site_open_anything_and_proves_nothing() -> None:
    size = messages.piece_bytes(8)
    at = EIGHT.index("site-1") * size
    for offset in [*range(0, size, 61), size - 1]:
        federation = hostile(build(8))

        def alter(phase: str, site: str, request, where: int = at + offset):
            if phase != "accept" or site != RIVAL:
                return request
            pieces = bytearray(request.pieces)
            pieces[where] ^= 1
            return replace(request, pieces=bytes(pieces))

        federation.altered = alter
        opened = []
        federation.answer = recording(federation.answer, opened)
        federation.play({})
        assert federation.server.faults == ()
        assert RIVAL in federation.refused
        assert not [r for r in opened if isinstance(r, messages.Receipt) and (r.accused or r.channel_secret)]
        assert federation.clients[RIVAL].phase in ("shared", "accepted")


def recording(function, kept: list):
    def call(*arguments):
        answer = function(*arguments)
        kept.append(answer)
        return answer

    return call


def complained() -> HostileFederation:
    federation = hostile(build(8))
    with pytest.raises(RoundAbortedError):
        federation.play({EVIL: garbage_boxes(RIVAL)})
    return federation


def test_a_complaint_cannot_be_turned_against_an_honest_dealer_or_the_one_who_complains() -> None:
    federation = complained()
    proofs = federation.server.proofs
    (complaint,) = proofs.complaints
    honest = {
        d: Dealing(federation.params, proofs.listed, federation.answered["share", d])
        for d in EIGHT
        if d not in (EVIL, RIVAL)
    }
    for dealer, dealing in honest.items():
        piece = dealing.piece(RIVAL).write()
        accusation = messages.Accusation(dealer, dealing.statement)
        swapped = replace(complaint.receipt, accused=(accusation,))
        attempts = [
            replace(complaint, pieces=(piece,)),  # an honest piece under the true complaint
            replace(complaint, receipt=swapped, pieces=(piece,)),  # a complaint that it did not sign
            replace(complaint, receipt=swapped),
            replace(complaint, receipt=replace(complaint.receipt, site=dealer)),
            replace(complaint, receipt=replace(complaint.receipt, channel_secret=b"\1" * 32)),
            replace(complaint, pieces=(complaint.pieces[0][:-1],)),
            replace(complaint, pieces=()),
        ]
        for wrong in attempts:
            with pytest.raises(VerificationError):
                replace(proofs, complaints=(wrong,)).verdicts(federation.roster)


def test_a_dealer_that_signs_two_dealings_cannot_frame_the_holder_of_either() -> None:
    # The coordinator and a dishonest dealer: one dealing is shown to the holder, the other one to the auditor.
    federation = hostile(build(8))
    other: list[messages.ShareBundle] = []

    def two_faced(fed: HostileFederation, liar: str, phase: str, request, answer):
        if phase == "share":
            other.append(shares_again(fed, liar, request))
        return answer

    federation.play({EVIL: two_faced})
    listed, params = federation.server._u1, federation.params
    second = Dealing(params, listed, other[0])
    assert second.check() is None  # both are right and signed
    lists = federation.server._lists
    answers = federation.answered["unmask", RIVAL]
    dealings = [federation.server._dealings[d] for d in lists.shared]
    committed = tuple(d.entries[RIVAL].seed_commitment for d in dealings)
    from common.secagg.blame import Revealed

    true = tuple(d.statement for d in dealings)
    false = tuple(second.statement if d.bundle.site == EVIL else d.statement for d in dealings)
    for statements, forged in (
        (true, lists),
        (false, lists),
        (false, replace(lists, dealt=dealt_digest(false))),
    ):
        proof = Revealed(
            RIVAL, EVIL, second.piece(RIVAL).write(), forged, statements, committed, answers.signature
        )
        with pytest.raises(VerificationError):
            replace(federation.server.proofs, reveals=(proof,)).verdicts(federation.roster)


def shares_again(federation: HostileFederation, liar: str, listed) -> messages.ShareBundle:
    from tests.hostile_sites import dealt_again

    return dealt_again(federation, liar, listed)


def test_honest_dealings_complaints_and_reveals_prove_nothing() -> None:
    federation = hostile(build(8))
    federation.play({})
    assert federation.server.faults == ()
    for dealer in EIGHT:
        case = replace(federation.server.proofs, dealings=(federation.answered["share", dealer],))
        with pytest.raises(VerificationError, match="right"):
            case.verdicts(federation.roster)
        altered = federation.answered["share", dealer]
        altered = replace(altered, entries=altered.entries[:-1] + bytes([altered.entries[-1] ^ 1]))
        with pytest.raises(VerificationError):
            replace(case, dealings=(altered,)).verdicts(federation.roster)


def test_proofs_hold_for_their_session_and_the_pinned_sites_only() -> None:
    federation = complained()
    proofs = federation.server.proofs
    session = replace(proofs.params.session, round=2)
    later = replace(proofs, params=replace(proofs.params, session=session))
    with pytest.raises(VerificationError):
        later.verdicts(federation.roster)
    with pytest.raises(VerificationError):
        proofs.verdicts(build_strangers(federation))
    with pytest.raises(VerificationError):
        replace(proofs, listed=messages.AdvertisementList(proofs.listed.advertisements[1:])).verdicts(
            federation.roster
        )


def build_strangers(federation: HostileFederation):
    from common.trust.identity import Identity, Roster

    parties = federation.roster.parties
    stranger = replace(parties[1], public_key=Identity.generate("site-1").public_key)
    return Roster((parties[0], stranger, *parties[2:]))


@pytest.mark.parametrize("cut_at", [0, 10, -3])
def test_a_proof_file_that_was_changed_is_refused(cut_at: int) -> None:
    text = ProofFile((complained().server.proofs,)).to_json()
    for wrong in (text[:cut_at], text.replace("  ", " ", 1), text.replace('"proofs": 1', '"proofs": 2'), "[]"):
        with pytest.raises(FedcartError):
            ProofFile.from_json(wrong)


# --- what a complaint opens


def test_a_site_that_complains_has_left_the_session_and_masks_no_vector_in_it() -> None:
    federation = complained()
    client = federation.clients[RIVAL]
    assert client.phase == "closed"
    assert client._state.secrets is None
    for request in (messages.AcceptedList(tuple(EIGHT)), federation.asked["accept", RIVAL]):
        with pytest.raises(FedcartError):
            federation.answer(RIVAL, request)
    again = type(client).from_state(federation.sites[RIVAL], federation.states["accept", RIVAL])
    with pytest.raises(FedcartError):
        again.accept(federation.asked["accept", RIVAL])
    with pytest.raises(FedcartError):
        again.mask(messages.AcceptedList(tuple(EIGHT)), federation.vectors[RIVAL], federation.contribution(RIVAL))


def test_complaints_open_less_than_a_threshold_of_shares_of_a_site_that_goes_on() -> None:
    # The coordinator and one dishonest dealer make as many sites complain as the others can do without, and go on
    # with the rest in the same session. Of no honest site that has a vector in it are both secrets open.
    federation = hostile(build(8))
    victims, params = EIGHT[:2], federation.params  # n - t = 2
    with pytest.raises(RoundAbortedError):
        federation.play({EVIL: garbage_boxes(*victims)})
    assert {c.receipt.site for c in federation.server.proofs.complaints} == set(victims)
    going_on = [site for site in EIGHT if site not in victims]
    honest = [site for site in going_on if site != EVIL]
    listed = tuple(going_on)
    for site in going_on:
        federation.answer(site, messages.AcceptedList(listed))
    dealings = {s: Dealing(params, federation.listed, federation.answered["share", s]) for s in EIGHT}
    lists = messages.SurvivorList(listed, listed, dealt_digest([dealings[s].statement for s in listed]))
    signed = tuple(federation.answer(site, lists) for site in going_on)
    for site in going_on:
        federation.answer(site, messages.ConfirmationList(lists, signed))
        with pytest.raises(FedcartError):  # nor may a second list follow
            federation.answer(site, replace(lists, survivors=listed[1:]))
    opened = {*victims, EVIL}  # hold both kinds of share of everybody, and their channels are open
    by_complaint, by_reveal = len(opened), len(opened | set(honest))
    assert by_reveal >= params.threshold  # the seeds, as in every sum
    assert by_complaint < params.threshold  # the mask keys
    assert len(honest) >= params.threshold - 1  # so many honest vectors hide each other


def test_no_number_of_complaints_opens_both_secrets_while_less_than_2t_minus_n_sites_are_dishonest() -> None:
    for n in range(4, 101):
        t = messages.default_threshold(n)
        complaining = n - t  # with more, nobody signs a list any more
        assert all(dishonest + complaining < t for dishonest in range(2 * t - n))


# --- the record


def recorded(round_number: int, faults: tuple[Fault, ...], proofs: ProofFile | None) -> tuple[RoundRecord, dict]:
    text = proofs.to_json() if proofs else ""
    digest = hashlib.sha256(text.encode()).hexdigest() if proofs else ""
    named = tuple(FaultRecord(f.culprit, f.victim, f.kind, 0) for f in faults)
    return RoundRecord(round_number, faults=named, proofs=digest), {
        round_number: (proofs, digest)
    } if proofs else {}


def test_a_record_names_just_the_faults_that_its_proofs_prove() -> None:
    federation = complained()
    plan, roster = SimpleNamespace(run="run"), federation.roster
    faults, file = federation.server.faults, ProofFile((federation.server.proofs,))
    record, proofs = recorded(1, faults, file)
    assert list(proof_problems(plan, roster, [record], proofs)) == []
    assert RoundRecord.from_json(record.to_json()) == record
    invented = (*faults, Fault("site-1", RIVAL, "bad-box"))
    turned = (Fault(RIVAL, EVIL, "false-complaint"),)
    for wrong, shown in (
        (recorded(1, invented, file)[0], proofs),  # a fault that nothing proves
        (recorded(1, turned, file)[0], proofs),
        (recorded(1, (), file)[0], proofs),
        (recorded(1, faults, None)[0], {}),
        (record, {}),
        (record, {1: (file, "0" * 64)}),
        *[(recorded(2, faults, file))],  # proofs of another round count once, where they belong
        (recorded(2, (), None)[0], proofs),
    ):
        assert list(proof_problems(plan, roster, [wrong], shown)) != []
    assert list(proof_problems(SimpleNamespace(run="other"), roster, [record], proofs)) != []


def test_two_rounds_with_a_proven_fault_end_the_invitations_and_one_with_many_does_not() -> None:
    many = recorded(1, tuple(Fault(EVIL, site, "bad-box") for site in OTHERS), None)[0]
    again, other = recorded(2, (Fault(EVIL, "", "bad-dealing"),), None)[0], recorded(3, (), None)[0]
    assert excluded([many, other]) == {}
    assert excluded([many, again, other]) == {EVIL: "two proven faults"}
