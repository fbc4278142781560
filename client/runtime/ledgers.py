"""What an operator does with a ledger: ``fedcart site recover`` after one was lost, ``site move-ledger`` to share one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from client.guard import SitePolicy
from client.site import load_site
from common import VERSION
from common.atomic import sync_directory, write_atomic
from common.deployment import SiteKit
from common.errors import BadInputError
from common.supervisor import only_one

if TYPE_CHECKING:
    from client.guard import GuardStatus

_TABLE = re.compile(r"^\[site\][^\n]*\n", re.M)


def recover_site(kit: SiteKit, attestation: Path, old_keys: Path | None = None) -> GuardStatus:
    """Charge a new ledger with the site's highest attestation and all that is readable of the old one.

    The old one is kept beside it; every old event counts for training and for held-out consumers.

    ``old_keys``: public key file with which the attestation was signed, after the site has rotated its keys.
    Raises: BadInputError if the site is running, or the file or its scope is not this site's;
    VerificationError if this site did not sign it.
    """
    from client.guard.recovery import recover_guard
    from client.own_state import adopt_state
    from common.privacy import SignedAttestation
    from common.trust.keyfiles import PublicKeys

    try:
        known = SignedAttestation.from_text(attestation.read_text("utf-8"))
    except (OSError, ValueError, BadInputError) as error:
        raise BadInputError(
            f"{attestation} is not an attestation",
            hint="the coordinator writes it: fedcart server status --attestations",
        ) from error
    former = PublicKeys.load(old_keys).identity if old_keys is not None else None
    if former is not None:
        adopt_state(kit, former)
    site = load_site(kit.path)
    scope = site.file.site.scope
    if site.file.site.ledger:
        raise BadInputError(
            "the ledger of this kit is shared, one attestation says too little about what others have spent",
            hint="restore its folder from the newest copy; until then no kit answers",
        )
    if known.attestation.scope != scope or known.attestation.site != site.name:
        raise BadInputError(
            f"the attestation is about scope {known.attestation.scope} of {known.attestation.site}, "
            f"this is scope {scope} of {site.name}",
            hint="ask the coordinator for the right file",
        )
    with only_one(kit, "site"):
        return recover_guard(
            kit.state, site.identity, SitePolicy.load(kit.policy), known, former_key=former, code=VERSION
        ).status()


@dataclass(frozen=True)
class Moved:
    """Where the account is kept now, and what was made of the kit's own file."""

    ledger: str
    scope: str
    epsilon: float
    left_in_kit: str


def move(kit: SiteKit, folder: str, scope: str = "") -> Moved:
    """Point a kit to a shared ledger, and charge that with what the kit's own holds.

    The charge is on disk before the kit points to it; if this is cut off in between, doing it again ends it.
    Raises: BadInputError if the site runs, has a shared ledger already, or its scope has no name; VerificationError.
    """
    from client.guard.shared_ledger import absorb, shared_ledger
    from common.privacy import anchor_of

    site = load_site(kit.path)
    facts = site.file.site
    if facts.ledger:
        raise BadInputError(
            f"this kit has a shared ledger already: {facts.ledger}", hint="only a kit's own is moved"
        )
    named = scope or facts.scope
    place = shared_ledger(folder, named, facts.name, kit.path)
    if place is None:
        raise BadInputError("no folder given", hint="name one outside of every kit, or user")
    old, left, delta = kit.ledger, "", SitePolicy.load(kit.policy).delta
    with only_one(kit, "site"):
        place.refuse_copy(kit.state)
        if old.is_file():
            site.guard().restart()
            absorb(place, delta, old, site.identity.public_key, kit.consumers_key)
        place.ledger(delta)  # whatever is wrong with it is told before the kit points there
        _point(kit, folder, named)
        for path in (old, anchor_of(old)):
            if path.is_file():
                left = f"the kit's own is kept as {old.with_name('moved-ledger.jsonl').name}"
                path.rename(path.with_name(f"moved-{path.name}"))
        sync_directory(kit.state)
    status = load_site(kit.path).guard().status()
    return Moved(str(place.file), named, status.epsilon, left)


def _point(kit: SiteKit, folder: str, scope: str) -> None:
    """Write ``ledger`` and ``scope`` into the table of site.toml, everything else as it was."""
    text = kit.settings.read_text("utf-8")
    text = re.sub(r"^\s*ledger\s*=.*\n", "", text, flags=re.M)
    text = re.sub(
        r"^\s*scope\s*=.*$", lambda _: tomli_w.dumps({"scope": scope}).rstrip(), text, count=1, flags=re.M
    )
    begin = _TABLE.search(text)
    if begin is None:
        raise BadInputError("site.toml has no [site] table", hint="take the kit again")
    write_atomic(
        kit.settings, (text[: begin.end()] + tomli_w.dumps({"ledger": folder}) + text[begin.end() :]).encode()
    )
