"""The key files of a site: two private ones that never leave it, and one public file for the coordinator."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common.atomic import read_small, write_atomic
from common.errors import BadInputError
from common.trust.certificates import make_node_key, node_public_line, node_public_pem
from common.trust.identity import IDENTITY_KEY, NODE_KEY, PUBLIC_KEY_BYTES, Identity, check_name

PUBLIC_SUFFIX = ".keys.json"


@dataclass(frozen=True)
class PublicKeys:
    """What a site tells the coordinator. ``node`` is an OpenSSH line."""

    name: str
    identity: bytes
    node: str

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.identity) != PUBLIC_KEY_BYTES:
            raise BadInputError(f"identity key of {self.name} has {len(self.identity)} bytes, not 32")
        node_public_pem(self.node.encode())

    def to_json(self) -> str:
        """The public key file."""
        return (
            json.dumps(
                {"name": self.name, "identity": self.identity.hex(), "node": self.node}, indent=1, allow_nan=False
            )
            + "\n"
        )

    @classmethod
    def load(cls, path: Path) -> PublicKeys:
        """Read a public key file. Raises: BadInputError."""
        try:
            text = read_small(path).decode("utf-8")
        except OSError as error:
            raise BadInputError(
                f"cannot read {path}: {error.strerror}",
                hint="the site makes it: fedcart site keygen; then name it here",
            ) from error
        try:
            plain = json.loads(text)
            return cls(str(plain["name"]), bytes.fromhex(plain["identity"]), str(plain["node"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError(
                f"{path} is not a public key file", hint="the site makes one: fedcart site keygen"
            ) from error


def make_site_keys(folder: Path, name: str) -> PublicKeys:
    """Make both keys of a site in a folder (0600) and its public file; never over existing keys.

    Raises: BadInputError if a key is there.
    """
    check_name(name)
    for file in (IDENTITY_KEY, NODE_KEY):
        if (folder / file).exists():
            raise BadInputError(f"{file} exists in {folder}", hint="move the old keys away first")
    folder.mkdir(parents=True, exist_ok=True)
    private, _ = make_node_key()
    write_atomic(folder / NODE_KEY, private, mode=0o600)
    Identity.generate(name).save(folder / IDENTITY_KEY)
    keys = read_site_keys(folder, name)
    write_atomic(folder / f"{name}{PUBLIC_SUFFIX}", keys.to_json().encode())
    return keys


def read_site_keys(folder: Path, name: str) -> PublicKeys:
    """The public halves of the keys in a folder. Raises: BadInputError."""
    identity = Identity.load(name, folder / IDENTITY_KEY)
    return PublicKeys(name, identity.public_key, node_public_line(folder / NODE_KEY).decode())
