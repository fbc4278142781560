"""What a site signs about its ledger: the attestation of a RESERVE, and the head of the chain.

Public parameters only: no count, batch size or loss. The server recomputes epsilon from the events, keeps
the latest signed statement and echoes it, so that a site notices when its own ledger was rolled back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

import common.wire as wire
from common.bounds import (
    MAX_SCOPE_LENGTH,
    MAX_SEQUENCE,
    check_count,
    check_hex_digest,
    check_real,
    check_run,
    check_text,
    check_whole,
)
from common.errors import BadInputError, VerificationError
from common.plain_text import require_word
from common.privacy.accountant import epsilon_of, round_up
from common.privacy.mechanism import Losses, PrivacyEvent
from common.strict_json import fields_of, read
from common.trust import SIGNATURE_BYTES, Identity, check_name, verify_signature

EPSILON_TOLERANCE = 1e-3
NAMES = ("site", "scope", "run")
MAX_EVENTS = 16  # of one round
MAX_TOTALS = 256  # different mechanisms in the life of a scope
MAX_PLANNED = (
    16  # of a scope whose one run was planned before its first release: each costs the reader a tenth of a second
)
MAX_STATEMENT_LENGTH = 512 * (MAX_EVENTS + MAX_TOTALS) + 4_096  # characters of JSON
LARGEST_EPSILON = 1e12
MIN_ORDER, MAX_ORDER = 1.001, 4_096.0
MIN_DELTA, MAX_DELTA = 1e-30, 0.1

T = TypeVar("T")


def anchor_of(ledger: Path) -> Path:
    """Where the signed end of a ledger's chain stands: beside it, so that a cut tail is found."""
    return ledger.with_suffix(".head.json")


@dataclass(frozen=True)
class Attestation:
    """A site's word on one RESERVE. ``totals`` is everything its scope has spent, this reservation included.

    ``sequence`` and ``head`` (hex) are those of the last entry, which is the RESERVE itself unless an earlier
    attempt made it. ``order`` is the Rényi order fixed in the scope; ``adaptive``: it counts, because a run came in that
    was not planned before the first release. With ``totals`` they suffice to recover a lost ledger and to recompute
    ``epsilon_after``. ``roster`` and ``witness`` (hex): which roster the site has, and the root over all sites' heads that
    it was shown in this session; see ``witness_of``.
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
    order: float
    adaptive: bool
    delta: float
    limit: float
    simulated: bool
    roster: str = ""
    witness: str = ""

    def __post_init__(self) -> None:
        check_name(self.site)
        check_text(self.scope, "scope", MAX_SCOPE_LENGTH)
        check_run(self.run)
        for whole, what in ((self.round, "round"), (self.attempt, "attempt")):
            check_whole(whole, what)
        check_whole(self.sequence, "sequence", high=MAX_SEQUENCE)
        check_hex_digest(self.query, "digest of the query")
        check_hex_digest(self.head, "head")
        for digest, what in ((self.roster, "roster"), (self.witness, "witness")):
            check_hex_digest(digest, what, optional=True)
        check_count(self.events, "events", MAX_EVENTS)
        check_count(self.totals, "totals", MAX_TOTALS if self.adaptive else MAX_PLANNED)
        for real, what in (
            (self.epsilon_before, "epsilon"),
            (self.epsilon_after, "epsilon"),
            (self.limit, "limit"),
        ):
            check_real(real, what, high=LARGEST_EPSILON)
        check_real(self.order, "order", low=MIN_ORDER, high=MAX_ORDER)
        check_real(self.delta, "delta", low=MIN_DELTA, high=MAX_DELTA)

    @property
    def adaptive_order(self) -> float | None:
        """The Rényi order at which the totals are added up; None where all was planned before the first release."""
        return self.order if self.adaptive else None

    @property
    def recomputed(self) -> float:
        """Epsilon of the totals, as this program computes it."""
        return epsilon_of(self.totals, self.delta, self.adaptive_order)


@dataclass(frozen=True)
class Head:
    """The end of a site's chain: the tail anchor beside a copy of a ledger. ``totals``: all that it has charged."""

    site: str
    scope: str
    sequence: int
    head: str
    simulated: bool
    totals: tuple[PrivacyEvent, ...] = ()
    order: float | None = None
    adaptive: bool = False

    def __post_init__(self) -> None:
        check_name(self.site)
        check_text(self.scope, "scope", MAX_SCOPE_LENGTH)
        check_whole(self.sequence, "sequence", low=-1, high=MAX_SEQUENCE)
        check_hex_digest(self.head, "head")
        check_count(self.totals, "totals", MAX_TOTALS)
        if self.order is not None:
            check_real(self.order, "order", low=MIN_ORDER, high=MAX_ORDER)


