"""Whatever is changed in a ledger or beside it, verification names it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from common.audit.verdict import VerifyReport
from common.audit.verify import verify_path
from common.errors import BadInputError, VerificationError
from common.privacy.attestation import AttestedHeads, SignedAttestation, SignedHead, check_attestation
from common.privacy.entries import make_line, parse_line
from common.privacy.mechanism import PrivacyEvent
from common.run.files import RunFolder
from common.run.manifest import seal_run
from common.run.records import Summary
from common.trust.identity import SITE, Identity, Party, Roster
from tests.guard_samples import COORDINATOR, IDENTITY, ROSTER, guard_in, one_round, proposal
from tests.signed_runs import signed_run


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    guard = guard_in(tmp_path)
    one_round(guard, 1)
    one_round(guard, 2)
    assert verify_path(guard.ledger.path, roster=ROSTER).ok
    return guard.ledger.path


def verdict_on(path: Path) -> VerifyReport:
    return verify_path(path, roster=ROSTER)


def must_name(path: Path, *words: str) -> None:
    verdict = verdict_on(path)
    assert not verdict.ok
    assert verdict.findings[0].where.startswith(path.name)
    for word in words:
        assert word in str(verdict.findings[0])
    with pytest.raises(VerificationError, match=path.name):
        verdict.raise_if_broken()


def flip(path: Path, offsets: range) -> None:
    whole = path.read_bytes()
    for offset in offsets:
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << (offset % 8)
        path.write_bytes(damaged)
        line = whole[:offset].count(b"\n") + 1
        verdict = verdict_on(path)
        assert not verdict.ok, f"byte {offset} of line {line} was changed unseen"
        ends = whole[offset : offset + 1] == b"\n"
        assert ends or f"line {line}" in verdict.findings[0].where or line == 1
    path.write_bytes(whole)


def test_flipped_bytes_are_found_and_their_line_is_named(ledger: Path) -> None:
    flip(ledger, range(0, ledger.stat().st_size, 37))


def test_the_end_of_each_line_is_protected_too(ledger: Path) -> None:
    ends = [i for i, byte in enumerate(ledger.read_bytes()) if byte == 10]
    for end in ends:
        flip(ledger, range(end, end + 1))


@pytest.mark.full
def test_every_flipped_byte_is_found(ledger: Path) -> None:
    flip(ledger, range(ledger.stat().st_size))


def test_every_removed_line_is_found(ledger: Path) -> None:
    lines = ledger.read_bytes().splitlines(keepends=True)
    for gone in range(len(lines)):
        ledger.write_bytes(b"".join(line for i, line in enumerate(lines) if i != gone))
        must_name(ledger)


def test_two_swapped_lines_are_found(ledger: Path) -> None:
    lines = ledger.read_bytes().splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    ledger.write_bytes(b"".join(lines))
    must_name(ledger, "line 2", "missing")


def test_a_repeated_line_is_found(ledger: Path) -> None:
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join([*lines, lines[-1]]))
    must_name(ledger, f"line {len(lines) + 1}")


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_a_cut_tail_is_found(ledger: Path, kept: int) -> None:
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:kept]))
    must_name(ledger, "tail is cut", f"line {kept}")


def test_the_last_commit_is_anchored_before_its_round_is_closed(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal())
    guard.store(grant, b"numbers", grant.attestation.attestation.events)
    guard.commit(grant)
    ledger = guard.ledger.path
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))
    must_name(ledger, "tail is cut")


def test_an_emptied_ledger_is_found(ledger: Path) -> None:
    ledger.write_bytes(b"")
    must_name(ledger, "no complete entry")


def test_a_missing_or_foreign_head_is_found(ledger: Path) -> None:
    anchor = ledger.with_suffix(".head.json")
    signed = SignedHead.from_json(json.loads(anchor.read_text()))
    thief = Identity.generate("shop")
    anchor.write_text(json.dumps(SignedHead.sign(signed.head, thief).to_json()))
    must_name(ledger, "signature")
    anchor.write_text("{}")
    must_name(ledger, "not a signed head")
    anchor.unlink()
    must_name(ledger, "is missing")


def test_an_entry_with_a_foreign_signature_is_found(ledger: Path) -> None:
    lines = ledger.read_bytes().splitlines(keepends=True)
    last = parse_line(lines[-1][:-1])
    lines[-1] = make_line(
        last.body, sequence=last.sequence, previous=last.previous, time=last.time, identity=Identity.generate("x")
    )
    ledger.write_bytes(b"".join(lines))
    must_name(ledger, f"line {len(lines)}", "signature")


def test_a_whole_ledger_signed_by_another_key_is_found(tmp_path: Path, ledger: Path) -> None:
    other = Roster((Party("shop", SITE, Identity.generate("shop").public_key),))
    verdict = verify_path(ledger, roster=other)
    assert "another key" in str(verdict.findings[0])


def test_an_entry_that_another_order_of_keys_would_write_is_found(ledger: Path) -> None:
    lines = ledger.read_bytes().splitlines()
    plain = json.loads(lines[1])
    lines[1] = json.dumps(dict(reversed(plain.items())), separators=(",", ":")).encode()
    ledger.write_bytes(b"\n".join(lines) + b"\n")
    must_name(ledger, "line 2", "canonical")


def test_a_lone_ledger_is_verified_but_says_what_it_cannot_know(ledger: Path) -> None:
    ledger.with_suffix(".head.json").unlink()
    verdict = verify_path(ledger)
    assert verdict.ok and not verdict.ledgers[0].pinned
    assert any("cut tail" in note.what for note in verdict.notes)


# -- a run folder ------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path / "run")
    signed = signed_run(folder, {"shop": IDENTITY}, ["training.rounds=3"], (5.0, 8.0))
    from client.guard import open_guard
    from tests.guard_samples import policy

    ledger = folder.path / "ledgers" / "shop.jsonl"
    guard = open_guard(
        tmp_path / "state", IDENTITY, policy(plain_aggregation=True), "c", ledger_path=ledger, simulated=True
    )
    for number in (1, 2, 3):
        grant = guard.reserve(signed.proposal(number))
        guard.store(grant, b"numbers", grant.attestation.attestation.events)
        guard.commit(grant)
        guard.close_round("run", number)
        signed.append(number, {"shop": grant.attestation})
    last = folder.metrics()[-1]
    summary = Summary(
        "completed", rounds=3, sums=3, private=True, aggregation=last.aggregation, epsilon=last.epsilon
    )
    folder.write_summary(summary)
    seal_run(folder, summary, COORDINATOR)
    verdict = verify_path(folder.path, every_round=True)
    assert verdict.ok, verdict.findings
    return folder


def rewrite_metrics(run: RunFolder, line: int, change) -> None:
    path = run.path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    plain = json.loads(lines[line - 1])
    change(plain)
    lines[line - 1] = json.dumps(plain)
    path.write_text("\n".join(lines) + "\n")


def problems(run: RunFolder, **options: bool) -> str:
    return " | ".join(str(p) for p in verify_path(run.path, **options).findings)


def test_an_intact_run_is_verified_in_full(run: RunFolder) -> None:
    verdict = verify_path(run.path, every_round=True)
    assert (verdict.ok, verdict.attestations, verdict.ledgers[0].entries) == (True, 3, 7)
    assert verdict.ledgers[0].pinned and verdict.ledgers[0].reading.epsilon > 0.7


def test_a_ledger_cut_together_with_its_head_disagrees_with_the_attestations(run: RunFolder) -> None:
    path = run.path / "ledgers" / "shop.jsonl"
    anchor = path.with_suffix(".head.json")
    shorter = path.read_bytes().splitlines(keepends=True)[:3]
    path.write_bytes(b"".join(shorter))
    head = SignedHead.from_json(json.loads(anchor.read_text())).head
    old = dataclasses.replace(head, sequence=2, head=parse_line(shorter[-1][:-1]).hash)
    anchor.write_text(json.dumps(SignedHead.sign(old, IDENTITY).to_json()))  # an old, truly signed head
    assert "tail is cut" in problems(run)


def test_a_removed_ledger_is_found(run: RunFolder) -> None:
    (run.path / "ledgers" / "shop.jsonl").unlink()
    assert "ledgers/shop.jsonl: is missing" in problems(run)


def test_a_smaller_shown_epsilon_is_found(run: RunFolder) -> None:
    rewrite_metrics(run, 2, lambda plain: plain["epsilon"].update(shop=0.1))
    assert "metrics.jsonl, line 2: shows epsilon 0.1" in problems(run)


@pytest.mark.parametrize("field", ["epsilon_after", "round", "sequence", "limit"])
def test_a_changed_attestation_is_found(run: RunFolder, field: str) -> None:
    rewrite_metrics(run, 2, lambda plain: plain["attestations"]["shop"]["attestation"].update({field: 9}))
    assert "metrics.jsonl, line 2" in problems(run)


def test_an_attestation_that_is_none_is_found(run: RunFolder) -> None:
    rewrite_metrics(run, 1, lambda plain: plain["attestations"].update(shop={"nothing": 1}))
    assert "metrics.jsonl, line 1" in problems(run)


def test_a_damaged_record_and_a_damaged_roster_are_found(run: RunFolder) -> None:
    (run.path / "roster.json").write_text("{}")
    assert "roster.json" in problems(run)
    ROSTER.save(run.path / "roster.json")
    (run.path / "metrics.jsonl").write_text("{}\n")
    assert "metrics.jsonl" in problems(run)


def test_a_run_said_to_be_private_must_have_ledgers(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    (folder.path / "run.toml").write_text("")
    assert verify_path(folder.path).ok
    folder.write_summary(Summary("completed", private=True))
    assert "said to be private" in problems(folder)


def test_a_secure_round_without_evidence_is_found(run: RunFolder) -> None:
    rewrite_metrics(run, 3, lambda plain: plain.update(aggregation="secure"))
    assert "metrics.jsonl, line 3: round 3 gave a secure sum, but there is no evidence" in problems(run)


def test_damaged_evidence_is_found(run: RunFolder) -> None:
    (run.path / "evidence" / "round-00001.json").write_text("{}")
    assert "evidence/round-00001.json" in problems(run)


def test_a_state_folder_is_verified_by_its_ledger_alone(ledger: Path) -> None:
    (ledger.parent / "journal.jsonl").write_text("{}\n")
    verdict = verify_path(ledger.parent, roster=ROSTER)
    assert verdict.ok and len(verdict.ledgers) == 1


def test_nothing_to_verify_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no ledger"):
        verify_path(tmp_path)


# -- what a server accepts ---------------------------------------------------------------------------


def attested(tmp_path: Path, number: int = 1) -> SignedAttestation:
    return guard_in(tmp_path).reserve(proposal(number)).attestation


def forged(signed: SignedAttestation, **changes: object) -> SignedAttestation:
    """Signed by the site's own key, but untrue: a site that lies or is broken."""
    return SignedAttestation.sign(dataclasses.replace(signed.attestation, **changes), IDENTITY)


