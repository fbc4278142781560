"""The thin app bundle: it names the two programs and holds no code, so what runs is what is installed."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from common.atomic import write_atomic
from common.deployment import CoordinatorKit
from common.errors import BadInputError, VerificationError
from server.runtime.link_server import build_bundle

BUNDLE_FILE = "fedcart.fab"
VERSION = "1.0.0"  # of the agreement between coordinator and sites, not of the program


def bundle_text(serverapp: str = "server.deployed:app", clientapp: str = "client.app:app") -> str:
    """``pyproject.toml`` of the bundle. ``run``: name of the run folder, whose rounds that are left are run."""
    return f"""\
[project]
name = "fedcart"
version = "{VERSION}"
description = "Runs the installed fedcart; this bundle holds no code"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedcart"
fab-include = ["pyproject.toml"]

[tool.flwr.app.components]
serverapp = "{serverapp}"
clientapp = "{clientapp}"

[tool.flwr.app.config]
run = ""
"""


def bundle_digest(content: bytes) -> str:
    """SHA-256 that sites pin, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_bundle(folder: Path, text: str) -> str:
    """Build a bundle into a folder, return its digest."""
    content = build_bundle(text)
    write_atomic(folder / BUNDLE_FILE, content)
    return bundle_digest(content)


def read_bundle(kit: CoordinatorKit) -> bytes:
    """The bundle of a coordinator kit. Raises: VerificationError if it is not the one that sites pin."""
    try:
        content = (kit.bundle / BUNDLE_FILE).read_bytes()
    except OSError:
        raise BadInputError(f"no {BUNDLE_FILE} in the coordinator kit", hint="restore the kit") from None
    pinned = kit.read().federation.bundle
    if not hmac.compare_digest(bundle_digest(content), pinned):
        raise VerificationError(
            f"bundle is {bundle_digest(content)[:12]}, sites pin {pinned[:12]}", hint="restore the coordinator kit"
        )
    return content
