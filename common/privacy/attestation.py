"""What a site signs about its ledger: the attestation of a RESERVE, and the head of the chain.

Public parameters only: no count, batch size or loss. The server recomputes epsilon from the events, keeps
the latest signed statement and echoes it, so that a site notices when its own ledger was rolled back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

import common.wire as wire
from common.errors import BadInputError, VerificationError
from common.privacy.accountant import epsilon_of, round_up
from common.privacy.mechanism import PrivacyEvent
from common.trust.identity import Identity, verify_signature

EPSILON_TOLERANCE = 1e-3

T = TypeVar("T")


@dataclass(frozen=True)
class Attestation:
    """A site's word on one RESERVE. ``totals`` is everything its scope has spent, this reservation included.

    ``sequence`` and ``head`` (hex) are those of the last entry, which is the RESERVE itself unless an earlier
    attempt made it. ``totals`` alone suffices to recover a lost ledger and to recompute ``epsilon_after``.
    """

    site: str
    scope: str
    run: str
    round: int
    attempt: int
    query: str
    events: tuple[PrivacyEvent, ...]
    totals: tuple[PrivacyEvent, ...]
    sequence: int
    head: str
    epsilon_before: float
    epsilon_after: float
    delta: float
    limit: float
    simulated: bool


@dataclass(frozen=True)
class Head:
    """The end of a site's chain: the tail anchor beside a copy of a ledger. ``totals``: all that it has charged."""

    site: str
    scope: str
    sequence: int
    head: str
    simulated: bool
    totals: tuple[PrivacyEvent, ...] = ()


@dataclass(frozen=True)
class SignedAttestation:
    """An attestation with the site's Ed25519 signature (hex)."""

    attestation: Attestation
    signature: str

    @classmethod
    def sign(cls, attestation: Attestation, identity: Identity) -> Self:
        """Sign with the site's identity."""
        return cls(attestation, identity.sign(wire.digest(attestation, domain="attestation")).hex())

    def verify(self, public_key: bytes) -> None:
        """Return if the signature holds. **Raises** VerificationError."""
        _verify(public_key, wire.digest(self.attestation, domain="attestation"), self.signature)

    def to_json(self) -> dict[str, Any]:
        """A JSON object for ``metrics.jsonl`` and for people."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Inverse of ``to_json``. **Raises** BadInputError."""
        return _read(cls, plain)


@dataclass(frozen=True)
class SignedHead:
    """A head with the site's Ed25519 signature (hex)."""

    head: Head
    signature: str

    @classmethod
    def sign(cls, head: Head, identity: Identity) -> Self:
        """Sign with the site's identity."""
        return cls(head, identity.sign(wire.digest(head, domain="ledger-head")).hex())

    def verify(self, public_key: bytes) -> None:
        """Return if the signature holds. **Raises** VerificationError."""
        _verify(public_key, wire.digest(self.head, domain="ledger-head"), self.signature)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Inverse of ``to_json``. **Raises** BadInputError."""
        return _read(cls, plain)


def read_head(path: Path) -> SignedHead:
    """The anchor in a file, its signature not yet checked. **Raises** VerificationError if it is none."""
    try:
        return SignedHead.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, BadInputError):
        raise VerificationError(f"{path.name} is not a signed head") from None


def check_attestation(signed: SignedAttestation, public_key: bytes) -> None:
    """Return if the site signed this and the epsilon follows from the events.

    **Guarantee** the epsilon shown by the attestation is at most ``EPSILON_TOLERANCE`` below what this
    program computes from ``totals``, and ``totals`` contains ``events``.
    **Raises** VerificationError.
    """
    signed.verify(public_key)
    said = signed.attestation
    totals = {(e.sub_scope, e.sampling_rate, e.noise_multiplier): e.steps for e in said.totals}
    if len(totals) != len(said.totals):
        raise VerificationError(f"attestation of {said.site}: a setting occurs twice in the totals")
    for event in said.events:
        key = (event.sub_scope, event.sampling_rate, event.noise_multiplier)
        totals[key] = totals.get(key, 0) - event.steps
    if any(steps < 0 for steps in totals.values()):
        raise VerificationError(f"attestation of {said.site}: the totals do not contain this round's events")
    found = epsilon_of(said.totals, said.delta)
    if abs(found - said.epsilon_after) > EPSILON_TOLERANCE or said.epsilon_before > said.epsilon_after:
        raise VerificationError(
            f"attestation of {said.site}: says epsilon {said.epsilon_after:.6f}, its events give {found:.6f}",
            hint="the site runs another version, or its ledger was altered: compare versions, then its ledger",
        )


def shown_epsilon(signed: SignedAttestation) -> float:
    """The epsilon to display for a checked attestation: never below what its events give."""
    said = signed.attestation
    return round_up(max(said.epsilon_after, epsilon_of(said.totals, said.delta)))


class AttestedHeads:
    """The latest checked attestation of each site: what a server echoes, and what it shows as spent.

    **Guarantee** never goes back: an attestation with a lower sequence, or the same one with another head,
    raises and changes nothing.
    """

    def __init__(self, known: Mapping[str, SignedAttestation] | None = None) -> None:
        self._latest = dict(known or {})

    def accept(self, signed: SignedAttestation, public_key: bytes) -> None:
        """Check and keep. **Raises** VerificationError."""
        check_attestation(signed, public_key)
        new, old = signed.attestation, self.latest(signed.attestation.site)
        if old is not None:
            same = new.sequence == old.attestation.sequence and new.head == old.attestation.head
            if new.sequence <= old.attestation.sequence and not same:
                raise VerificationError(
                    f"{new.site} attests entry {new.sequence}, it had signed entry {old.attestation.sequence} before",
                    hint="the site's ledger was rolled back: `fedcart site recover` there",
                )
        self._latest[new.site] = signed

    def latest(self, site: str) -> SignedAttestation | None:
        """The attestation to echo to a site, None if it never attested."""
        return self._latest.get(site)

    def epsilon(self) -> dict[str, float]:
        """Spent per site, reservations included."""
        return {site: shown_epsilon(signed) for site, signed in sorted(self._latest.items())}

    def to_json(self) -> dict[str, Any]:
        """For the server's state file."""
        return {site: signed.to_json() for site, signed in sorted(self._latest.items())}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Inverse of ``to_json``. **Raises** BadInputError."""
        return cls({site: SignedAttestation.from_json(signed) for site, signed in plain.items()})


def _verify(public_key: bytes, digest: bytes, signature: str) -> None:
    try:
        raw = bytes.fromhex(signature)
    except ValueError:
        raise VerificationError("signature is not hexadecimal") from None
    verify_signature(public_key, digest, raw)


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}  # making one takes longer than reading with it


def _read(kind: type[T], plain: Mapping[str, Any]) -> T:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    adapter = _ADAPTERS[kind]
    try:
        value: T = adapter.validate_python(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInputError(f"not a signed statement of a ledger: {where}: {first['msg'].lower()}") from None
    if adapter.dump_python(value, mode="json") != _listed(plain):
        raise BadInputError("not a signed statement of a ledger: unknown fields")
    return value


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value