def test_a_server_recomputes_the_epsilon_it_is_told(tmp_path: Path) -> None:
    signed = attested(tmp_path)
    check_attestation(signed, IDENTITY.public_key)
    for untrue in (
        forged(signed, epsilon_after=signed.attestation.epsilon_after - 0.01),
        forged(signed, epsilon_before=99.0),
        forged(signed, totals=(PrivacyEvent(6.0, 1.0, 1),)),
        forged(signed, totals=()),
        forged(signed, events=signed.attestation.events * 2),
        forged(signed, totals=signed.attestation.totals * 2),
    ):
        with pytest.raises(VerificationError, match="attestation of shop"):
            check_attestation(untrue, IDENTITY.public_key)


def test_a_server_keeps_the_highest_signed_head_and_survives_a_restart(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    first, second = (guard.reserve(proposal(n)).attestation for n in (1, 2))
    heads = AttestedHeads()
    for signed in (first, second, second):
        heads.accept(signed, IDENTITY.public_key)
    again = AttestedHeads.from_json(json.loads(json.dumps(heads.to_json())))
    with pytest.raises(VerificationError, match="had signed entry"):
        again.accept(first, IDENTITY.public_key)
    assert again.latest("shop") == second
    assert again.epsilon()["shop"] >= second.attestation.epsilon_after


def test_a_reservation_counts_for_the_server_until_a_later_attestation_shows_it_void(tmp_path: Path) -> None:
    guard, heads = guard_in(tmp_path), AttestedHeads()
    heads.accept(guard.reserve(proposal(1)).attestation, IDENTITY.public_key)
    one = heads.epsilon()["shop"]
    guard.close_round("run", 1)
    assert heads.epsilon()["shop"] == one
    heads.accept(guard.reserve(proposal(2)).attestation, IDENTITY.public_key)
    assert heads.epsilon()["shop"] == one


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(extra=1),
        lambda p: p.update(signature="zz"),
        lambda p: p["attestation"].pop("round"),
        lambda p: p["attestation"].update(round="1"),
        lambda p: p["attestation"]["events"][0].update(noise_multiplier=-1),
        lambda p: p["attestation"]["totals"].append({}),
    ],
)
def test_a_malformed_attestation_is_an_error_of_ours(tmp_path: Path, change) -> None:
    plain = json.loads(json.dumps(attested(tmp_path).to_json()))
    change(plain)
    with pytest.raises((BadInputError, VerificationError)):
        check_attestation(SignedAttestation.from_json(plain), IDENTITY.public_key)
