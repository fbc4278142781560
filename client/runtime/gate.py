"""The bundle check: a site runs the one app bundle that its kit pins, and refuses any other unread."""

from __future__ import annotations

import hashlib
import hmac

from common.errors import RefusedError


class BundleRefusedError(RefusedError):
    """A run came with a bundle other than the pinned one."""

    code = "bundle"


def check_bundle(pinned: str, claimed: str, content: bytes) -> None:
    """Return if this is the pinned bundle; ``content`` is empty while only the server's claim is known.

    **Guarantee**: content passes only if its own SHA-256 is the pinned one, whatever the server claims.
    **Raises**: BundleRefusedError.
    """
    hint = "if the coordinator announced an upgrade, install it and its new kit; otherwise ask what was submitted"
    if not hmac.compare_digest(claimed.encode(), pinned.encode()):
        raise BundleRefusedError(f"bundle {claimed[:12]!r} refused, pinned is {pinned[:12]!r}", hint=hint)
    found = hashlib.sha256(content).hexdigest()
    if content and not hmac.compare_digest(found, pinned):
        raise BundleRefusedError(
            f"bundle with content {found[:12]!r} refused, pinned is {pinned[:12]!r}", hint=hint
        )
