"""A ledger that was rolled back, lost, torn, damaged or could not be written, and how a guard is recovered."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from client.guard.ledger import Ledger
from client.guard.recovery import recover_guard
from common.audit.verify import verify_path
from common.errors import (
    BadInputError,
    RollbackError,
    VerificationError,
    WorkFailedError,
)
from common.privacy.entries import Commit
from common.trust.identity import Identity
from tests.guard_samples import (
    IDENTITY,
    ROSTER,
    epsilon_of_releases,
    guard_in,
    one_round,
    policy,
    proposal,
)


def test_a_rolled_back_ledger_refuses_the_round(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    one_round(guard, 1)
    older = path.read_bytes()
    echo = guard.reserve(proposal(2)).attestation
    path.write_bytes(older)
    with pytest.raises(RollbackError, match="which this site has signed"):
        guard_in(tmp_path).reserve(proposal(3), echo)
    assert path.read_bytes() == older


def test_a_ledger_that_went_another_way_from_an_old_copy_refuses_the_round(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    older = path.read_bytes()
    echo = guard.reserve(proposal(1)).attestation
    path.write_bytes(older)
    path.with_suffix(".head.json").unlink()  # the site itself can no longer know
    one_round(guard_in(tmp_path), 9)
    with pytest.raises(RollbackError):
        guard_in(tmp_path).reserve(proposal(3), echo)


@pytest.mark.parametrize("emptied", [True, False])
def test_a_ledger_that_is_gone_refuses_the_round(tmp_path: Path, emptied: bool) -> None:
    echo = guard_in(tmp_path).reserve(proposal(1)).attestation
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"") if emptied else path.unlink()
    with pytest.raises(RollbackError):
        guard_in(tmp_path).reserve(proposal(2), echo)


def test_an_echo_that_this_site_did_not_sign_is_refused(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    echo = guard.reserve(proposal(1)).attestation
    changed = dataclasses.replace(echo, attestation=dataclasses.replace(echo.attestation, sequence=0))
    with pytest.raises(VerificationError, match="signature"):
        guard.reserve(proposal(2), changed)


def test_recovery_charges_everything_the_server_has_seen(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    for number in (1, 2):
        one_round(guard, number)
    known = guard.reserve(proposal(3)).attestation
    (tmp_path / "ledger.jsonl").write_bytes(b"damaged\n")
    recovered = recover_guard(tmp_path, IDENTITY, policy(), known)
    assert recovered.status().epsilon == known.attestation.epsilon_after
    assert (tmp_path / "ledger.lost-1.jsonl").read_bytes() == b"damaged\n"
    after = guard_in(tmp_path).reserve(proposal(4), known)
    assert after.attestation.attestation.sequence > known.attestation.sequence
    assert after.attestation.attestation.epsilon_after == pytest.approx(epsilon_of_releases(4), abs=2e-6)
    assert verify_path(tmp_path / "ledger.jsonl", roster=ROSTER).ok


def test_recovery_from_an_old_attestation_does_not_satisfy_a_server_that_knows_more(tmp_path: Path) -> None:
    guard = guard_in(tmp_path)
    old, new = (guard.reserve(proposal(n)).attestation for n in (1, 2))
    newest = guard.reserve(proposal(3)).attestation
    guard.ledger.path.unlink()
    guard.ledger.anchor_path.unlink()  # else it would charge what the old attestation does not show
    recovered = recover_guard(tmp_path, IDENTITY, policy(), old)
    assert new.attestation.sequence == old.attestation.sequence + 1
    for echo in (new, newest):
        with pytest.raises(RollbackError):
            recovered.reserve(proposal(4), echo)


def test_a_recovered_ledger_without_its_charge_is_not_a_ledger(tmp_path: Path) -> None:
    known = guard_in(tmp_path).reserve(proposal(1)).attestation
    guard = recover_guard(tmp_path, IDENTITY, policy(), known)
    path = guard.ledger.path
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    guard.ledger.anchor_path.unlink()
    ledger = Ledger(path, IDENTITY)
    ledger.open(scope="consumers", delta=1e-5, simulated=False)
    with ledger.transaction(), pytest.raises(VerificationError, match="begin with a charge"):
        ledger.append(Commit(reserve=0, outbox="0" * 64))


@pytest.mark.parametrize(
    ("what", "change"),
    [("delta", {"rules": policy(delta=1e-6)}), ("simulated", {"simulated": True})],
)
def test_constants_of_a_ledger_are_fixed_when_it_is_made(tmp_path: Path, what: str, change: dict) -> None:
    guard_in(tmp_path)
    with pytest.raises(BadInputError, match=what):
        guard_in(tmp_path, **change)


def test_another_site_cannot_use_the_ledger(tmp_path: Path) -> None:
    guard_in(tmp_path)
    ledger = Ledger(tmp_path / "ledger.jsonl", Identity.generate("thief"))
    with pytest.raises((BadInputError, VerificationError)):
        ledger.open(scope="consumers", delta=1e-5, simulated=False)


def test_a_torn_last_line_was_never_written(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    guard.reserve(proposal())
    whole = path.read_bytes()
    for cut in (1, 40, 400):
        path.write_bytes(whole + whole.splitlines()[-1][:cut])
        assert guard_in(tmp_path).status().open == 1
        assert path.read_bytes() == whole


def test_a_last_line_that_lacks_only_its_end_still_counts(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    guard.reserve(proposal())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert guard_in(tmp_path).status().open == 1
    assert path.read_bytes() == whole


def test_an_entry_that_breaks_a_rule_never_reaches_the_file(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    before = path.read_bytes()
    with guard.ledger.transaction(), pytest.raises(VerificationError, match="not an open reservation"):
        guard.ledger.append(Commit(reserve=0, outbox="0" * 64))
    assert path.read_bytes() == before


def test_a_damaged_line_refuses_the_ledger_and_names_it(tmp_path: Path) -> None:
    guard, path = guard_in(tmp_path), tmp_path / "ledger.jsonl"
    guard.reserve(proposal())
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b'"steps":1', b'"steps":0'))
    with pytest.raises(VerificationError, match="line 2") as error:
        guard_in(tmp_path)
    assert "recover" in error.value.hint


def test_a_full_disk_means_not_reserved_and_nothing_half_believed(tmp_path: Path, monkeypatch) -> None:
    guard = guard_in(tmp_path)
    one_round(guard, 1)

    def full(fd: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(28, "no space left on device")
        return real(fd, data[: len(data) // 2])

    real, before = os.write, (tmp_path / "ledger.jsonl").read_bytes()
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(WorkFailedError, match="no space left"):
        guard.reserve(proposal(2))
    monkeypatch.undo()
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    assert guard.status().entries == 3 and guard.status().open == 0
    one_round(guard, 2)
    assert verify_path(tmp_path / "ledger.jsonl", roster=ROSTER).ok


def test_a_failed_sync_means_not_committed_but_charged(tmp_path: Path, monkeypatch) -> None:
    guard = guard_in(tmp_path)
    grant = guard.reserve(proposal())
    guard.store(grant, b"numbers", grant.attestation.attestation.events)

    def broken(fd: int) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(WorkFailedError, match="input/output"):
        guard.commit(grant)
    monkeypatch.undo()
    assert guard.status().epsilon >= epsilon_of_releases(1)
