"""A lost ledger begun anew: it charges whatever is known of the old one."""

from __future__ import annotations

from pathlib import Path

from client.guard.guard import Guard
from client.guard.policy import SitePolicy
from common.atomic import sync_directory
from common.deployment import LEDGER_FILE
from common.errors import BadInputError
from common.privacy import SignedAttestation
from common.trust import Identity


def recover_guard(
    state_dir: Path,
    identity: Identity,
    policy: SitePolicy,
    known: SignedAttestation,
    *,
    former_key: bytes | None = None,
    code: str = "unknown",
) -> Guard:
    """Begin a new ledger that charges what ``known``, the server's highest attestation of this site, shows.

    What the anchor and readable old ledgers show beyond that is charged too. A ledger that is still there is
    moved to ``ledger.lost-N.jsonl``, never removed. ``former_key`` signed all this, if the keys were rotated.
    Raises: VerificationError if this site did not sign ``known``; BadInputError.
    """
    from client.guard.ledger import Ledger
    from client.guard.outbox import Outbox
    from client.guard.remains import gather

    path, said = state_dir / LEDGER_FILE, known.attestation
    known.verify(former_key or identity.public_key)
    if said.site != identity.name:
        raise BadInputError(f"the attestation is of {said.site}, not of {identity.name}")
    lost = gather(path, said, {identity.public_key, former_key or identity.public_key})
    if path.exists() and path.stat().st_size:
        number = sum(1 for _ in state_dir.glob("ledger.lost-*.jsonl")) + 1
        path.rename(state_dir / f"ledger.lost-{number}.jsonl")
        sync_directory(state_dir)
    ledger = Ledger(path, identity)
    ledger.recover(lost, scope=said.scope, delta=policy.delta, simulated=said.simulated)
    guard = Guard(ledger, Outbox(state_dir / "outbox"), policy, identity, code)
    guard.restart()
    return guard
