"""A site with a guard, proposals, and a driver of rounds without training, for the tests of the ledger."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from client.guard import Guard, Proposal, SitePolicy, open_guard
from common.privacy.accountant import ScopeAccountant
from common.privacy.mechanism import PrivacyEvent
from common.trust.identity import Identity, Roster

RELEASE = PrivacyEvent(noise_multiplier=5.0, sampling_rate=1.0, steps=1)
IDENTITY = Identity.from_seed("shop", b"s" * 32)
COORDINATOR = Identity.from_seed("coordinator", b"c" * 32)
ROSTER = Roster.signed_by(COORDINATOR, [("shop", IDENTITY.public_key)])


def proposal(number: int = 1, **changes: Any) -> Proposal:
    plain = Proposal(
        run="run",
        round=number,
        attempt=0,
        kind="train",
        task="next-behaviour",
        query=f"{number:064x}",
        config="cd" * 32,
        events=(RELEASE,),
        delta=1e-5,
        clip=1.0,
        cohort=8,
        threshold=6,
        population=5_000,
        min_stockists=3,
        secure=True,
    )
    return dataclasses.replace(plain, **changes)


def policy(**changes: Any) -> SitePolicy:
    return SitePolicy(**({"epsilon_max": 50.0, "sampling_rate_max": 1.0, "failures_max": 100} | changes))


def epsilon_of_releases(count: int) -> float:
    """What so many of the samples' releases cost, at delta 1e-5."""
    return ScopeAccountant([RELEASE] * count).epsilon(1e-5)


def spent(folder: Path) -> float:
    """What the ledger of a folder says was spent."""
    return guard_in(folder).status().epsilon


def guard_in(folder: Path, rules: SitePolicy | None = None, *, simulated: bool = False) -> Guard:
    return open_guard(folder, IDENTITY, rules or policy(), "consumers", simulated=simulated, code="test")


def one_round(guard: Guard, number: int, *, leave: bool = True) -> bytes:
    """Reserve, store, commit (the bytes leave) and close. Shapes: result: the contribution."""
    grant = guard.reserve(proposal(number))
    contribution = b"contribution %d" % grant.sequence
    if not grant.reused:
        guard.store(grant, contribution, grant.attestation.attestation.events)
    if leave:
        contribution = guard.commit(grant)
    guard.close_round("run", number)
    return contribution


def drive(folder: Path, first: int, rounds: int) -> None:
    """What a site process does: restart, then rounds; every departure makes one file in ``left``."""
    guard = guard_in(folder)
    guard.restart()
    (folder / "left").mkdir(exist_ok=True)
    for number in range(first, first + rounds):
        grant = guard.reserve(proposal(number))
        guard.store(grant, b"contribution %d" % grant.sequence, grant.attestation.attestation.events)
        guard.commit(grant)
        os.close(os.open(folder / "left" / str(grant.sequence), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        guard.close_round("run", number)


def sign_model_again(path: Path, document: dict[str, Any]) -> None:
    """Write a changed ``model.json`` as a coordinator who signs it would: what is checked behind the signature."""
    from common.model_files import statement_of

    document["coordinator"] = COORDINATOR.public_key.hex()
    path.write_text(json.dumps(document | {"signature": COORDINATOR.sign(statement_of(document)).hex()}))
