"""``fedcart site recover``: a new ledger after the old one was lost, charged with all that was ever attested."""

from __future__ import annotations

import json
from pathlib import Path

from client.guard.guard import GuardStatus, recover_guard
from client.guard.policy import SitePolicy
from client.runtime.supervisor import only_one
from client.site import load_site
from common import VERSION
from common.deployment import SiteKit
from common.errors import BadInputError
from common.privacy.attestation import SignedAttestation
from common.trust.keyfiles import PublicKeys


def recover_site(kit: SiteKit, attestation: Path, old_keys: Path | None = None) -> GuardStatus:
    """Charge a new ledger with the site's highest attestation and all that is readable of the old one.

    The old one is kept beside it; every old event counts for training and for held-out consumers.

    ``old_keys``: public key file with which the attestation was signed, after the site has rotated its keys.
    **Raises**: BadInputError if the site is running, or the file or its scope is not this site's;
    VerificationError if this site did not sign it.
    """
    try:
        known = SignedAttestation.from_json(json.loads(attestation.read_text("utf-8")))
    except (OSError, ValueError, BadInputError) as error:
        raise BadInputError(
            f"{attestation} is not an attestation",
            hint="the coordinator writes it: fedcart server status --attestations",
        ) from error
    site = load_site(kit.path)
    scope = site.file.site.scope
    if known.attestation.scope != scope or known.attestation.site != site.name:
        raise BadInputError(
            f"the attestation is about scope {known.attestation.scope} of {known.attestation.site}, "
            f"this is scope {scope} of {site.name}",
            hint="ask the coordinator for the right file",
        )
    former = PublicKeys.load(old_keys).identity if old_keys is not None else None
    with only_one(kit):
        return recover_guard(
            kit.state, site.identity, SitePolicy.load(kit.policy), known, former_key=former, code=VERSION
        ).status()
