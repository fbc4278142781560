"""The ledger's format: one canonical JSON line per entry, chained by SHA-256, signed by the site.

A line is ``{body, hash, previous, sequence, signature, time}`` with sorted keys and no spaces. ``hash``
covers everything but itself and the signature, ``previous`` is the hash of the line before. A line that
is not byte for byte the canonical form of what it says is refused, so every byte is under the chain.

``Replay`` folds entries into what is spent: COMMITs, FORFEITs, open RESERVEs and CHARGEs.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.errors import VerificationError
from common.privacy.mechanism import SUB_SCOPES, PrivacyEvent
from common.trust.identity import Identity, verify_signature

FORMAT: Literal[1] = 1
FIRST_PREVIOUS = hashlib.sha256(b"fedcart/ledger-start/1").hexdigest()
_ENTRY_DOMAIN = b"fedcart/ledger-entry/1\0"
_SIGNATURE_DOMAIN = b"fedcart/ledger-signature/1\0"

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0)]
Totals: TypeAlias = Counter[tuple[str, float, float]]  # (sub-scope, sampling rate, noise multiplier) -> steps


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Open(_Body):
    """The first entry: whose ledger, for which consumers, under which constants."""

    kind: Literal["open"] = "open"
    format: Literal[1] = FORMAT
    site: Name
    scope: Name
    delta: Annotated[float, Field(gt=0, lt=1)]
    public_key: Hex32
    unit: Literal["consumer"] = "consumer"
    relation: Literal["add-or-remove-one"] = "add-or-remove-one"
    simulated: bool


class Charge(_Body):
    """Spent before this ledger began, by the site's own attestations: written by ``site recover``."""

    kind: Literal["charge"] = "charge"
    events: tuple[PrivacyEvent, ...]
    reason: Name


