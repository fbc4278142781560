"""A stored contribution is digested once by the process that stored it, and again when anybody has written to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import client.guard.outbox as outbox
from client.guard.outbox import Outbox, outbox_digest
from common.errors import VerificationError

CONTENT = b"ring" * 1_000


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("content", [CONTENT, memoryview(CONTENT)], ids=["bytes", "view"])
def test_what_was_stored_comes_back_with_its_digest(
    tmp_path: Path, durable: bool, content: bytes | memoryview
) -> None:
    stored = Outbox(tmp_path / "outbox", durable)
    stored.put(7, content)
    assert stored.get_with_digest(7) == (CONTENT, outbox_digest(CONTENT))
    assert stored.digest_of(7) == outbox_digest(CONTENT)
    stored.remove([7])
    assert stored.get(7) is None
    assert not [path for path in outbox._own if path.is_relative_to(tmp_path)]


@pytest.mark.parametrize("durable", [True, False])
def test_damage_is_found(tmp_path: Path, durable: bool) -> None:
    stored, path = Outbox(tmp_path, durable), tmp_path / "7.contribution"
    stored.put(7, CONTENT)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(bytes(damaged))
    os.utime(path, ns=(1, 1))
    with pytest.raises(VerificationError, match="damaged"):
        stored.get(7)
    stored.clear()


def test_a_simulated_site_digests_what_it_stored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def counting(contribution: bytes | memoryview) -> bytes:
        counted.append(len(contribution))
        return outbox_digest(contribution)

    monkeypatch.setattr(outbox, "outbox_digest", counting)
    for durable, times in ((False, 1), (True, 2)):
        stored = Outbox(tmp_path / str(durable), durable)
        stored.put(1, CONTENT)
        stored.get(1)
        assert len(counted) == times
        counted.clear()
        stored.clear()
