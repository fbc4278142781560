"""The bundle check: a site runs the one app bundle that its kit pins, and refuses any other unread."""

from __future__ import annotations

import hashlib
import hmac
import io
import tomllib
import zipfile
from functools import lru_cache

from common.errors import RefusedError

FILES = frozenset({"pyproject.toml", ".info/CONTENT"})  # the names of the two apps, and Flower's list of the files


class BundleRefusedError(RefusedError):
    """A run came with a bundle other than the pinned one."""

    code = "bundle"


def check_bundle(pinned: str, claimed: str, content: bytes | None) -> None:
    """Return if this is the pinned bundle; ``content`` is None while only the server's claim is known.

    Guarantee: content passes only if its own SHA-256 is the pinned one, whatever the server claims, and it holds no file
    that could be code: the pin is in the kit, so whoever made the kit chose it.
    Raises: BundleRefusedError.
    """
    hint = "if the coordinator announced an upgrade, install it and its new kit; otherwise ask what was submitted"
    if not hmac.compare_digest(claimed.encode(), pinned.encode()):
        raise BundleRefusedError(f"bundle {claimed[:12]!r} refused, pinned is {pinned[:12]!r}", hint=hint)
    if content is None:
        return
    digest = hashlib.sha256(content).hexdigest()
    if not hmac.compare_digest(digest, pinned):
        raise BundleRefusedError(
            f"bundle with content {digest[:12]!r} refused, pinned is {pinned[:12]!r}", hint=hint
        )
    strange = sorted(_names(content) - FILES)
    if strange:
        raise BundleRefusedError(
            f"bundle {digest[:12]!r} holds {strange[0][:60]!a}: code would run here",
            hint="a bundle of fedcart names two programs that are installed, and holds none",
        )


def _names(content: bytes) -> set[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            return set(bundle.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BundleRefusedError("the bundle cannot be read", hint="ask the coordinator for a new kit") from error


@lru_cache(maxsize=4)
def client_app_in(content: bytes) -> str:
    """The client app that a checked bundle names, as ``module:name``. Raises: BundleRefusedError."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            named = tomllib.loads(packed.read("pyproject.toml").decode())
        return str(named["tool"]["flwr"]["app"]["components"]["clientapp"])
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise BundleRefusedError("the bundle names no client app") from error