class Reserve(_Body):
    """A release that is about to be computed. Counts as spent until it is voided.

    ``holdout`` and ``split_key`` (SHA-256 of the site's own key) say who is held out. The first RESERVE of a
    ledger fixes them: charging two disjoint parts apart is true only while no consumer changes sides.

    ``source`` names the committed RESERVE of which this release is post-processing: it reads nothing else, and has
    no events of its own, because that one was charged for good.
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
    split_key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    source: Count | None = None


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
    """The reserved contribution failed, and the failure itself was answered: charged for ever, nothing to send."""

    kind: Literal["forfeit"] = "forfeit"
    reserve: Count


Body: TypeAlias = Open | Charge | Reserve | Commit | Void | Forfeit


class Entry(_Body):
    """One line of a ledger. **Units** ``time``: UTC, seconds."""

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

    **Raises** VerificationError naming what is wrong.
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


def verify_entry_signature(entry: Entry, public_key: bytes) -> None:
    """Return if the site signed this entry. **Raises** VerificationError."""
    verify_signature(public_key, _SIGNATURE_DOMAIN + bytes.fromhex(entry.hash), bytes.fromhex(entry.signature))


def on_both_sides(totals: Totals) -> Totals:
    """What every consumer may have lost where it is unknown who was held out: all of it, in every sub-scope."""
    sides: Totals = Counter()
    for (_, rate, sigma), steps in totals.items():
        for sub_scope in SUB_SCOPES:
            sides[sub_scope, rate, sigma] += steps
    return sides


def count_events(events: Iterable[PrivacyEvent]) -> Totals:
    """Sum the steps of events that cost the same."""
    totals: Totals = Counter()
    for event in events:
        if event.steps:
            totals[event.sub_scope, event.sampling_rate, event.noise_multiplier] += event.steps
    return totals


def as_events(totals: Totals) -> tuple[PrivacyEvent, ...]:
    """The totals as events, in a fixed order."""
    return tuple(PrivacyEvent(sigma, rate, n, sub) for (sub, rate, sigma), n in sorted(totals.items()) if n)


@dataclass
class Reservation:
    """What happened to one RESERVE. ``state``: open, committed, forfeit or void; ``outbox`` after a COMMIT."""

    sequence: int
    hash: str
    time: str
    body: Reserve
    state: str = "open"
    outbox: str = ""


@dataclass
class Replay:
    """What a ledger says after the entries applied so far.

    ``split``: (share held out, digest of the key) of all reservations, None before the first.
    **Guarantee** ``spent`` counts every COMMIT, every RESERVE that is not void, and every CHARGE; an entry
    that breaks a rule raises and changes nothing.
    """

    header: Open | None = None
    first_sequence: int = 0
    first_previous: str = FIRST_PREVIOUS
    hashes: list[str] = field(default_factory=list)
    reservations: dict[int, Reservation] = field(default_factory=dict)
    carried: Totals = field(default_factory=Counter)
    spent: Totals = field(default_factory=Counter)
    split: tuple[float, str] | None = None

    @property
    def sequence(self) -> int:
        """The sequence number of the next entry."""
        return self.first_sequence + len(self.hashes)

    @property
    def head(self) -> str:
        """The hash of the last entry, hex."""
        return self.hashes[-1] if self.hashes else self.first_previous

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        """What is spent, as events in a fixed order."""
        return as_events(self.spent)

    def hash_at(self, sequence: int) -> str | None:
        """The hash of an entry of this ledger, or of the one just before it began."""
        if sequence == self.first_sequence - 1:
            return self.first_previous
        index = sequence - self.first_sequence
        return self.hashes[index] if 0 <= index < len(self.hashes) else None

    def apply(self, entry: Entry) -> None:
        """Take in the next entry. **Raises** VerificationError if it does not follow."""
        if self.header is None:
            self._apply_header(entry)
        elif entry.sequence != self.sequence:
            raise VerificationError(f"sequence is {entry.sequence}, expected {self.sequence}: an entry is missing")
        elif entry.previous != self.head:
            raise VerificationError("does not follow the entry before it: the chain is broken")
        elif len(self.hashes) == 1 and self.first_sequence and not isinstance(entry.body, Charge):
            raise VerificationError("a ledger that continues another must begin with a charge")
        else:
            self._apply_body(entry)
        self.hashes.append(entry.hash)

    def _apply_header(self, entry: Entry) -> None:
        if not isinstance(entry.body, Open):
            raise VerificationError("the first entry must open the ledger")
        if entry.sequence == 0 and entry.previous != FIRST_PREVIOUS:
            raise VerificationError("the first entry does not begin a chain")
        self.header, self.first_sequence, self.first_previous = entry.body, entry.sequence, entry.previous

    def _apply_body(self, entry: Entry) -> None:
        match entry.body:
            case Open():
                raise VerificationError("a ledger is opened once")
            case Charge():
                self.carried += count_events(entry.body.events)
                self.spent += count_events(entry.body.events)
            case Reserve():
                self._check_source(entry.body)
                self._bind_split(entry.body)
                self.reservations[entry.sequence] = Reservation(entry.sequence, entry.hash, entry.time, entry.body)
                self.spent += count_events(entry.body.events)
            case Commit():
                reservation = self._open_reservation(entry.body.reserve)
                reservation.state, reservation.outbox = "committed", entry.body.outbox
            case Void():
                reservation = self._open_reservation(entry.body.reserve)
                reservation.state = "void"
                self.spent -= count_events(reservation.body.events)
            case Forfeit():
                self._open_reservation(entry.body.reserve).state = "forfeit"

    def _check_source(self, body: Reserve) -> None:
        """Post-processing names what it is made of: a release of the same run that is charged and never voided."""
        if body.source is None:
            if not body.events:
                raise VerificationError("says it costs nothing and does not name the release it is made from")
            return
        found = self.reservations.get(body.source)
        if body.events or found is None or found.state != "committed" or not found.body.events:
            raise VerificationError(
                f"says it is post-processing of entry {body.source}, which is no charged release"
            )
        if (found.body.run, found.body.config) != (body.run, body.config):
            raise VerificationError(f"says it is post-processing of entry {body.source}, which is of another run")

    def released(self, run: str, config: str) -> Reservation | None:
        """The newest charged release of a run that left, from which more may be computed without a charge."""
        found = (r for r in self.reservations.values() if (r.body.run, r.body.config) == (run, config))
        return max(
            (r for r in found if r.state == "committed" and r.body.events), key=lambda r: r.sequence, default=None
        )

    def _bind_split(self, body: Reserve) -> None:
        split = (body.holdout, body.split_key)
        if self.split not in (None, split):
            raise VerificationError("the hold-out is not the one of the entries before: consumers changed sides")
        self.split = split

    def _open_reservation(self, sequence: int) -> Reservation:
        reservation = self.reservations.get(sequence)
        if reservation is None or reservation.state != "open":
            raise VerificationError(f"entry {sequence} is not an open reservation")
        return reservation

    def open_reservations(self) -> list[Reservation]:
        """The RESERVEs that are neither committed, forfeit nor void, oldest first."""
        return [r for r in self.reservations.values() if r.state == "open"]


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Complete lines without their ends, and the torn rest after the last end of line."""
    *lines, rest = data.split(b"\n")
    return lines, rest


def replay_lines(lines: Iterable[bytes], public_key: bytes | None = None) -> Iterator[tuple[int, Entry, Replay]]:
    """Check and fold lines one by one; yields (line number, entry, state after it).

    With ``public_key`` every signature is checked, else only form, hashes and rules.
    **Raises** VerificationError naming the line.
    """
    state = Replay()
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_line(line)
            state.apply(entry)
            if public_key is not None:
                verify_entry_signature(entry, public_key)
        except VerificationError as error:
            raise VerificationError(f"line {number}: {error.message}") from None
        yield number, entry, state
