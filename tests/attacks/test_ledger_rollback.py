"""An older copy of a ledger, or none, between two runs: the site notices by itself, and recovery forgets nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.guard import FileJournal, Guard
from client.guard.recovery import recover_guard
from common.audit.verify import verify_path
from common.errors import BadInputError, RollbackError, VerificationError
from common.privacy.accountant import ScopeAccountant
from common.privacy.attestation import Head, SignedAttestation, SignedHead
from common.secagg.journal import MASK, STEPS
from common.secagg.messages import Session
from common.trust.identity import Identity
from tests.guard_samples import IDENTITY, RELEASE, ROSTER, guard_in, one_round, policy, proposal


def epsilon_of_releases(count: int) -> float:
    return ScopeAccountant([RELEASE] * count).epsilon(1e-5)


def two_rounds(folder: Path) -> tuple[Guard, SignedAttestation]:
    """A ledger with two committed rounds, and what the server knows: the attestation of the first."""
    guard = guard_in(folder)
    first = guard.reserve(proposal(1))
    guard.store(first, b"numbers", first.attestation.attestation.events)
    guard.commit(first)
    one_round(guard, 2)
    return guard, first.attestation


def cut(path: Path, kept: int) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_a_ledger_that_lost_its_end_does_not_open(tmp_path: Path, kept: int) -> None:
    guard, _ = two_rounds(tmp_path)
    cut(guard.ledger.path, kept)
    before = guard.ledger.path.read_bytes()
    with pytest.raises(RollbackError, match="which this site has signed") as refusal:
        guard_in(tmp_path)
    assert "fedcart site recover" in refusal.value.hint
    assert guard.ledger.path.read_bytes() == before


def test_a_process_that_runs_on_notices_that_its_ledger_was_replaced(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    older = guard.ledger.path.read_bytes()
    one_round(guard, 1)
    guard.ledger.path.write_bytes(older)
    with pytest.raises(RollbackError):
        guard.reserve(proposal(2))


def test_a_reservation_is_anchored_at_once(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    guard.reserve(proposal())
    cut(guard.ledger.path, 1)
    with pytest.raises(RollbackError):
        guard_in(tmp_path)


@pytest.mark.parametrize("emptied", [True, False])
def test_a_ledger_that_was_deleted_is_not_begun_anew(tmp_path: Path, emptied: bool) -> None:
    guard, _ = two_rounds(tmp_path)
    guard.ledger.path.write_bytes(b"") if emptied else guard.ledger.path.unlink()
    for _ in range(2):
        with pytest.raises(RollbackError, match=r"ledger\.head\.json shows that there was a ledger"):
            guard_in(tmp_path)


def test_a_recovery_that_was_cut_short_is_not_a_new_beginning(tmp_path: Path) -> None:
    guard, known = two_rounds(tmp_path)
    guard.ledger.path.rename(tmp_path / "ledger.lost-1.jsonl")
    guard.ledger.anchor_path.unlink()
    with pytest.raises(RollbackError, match=r"ledger\.lost-1\.jsonl"):
        guard_in(tmp_path)
    assert recover_guard(tmp_path, IDENTITY, policy(), known).status().epsilon >= epsilon_of_releases(2)


def test_a_journal_of_what_has_left_shows_that_there_was_a_ledger(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal.jsonl")
    for number, step in enumerate(STEPS[: STEPS.index(MASK) + 1]):
        (tmp_path / "ledger.jsonl").unlink(missing_ok=True)
        (tmp_path / "ledger.head.json").unlink(missing_ok=True)
        guard_in(tmp_path)  # nothing has left so far
        journal.record(Session("run", 1, 0), step, bytes([number]) * 32)
    (tmp_path / "ledger.jsonl").unlink()
    (tmp_path / "ledger.head.json").unlink()
    with pytest.raises(RollbackError, match=r"journal\.jsonl"):
        guard_in(tmp_path)
    (tmp_path / "journal.jsonl").write_bytes(b"damaged\n")
    with pytest.raises(RollbackError, match=r"journal\.jsonl"):
        guard_in(tmp_path)


def test_an_anchor_of_somebody_else_does_not_serve(tmp_path: Path) -> None:
    guard, _ = two_rounds(tmp_path)
    anchor = guard.ledger.anchor_path
    head = Head("shop", "consumers", 0, guard.ledger.state.hashes[0], False)
    forged = SignedHead.sign(head, Identity.generate("shop"))
    other = SignedHead.sign(Head("shop", "elsewhere", 0, "0" * 64, False), IDENTITY)
    for text, said in ((json.dumps(forged.to_json()), "signature"), ("{}", "not a signed head")):
        anchor.write_text(text)
        with pytest.raises(VerificationError, match=said):
            guard_in(tmp_path)
    anchor.write_text(json.dumps(other.to_json()))
    with pytest.raises(VerificationError, match="another ledger"):
        guard_in(tmp_path)


@pytest.mark.parametrize("lost", ["nothing", "ledger", "anchor", "end of the ledger"])
def test_recovery_from_an_older_attestation_still_charges_what_the_site_can_read(
    tmp_path: Path, lost: str
) -> None:
    guard, older = two_rounds(tmp_path)
    echo = guard.reserve(proposal(3)).attestation
    if lost == "ledger":
        guard.ledger.path.unlink()
    if lost == "anchor":
        guard.ledger.anchor_path.unlink()
    if lost == "end of the ledger":
        cut(guard.ledger.path, 3)
    recovered = recover_guard(tmp_path, IDENTITY, policy(), older)
    assert recovered.status().epsilon >= epsilon_of_releases(3)
    assert recovered.reserve(proposal(4), echo).attestation.attestation.epsilon_after >= epsilon_of_releases(4)
    assert verify_path(tmp_path / "ledger.jsonl", roster=ROSTER).ok
    assert guard_in(tmp_path).status().open == 1


def test_recovery_charges_the_largest_of_all_sources_not_the_latest(tmp_path: Path) -> None:
    guard, _ = two_rounds(tmp_path)
    known = guard.reserve(proposal(3)).attestation
    guard.close_round("run", 3)  # given back, as the later ledger and anchor say; the attestation still counts it
    assert guard.status().epsilon == pytest.approx(epsilon_of_releases(2), abs=2e-6)
    status = recover_guard(tmp_path, IDENTITY, policy(), known).status()
    assert status.epsilon == pytest.approx(epsilon_of_releases(3), abs=2e-6)


def test_recovery_believes_nothing_after_the_first_damaged_line(tmp_path: Path) -> None:
    guard, known = two_rounds(tmp_path)
    lines = guard.ledger.path.read_bytes().splitlines(keepends=True)
    guard.ledger.path.write_bytes(b"".join([*lines[:3], b"damaged\n", *lines[3:]]))
    guard.ledger.anchor_path.unlink()
    status = recover_guard(tmp_path, IDENTITY, policy(), known).status()
    assert status.epsilon == pytest.approx(epsilon_of_releases(1), abs=2e-6)


def test_an_attestation_of_another_site_recovers_nothing(tmp_path: Path) -> None:
    two_rounds(tmp_path)
    thief = Identity.from_seed("thief", b"s" * 32)  # the same key under another name
    foreign = guard_in(tmp_path / "other").reserve(proposal()).attestation
    with pytest.raises(BadInputError, match="is of shop"):
        recover_guard(tmp_path / "third", thief, policy(), foreign)
