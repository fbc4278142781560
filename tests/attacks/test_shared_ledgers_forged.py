"""A ledger that several kits write to has a key of its own: whose it is says only who was admitted to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.audit.verify import verify_path
from common.privacy.attestation import Head, SignedHead, anchor_of
from common.privacy.entries import FIRST_PREVIOUS, Admit, Open, admission_statement, make_line, parse_line
from common.trust.identity import Identity, Roster

COORDINATOR = Identity.from_seed("coordinator", b"c" * 32)
SHOP, RIVAL = Identity.from_seed("shop", b"s" * 32), Identity.from_seed("rival", b"r" * 32)
ROSTER = Roster.signed_by(COORDINATOR, [("shop", SHOP.public_key), ("rival", RIVAL.public_key)])
TIME = "2026-01-01T00:00:00Z"


def shared_ledger(path: Path, name: str, admitted: Identity) -> Path:
    """A ledger under a key that anybody may have made, with one party admitted to it."""
    key = Identity.generate("made-up")
    header = Open(site=name, scope=name, delta=1e-5, public_key=key.public_key.hex(), simulated=False, shared=True)
    first = make_line(header, sequence=0, previous=FIRST_PREVIOUS, time=TIME, identity=key)
    statement = admission_statement(key.public_key.hex(), name, admitted.name)
    admit = Admit(
        site=admitted.name, public_key=admitted.public_key.hex(), signature=admitted.sign(statement).hex()
    )
    previous = parse_line(first.rstrip(b"\n")).hash
    second = make_line(admit, sequence=1, previous=previous, time=TIME, identity=key)
    path.write_bytes(first + second)
    head = Head(name, name, 1, parse_line(second.rstrip(b"\n")).hash, simulated=False)
    anchor_of(path).write_text(json.dumps(SignedHead.sign(head, key).to_json()))
    return path


@pytest.mark.parametrize(
    ("name", "admitted", "words"),
    [
        ("shop", COORDINATOR, "no site of this roster was ever admitted"),
        ("shop", Identity.from_seed("stranger", b"x" * 32), "no site of this roster was ever admitted"),
        ("shop", RIVAL, "bears the name of shop, which was never admitted to it"),
        ("shoppers", SHOP, ""),
    ],
)
def test_nobody_makes_a_ledger_in_the_name_of_a_site_that_was_never_admitted(
    tmp_path: Path, name: str, admitted: Identity, words: str
) -> None:
    found = verify_path(shared_ledger(tmp_path / f"{name}.jsonl", name, admitted), roster=ROSTER).findings
    assert words in " | ".join(map(str, found)) and bool(found) == bool(words)
