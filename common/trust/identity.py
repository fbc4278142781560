"""Ed25519 identities and the roster that pins them.

An ``Identity`` is a party's secret half, kept on its own machine. A ``Roster`` is the public half of
everybody, the same file in every kit, numbered and signed by the coordinator; nothing is believed that is not signed
by a key in it. That the coordinator put true keys into it, only people can find out: they compare its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from common.atomic import read_small, write_atomic
from common.errors import BadInputError, VerificationError
from common.trust.private_files import require_private

SITE = "site"
COORDINATOR = "coordinator"
ROSTER_FILE = "roster.json"
MOST_ROSTER = 1 << 26  # bytes, of 100,000 sites and more
IDENTITY_KEY, NODE_KEY, CONSUMERS_KEY = "identity.key", "node.key", "consumers.key"
ROLES = (SITE, COORDINATOR)
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
FEDERATION_BYTES = 16
FINGERPRINT_WORDS = 6
MAX_NAME_LENGTH = 40
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


def check_name(name: str) -> str:
    """Return a party's name if it is safe in a file name, a log line and a message.

    Raises: BadInputError otherwise.
    """
    if not _NAME.fullmatch(name):
        raise BadInputError(
            f"party name {name[:60]!r} is not usable",
            hint=f"use 1 to {MAX_NAME_LENGTH} of A-Z a-z 0-9 . _ -, starting with a letter or digit",
        )
    return name


def _words(data: bytes) -> str:
    """Pronounceable words, 16 bits each: consonants carry four bits, vowels two."""
    pairs = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
    return " ".join(
        "".join(("bdfghjklmnprstvz"[n >> s & 15] if width == 4 else "aiou"[n >> s & 3]) for s, width in _LETTERS)
        for n in pairs
    )


_LETTERS = ((12, 4), (10, 2), (6, 4), (4, 2), (0, 4))  # shift and bits of the letters of a word


def verify_signature(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Return if the Ed25519 signature holds. Raises: VerificationError. Source: RFC 8032."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError("signature does not hold") from error


@dataclass(frozen=True, repr=False)
class Identity:
    """A party's name and Ed25519 signing key.

    Guarantee: neither ``repr`` nor ``str`` shows the secret.
    """

    name: str
    _key: Ed25519PrivateKey = field(compare=False)

    def __repr__(self) -> str:
        return f"Identity({self.name}, public_key={self.public_key.hex()[:12]})"

    @classmethod
    def generate(cls, name: str) -> Identity:
        """A fresh identity from the operating system's randomness."""
        return cls(check_name(name), Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> Identity:
        """The identity of a 32-byte secret seed, always the same."""
        if len(seed) != PUBLIC_KEY_BYTES:
            raise BadInputError(f"an Ed25519 seed has {PUBLIC_KEY_BYTES} bytes, got {len(seed)}")
        return cls(check_name(name), Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, name: str, path: Path) -> Identity:
        """Read the key file that ``save`` wrote. Raises: BadInputError, also if others can read it."""
        require_private([path])
        try:
            key = load_pem_private_key(read_small(path), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise BadInputError(
                f"{path.name} is not a readable private key", hint="make one: fedcart site keygen"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise BadInputError(
                f"{path.name} holds a key that is not Ed25519", hint="make one: fedcart site keygen"
            )
        return cls(check_name(name), key)

    @property
    def public_key(self) -> bytes:
        """The raw Ed25519 public key: ``bytes[32]``."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature: ``bytes[64]``. The caller separates domains (``wire.digest`` does)."""
        return self._key.sign(message)

    def save(self, path: Path) -> None:
        """Write the secret key as PKCS 8 PEM, mode 0600, atomically; never over an existing file.

        Raises: BadInputError if the file is there.
        """
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        if path.exists():
            raise BadInputError(
                f"{path.name} exists", hint="a key is never overwritten: move the old one away first"
            )
        write_atomic(path, pem, mode=0o600)


@dataclass(frozen=True)
class Party:
    """One member of the federation, as pinned by everybody."""

    name: str
    role: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.role not in ROLES:
            raise BadInputError(f"role of {self.name} is {self.role!r}, not one of {', '.join(ROLES)}")
        if len(self.public_key) != PUBLIC_KEY_BYTES:
            raise BadInputError(
                f"public key of {self.name} has {len(self.public_key)} bytes, not {PUBLIC_KEY_BYTES}"
            )


@dataclass(frozen=True)
class Roster:
    """All pinned parties of a federation, its ``version``-th list since the federation began.

    ``federation``: random, hex, the same in all versions. ``signature``: the coordinator's, over everything else; one
    that is still empty is not saved and not loaded.
    Guarantee: no name and no key occurs twice.
    """

    parties: tuple[Party, ...]
    federation: str = "0" * (2 * FEDERATION_BYTES)
    version: int = 1
    signature: bytes = b""

    def __post_init__(self) -> None:
        if len(bytes.fromhex(self.federation)) != FEDERATION_BYTES or not 1 <= self.version < 2**31:
            raise BadInputError(f"a roster has a federation of {FEDERATION_BYTES} bytes and a version from 1")
        names = {p.name for p in self.parties}
        keys = {p.public_key for p in self.parties}
        if len(names) != len(self.parties) or len(keys) != len(self.parties):
            raise BadInputError(
                "a name or a key occurs twice in the roster", hint="give every party its own name and its own key"
            )

    def __contains__(self, name: object) -> bool:
        return any(p.name == name for p in self.parties)

    @property
    def sites(self) -> tuple[Party, ...]:
        """The parties that hold data, in the order of the roster."""
        return tuple(p for p in self.parties if p.role == SITE)

    @property
    def coordinator(self) -> Party:
        """The one party that signs Queries. Raises: BadInputError unless there is exactly one."""
        coordinators = [p for p in self.parties if p.role == COORDINATOR]
        if len(coordinators) != 1:
            raise BadInputError(f"roster has {len(coordinators)} coordinators, exactly 1 is needed")
        return coordinators[0]

    def party(self, name: str) -> Party:
        """The pinned party of that name. Raises: VerificationError if nobody has it."""
        for party in self.parties:
            if party.name == name:
                return party
        raise VerificationError(f"{name[:MAX_NAME_LENGTH]!r} is not pinned in the roster")

    def verify(self, name: str, message: bytes, signature: bytes) -> None:
        """Return if the party of that name signed the message. Raises: VerificationError."""
        try:
            verify_signature(self.party(name).public_key, message, signature)
        except VerificationError as error:
            raise VerificationError(f"signature of {name[:MAX_NAME_LENGTH]!r} does not hold") from error

    @classmethod
    def signed_by(
        cls, coordinator: Identity, sites: Iterable[tuple[str, bytes]], before: Roster | None = None
    ) -> Roster:
        """The roster of a coordinator and its sites (name, public key), signed.

        ``before``: the version that this one follows; one that says the same is returned as it is.
        """
        parties = [Party(coordinator.name, COORDINATOR, coordinator.public_key)]
        parties += [Party(name, SITE, key) for name, key in sites]
        if before is not None and before.parties == tuple(parties):
            return before
        roster = cls(tuple(parties), secrets.token_hex(FEDERATION_BYTES))
        if before is not None:
            roster = replace(roster, federation=before.federation, version=before.version + 1)
        return replace(roster, signature=coordinator.sign(roster.digest))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all but the signature, ``bytes[32]``: what the coordinator signs, and every session and entry names."""
        return hashlib.sha256(b"fedcart/roster/1\0" + self._content().encode()).digest()

    @cached_property
    def fingerprint(self) -> str:
        """Six words for people to compare with *each other*: 96 bits of a slow hash of the digest.

        A coordinator chooses keys, so it could look for two rosters that read alike: 2^48 tries of some 30 ms each.
        Source: Wilkerson 2009 for the words (proquints), RFC 7914 for the hash.
        """
        return _words(hashlib.scrypt(self.digest, salt=b"fedcart/fingerprint/1", n=2**14, r=8, p=1, dklen=12))

    def check_signature(self) -> None:
        """Return if the roster's coordinator signed it. Raises: VerificationError; BadInputError (no coordinator)."""
        try:
            verify_signature(self.coordinator.public_key, self.digest, self.signature)
        except VerificationError:
            raise VerificationError(
                "the roster is not signed by its coordinator", hint="take roster.json from the kit again"
            ) from None

    def _content(self) -> str:
        entries = [{"name": p.name, "role": p.role, "public_key": p.public_key.hex()} for p in self.parties]
        plain = {"federation": self.federation, "version": self.version, "parties": entries}
        return json.dumps(plain, indent=1, allow_nan=False)

    def to_json(self) -> str:
        """The roster as JSON, one object per party."""
        plain = json.loads(self._content()) | {"signature": self.signature.hex()}
        return json.dumps(plain, indent=1, allow_nan=False) + "\n"

    @classmethod
    @lru_cache(maxsize=4)  # a simulation holds one and the same roster in each of its kits
    def from_json(cls, text: str) -> Roster:
        """Read what ``to_json`` wrote. Raises: BadInputError; VerificationError if its coordinator did not sign it."""
        try:
            plain = json.loads(text)
            parties = tuple(
                Party(str(e["name"]), str(e["role"]), bytes.fromhex(e["public_key"])) for e in plain["parties"]
            )
            version, signature = int(plain["version"]), bytes.fromhex(plain["signature"])
            roster = cls(parties, str(plain["federation"]), version, signature)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise BadInputError(
                "roster is not readable, or of an older program", hint="take roster.json from the kit again"
            ) from error
        roster.check_signature()
        return roster

    def save(self, path: Path) -> None:
        """Write ``roster.json`` atomically. Raises: VerificationError if it is not signed."""
        self.check_signature()
        write_atomic(path, self.to_json().encode())

    @classmethod
    def load(cls, path: Path) -> Roster:
        """Read ``roster.json``. Raises: BadInputError."""
        try:
            return cls.from_json(read_small(path, MOST_ROSTER).decode("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(
                f"{path.name} cannot be read", hint="take roster.json from the kit again"
            ) from error
