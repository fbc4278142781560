from __future__ import annotations

import json
from dataclasses import replace

import pytest

from common.errors import FedcartError, VerificationError
from common.secagg.evidence import Evidence, digest_sum, verify_evidence
from common.trust.identity import Identity, Roster
from tests.secagg_rounds import Federation, build


@pytest.fixture(scope="module")
def done() -> Federation:
    federation = build(5)
    federation.run_until("done", {(p, "site-4") for p in ("mask", "confirm", "unmask")})
    return federation


def evidence_of(done: Federation) -> Evidence:
    return done.server.result.evidence


def test_the_evidence_of_an_honest_round_holds_and_survives_its_encodings(done: Federation) -> None:
    evidence = evidence_of(done)
    verify_evidence(evidence, done.roster)
    verify_evidence(evidence, done.roster, done.server.result.ring_sum)
    for copy in (Evidence.from_json(evidence.to_json()), Evidence.from_bytes(evidence.to_bytes())):
        assert copy == evidence
        verify_evidence(copy, done.roster, done.server.result.ring_sum)


def test_every_changed_part_of_the_evidence_is_found(done: Federation) -> None:
    evidence = evidence_of(done)
    params, lists = evidence.params, evidence.survivors
    session = replace(params.session, round=9)
    changed = [
        replace(evidence, params=replace(params, session=session)),
        replace(evidence, params=replace(params, model_digest=b"x" * 32)),
        replace(evidence, params=replace(params, threshold=5)),
        replace(evidence, advertisements=evidence.advertisements[:-1]),
        replace(evidence, advertisements=evidence.advertisements[::-1]),
        replace(
            evidence,
            advertisements=(replace(evidence.advertisements[0], mask_key=b"x" * 32), *evidence.advertisements[1:]),
        ),
        replace(evidence, survivors=replace(lists, survivors=lists.survivors[1:])),
        replace(evidence, survivors=replace(lists, survivors=lists.shared)),
        replace(evidence, survivors=replace(lists, survivors=())),
        replace(evidence, survivors=replace(lists, shared=lists.survivors)),
        replace(evidence, survivors=replace(lists, shared=(*lists.shared, "nobody"))),
        replace(evidence, confirmations=evidence.confirmations[:-1]),
        replace(evidence, confirmations=(evidence.confirmations[0],) * 4),
        replace(
            evidence,
            confirmations=(*evidence.confirmations[:-1], replace(evidence.confirmations[-1], site="site-4")),
        ),
        replace(
            evidence,
            confirmations=(replace(evidence.confirmations[0], signature=bytes(64)), *evidence.confirmations[1:]),
        ),
    ]
    for wrong in changed:
        with pytest.raises(VerificationError):
            verify_evidence(wrong, done.roster)


def test_another_sum_is_found(done: Federation) -> None:
    other = done.server.result.ring_sum.copy()
    other[3] += 1
    assert digest_sum(other) != evidence_of(done).sum_digest
    with pytest.raises(VerificationError, match="sum"):
        verify_evidence(evidence_of(done), done.roster, other)


def test_evidence_of_sites_that_are_not_pinned_is_refused(done: Federation) -> None:
    parties = done.roster.parties
    stranger = replace(parties[2], public_key=Identity.generate("site-2").public_key)
    for roster in (Roster(parties[:-1]), Roster((*parties[:2], stranger, *parties[3:]))):
        with pytest.raises(VerificationError):
            verify_evidence(evidence_of(done), roster)


def test_any_change_of_the_file_is_found(done: Federation) -> None:
    text = evidence_of(done).to_json()
    fields = json.loads(text)
    for wrong in (
        "",
        "{}",
        "[]",
        text[:-3],
        text.replace("  ", " ", 1),
        json.dumps({**fields, "evidence": 1}, indent=1) + "\n",
        json.dumps({**fields, "salt": "00" * 32}, indent=1) + "\n",
        json.dumps({**fields, "more": 1}, indent=1) + "\n",
        json.dumps({**fields, "sum_digest": 3}, indent=1) + "\n",
        json.dumps({**fields, "survivors": None}, indent=1) + "\n",
    ):
        with pytest.raises(FedcartError):
            Evidence.from_json(wrong)
