"""The ledger's format: one canonical JSON line per entry, chained by SHA-256, signed by the site.

A line is ``{body, hash, previous, sequence, signature, time}`` with sorted keys and no spaces. ``hash``
covers everything but itself and the signature, ``previous`` is the hash of the line before. A line that
is not byte for byte the canonical form of what it says is refused, so every byte is under the chain.

What the entries say together: ``common.privacy.replay``.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.errors import VerificationError
from common.privacy.mechanism import PrivacyEvent
from common.trust import Identity, verify_signature

FORMAT: Literal[1] = 1
FIRST_PREVIOUS = hashlib.sha256(b"fedcart/ledger-start/1").hexdigest()
_ENTRY_DOMAIN = b"fedcart/ledger-entry/1\0"
_SIGNATURE_DOMAIN = b"fedcart/ledger-signature/1\0"

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0)]
Order = Annotated[float, Field(gt=1)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Open(_Body):
    """The first entry: whose ledger, for which consumers, under which constants.

    ``shared``: the ledger has a key of its own, and several kits write to it, each admitted by an entry; ``site`` is then
    the scope's name.
    """

    kind: Literal["open"] = "open"
    format: Literal[1] = FORMAT
    site: Name
    scope: Name
    delta: Annotated[float, Field(gt=0, lt=1)]
    public_key: Hex32
    unit: Literal["consumer"] = "consumer"
    relation: Literal["add-or-remove-one"] = "add-or-remove-one"
    simulated: bool
    shared: bool = False


class Admit(_Body):
    """A kit may reserve from a shared ledger. ``signature`` by the kit's own key, over ``admission_statement``."""

    kind: Literal["admit"] = "admit"
    site: Name
    public_key: Hex32
    signature: Hex64


class Charge(_Body):
    """Spent elsewhere before: by the site's own attestations (``site recover``), by the run it goes on from, or in a
    ledger that was moved into this one.

    ``order``: the Rényi order that the ledger before had fixed, if this one has none. ``site``, ``until``: the entries of
    that site's former ledger that this charge stands for; ``key``, ``head``: the public key that signed it, and the hash of
    its last entry. Such a charge has a number above ``until``, so that what a kit attests never goes back. ``holdout``, ``validation`` and ``split_key``: who was held out
    there, if the same consumers stay on their side. ``adaptive``: not all of it was planned before its first release; ``planned``: digests
    of the runs' settings that were, where they are known.
    """

    kind: Literal["charge"] = "charge"
    events: tuple[PrivacyEvent, ...]
    reason: Name
    order: Order | None = None
    site: Annotated[str, Field(max_length=200)] = ""
    until: Annotated[int, Field(ge=-1)] = -1
    holdout: Annotated[float, Field(ge=0, lt=1)] | None = None
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    split_key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    adaptive: bool = True
    planned: tuple[Hex32, ...] = ()
    key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    head: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class Reserve(_Body):
    """A release that is about to be computed. Counts as spent until it is voided.

    ``holdout``, ``validation`` (the share of those by whom a run chooses) and ``split_key`` (SHA-256 of the site's own key)
    say who is on which side. The first RESERVE of a ledger fixes them: charging disjoint parts apart is true only while no
    consumer changes sides.

    ``source`` names the committed RESERVE of which this release is post-processing: it reads nothing else, and has
    no events of its own, because that one was charged for good.

    ``order``: in the first RESERVE that has events, and in no other: the Rényi order at which this scope is accounted
    for once a run comes in that was not planned before the first release. ``by``: public key of the kit that asks, in a
    shared ledger.

    ``roster`` and ``witness``: digests of the roster and of the last signed heads of *all* sites' ledgers, as the
    coordinator has signed them for this session. Whoever holds this ledger can so convict another one of a fork.
    """

    kind: Literal["reserve"] = "reserve"
    run: Name
    round: Count
    attempt: Count
    query: Hex32
    config: Hex32
    code: Name
    events: tuple[PrivacyEvent, ...]
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    split_key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    source: Count | None = None
    order: Order | None = None
    by: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    roster: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    witness: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class Commit(_Body):
    """The reserved contribution is about to leave; ``outbox`` is its digest. Never voided."""

    kind: Literal["commit"] = "commit"
    reserve: Count
    outbox: Hex32


class Void(_Body):
    """The reserved contribution provably never left: its outbox file was removed before this entry."""

    kind: Literal["void"] = "void"
    reserve: Count
    reason: Name


class Forfeit(_Body):
    """Charged for ever, and nothing to send: that it failed was answered, or too many were given back before."""

    kind: Literal["forfeit"] = "forfeit"
    reserve: Count
    reason: Name


Body: TypeAlias = Open | Admit | Charge | Reserve | Commit | Void | Forfeit


class Entry(_Body):
    """One line of a ledger. Units: ``time``: UTC, seconds."""

    body: Annotated[Body, Field(discriminator="kind")]
    hash: Hex32
    previous: Hex32
    sequence: Count
    signature: Hex64
    time: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


_ENTRY = TypeAdapter(Entry)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(value: object) -> bytes:
    """Sorted keys, no spaces, ASCII, no NaN: one value, one encoding."""
    return _ENCODER.encode(value).encode("ascii")


def make_line(body: Body, *, sequence: int, previous: str, time: str, identity: Identity) -> bytes:
    """Sign an entry and return its line, with the end of line."""
    plain: dict[str, Any] = {
        "body": body.model_dump(mode="json"),
        "previous": previous,
        "sequence": sequence,
        "time": time,
    }
    digest = hashlib.sha256(_ENTRY_DOMAIN + canonical_json(plain)).digest()
    plain["hash"] = digest.hex()
    plain["signature"] = identity.sign(_SIGNATURE_DOMAIN + digest).hex()
    return canonical_json(plain) + b"\n"


def parse_line(line: bytes) -> Entry:
    """Read one line (without its end) and check form and hash, not the chain and not the signature.

    Raises: VerificationError naming what is wrong.
    """
    try:
        plain = json.loads(line)
        if canonical_json(plain) != line:
            raise VerificationError("not in canonical form")
        entry = _ENTRY.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VerificationError(f"not a ledger entry: {where}: {first['msg'].lower()}") from None
    except (ValueError, RecursionError):
        raise VerificationError("not a line of JSON") from None
    del plain["hash"], plain["signature"]
    if hashlib.sha256(_ENTRY_DOMAIN + canonical_json(plain)).hexdigest() != entry.hash:
        raise VerificationError("the hash does not match the content")
    return entry


def admission_statement(ledger_key: str, scope: str, site: str) -> bytes:
    """What a kit signs to be admitted to a shared ledger; ``ledger_key`` in hex."""
    return b"fedcart/ledger-admission/1\0" + canonical_json([ledger_key, scope, site])


def verify_entry_signature(entry: Entry, public_key: bytes) -> None:
    """Return if the site signed this entry. Raises: VerificationError."""
    verify_signature(public_key, _SIGNATURE_DOMAIN + bytes.fromhex(entry.hash), bytes.fromhex(entry.signature))


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Complete lines without their ends, and the torn rest after the last end of line."""
    *lines, rest = data.split(b"\n")
    return lines, rest