@dataclass(frozen=True)
class SignedAttestation:
    """An attestation with the site's Ed25519 signature (hex)."""

    attestation: Attestation
    signature: str

    def __post_init__(self) -> None:
        _check_signature(self.signature)

    @classmethod
    def sign(cls, attestation: Attestation, identity: Identity) -> Self:
        """Sign with the site's identity."""
        return cls(attestation, identity.sign(wire.digest(attestation, domain="attestation")).hex())

    def verify(self, public_key: bytes) -> None:
        """Return if the signature holds. Raises: VerificationError."""
        _verify(public_key, wire.digest(self.attestation, domain="attestation"), self.signature)

    def to_json(self) -> dict[str, Any]:
        """A JSON object for ``metrics.jsonl`` and for people."""
        return fields_of(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Inverse of ``to_json``. Raises: BadInputError."""
        return _read(cls, plain)

    @classmethod
    def from_text(cls, text: object) -> Self:
        """What a message carries: JSON, not longer than any ledger needs. Raises: BadInputError."""
        return cls.from_json(read(text, largest=MAX_STATEMENT_LENGTH, what="the attestation"))


@dataclass(frozen=True)
class SignedHead:
    """A head with the site's Ed25519 signature (hex)."""

    head: Head
    signature: str

    def __post_init__(self) -> None:
        _check_signature(self.signature)

    @classmethod
    def sign(cls, head: Head, identity: Identity) -> Self:
        """Sign with the site's identity."""
        return cls(head, identity.sign(wire.digest(head, domain="ledger-head")).hex())

    def verify(self, public_key: bytes) -> None:
        """Return if the signature holds. Raises: VerificationError."""
        if public_key not in self._holds_for:
            _verify(public_key, wire.digest(self.head, domain="ledger-head"), self.signature)
            self._holds_for.add(public_key)

    @cached_property
    def _holds_for(self) -> set[bytes]:
        return set()

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return fields_of(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Inverse of ``to_json``. Raises: BadInputError."""
        return _read(cls, plain)


def read_head(path: Path) -> SignedHead:
    """The anchor in a file, its signature not yet checked. Raises: VerificationError if it is none."""
    try:
        return _head_in(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError, BadInputError):
        raise VerificationError(f"{path.name} is not a signed head") from None


@lru_cache(maxsize=256)  # a simulated site looks at its anchor in every message; it changes twice a round
def _head_in(data: bytes) -> SignedHead:
    return SignedHead.from_json(json.loads(data))


def check_attestation(signed: SignedAttestation, public_key: bytes) -> None:
    """Return if the site signed this and the epsilon follows from the events.

    Guarantee: the epsilon shown by the attestation is at most ``EPSILON_TOLERANCE`` below what this
    program computes from ``totals``, and ``totals`` contains ``events``.
    Raises: VerificationError.
    """
    signed.verify(public_key)
    said = signed.attestation
    totals = Losses.of(said.totals)
    if totals.events != said.totals:
        raise VerificationError(
            f"attestation of {said.site}: a setting occurs twice in the totals, or out of order"
        )
    if not totals.covers(Losses.of(said.events)):
        raise VerificationError(f"attestation of {said.site}: the totals do not contain this round's events")
    recomputed = said.recomputed
    if abs(recomputed - said.epsilon_after) > EPSILON_TOLERANCE or said.epsilon_before > said.epsilon_after:
        raise VerificationError(
            f"attestation of {said.site}: says epsilon {said.epsilon_after:.6f}, its events give {recomputed:.6f}",
            hint="the site runs another version, or its ledger was altered: compare versions, then its ledger",
        )


def shown_epsilon(signed: SignedAttestation) -> float:
    """The epsilon to display for a checked attestation: never below what its events give."""
    said = signed.attestation
    return round_up(max(said.epsilon_after, said.recomputed))


Witnessed = Mapping[str, tuple[int, str]]
"""Of each site that ever attested: last signed entry, and its hash (hex)."""


def witness_of(heads: Witnessed) -> bytes:
    """One root over the ends of all sites' ledgers, ``bytes[32]``: every site writes it into its own."""
    ordered = tuple(_WitnessedHead(site, sequence, head) for site, (sequence, head) in sorted(heads.items()))
    return wire.digest(_WitnessedHeads(ordered), domain="witness")


@dataclass(frozen=True)
class _WitnessedHead:
    site: str
    sequence: int
    head: str


@dataclass(frozen=True)
class _WitnessedHeads:
    heads: tuple[_WitnessedHead, ...]


class AttestedHeads:
    """The latest checked attestation of each site: what a server echoes, and what it shows as spent.

    Guarantee: never goes back: an attestation with a lower sequence, or the same one with another head,
    raises and changes nothing.
    """

    def __init__(self, known: Mapping[str, SignedAttestation] | None = None) -> None:
        self._latest = dict(known or {})

    def accept(self, signed: SignedAttestation, public_key: bytes) -> None:
        """Check and keep. Raises: VerificationError."""
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

    def all(self) -> dict[str, SignedAttestation]:
        """The latest of every site that ever attested."""
        return dict(self._latest)

    def witnessed(self) -> dict[str, tuple[int, str]]:
        """What a session shows every site of every other: see ``witness_of``."""
        ends = {site: signed.attestation for site, signed in sorted(self._latest.items())}
        return {site: (said.sequence, said.head) for site, said in ends.items()}

    def epsilon(self) -> dict[str, float]:
        """Spent per site, reservations included."""
        return {site: shown_epsilon(signed) for site, signed in sorted(self._latest.items())}

    def to_json(self) -> dict[str, Any]:
        """For the server's state file."""
        return {site: signed.to_json() for site, signed in sorted(self._latest.items())}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Inverse of ``to_json``. Raises: BadInputError."""
        return cls({site: SignedAttestation.from_json(signed) for site, signed in plain.items()})


def _check_signature(signature: str) -> None:
    check_count(signature, "signature", 2 * SIGNATURE_BYTES)


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
    for one in vars(value).values():  # what is signed: its names are shown to people, in tables and in files
        for name in NAMES if not isinstance(one, str) else ():
            require_word(f"{name} of a ledger", getattr(one, name, name))
    return value


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value
