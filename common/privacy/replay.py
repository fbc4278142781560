"""What a ledger says: ``Replay`` folds its entries into what is spent: COMMITs, FORFEITs, open RESERVEs and CHARGEs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from common.errors import VerificationError
from common.privacy.entries import (
    FIRST_PREVIOUS,
    Admit,
    Body,
    Charge,
    Commit,
    Entry,
    Forfeit,
    Open,
    Reserve,
    Void,
    admission_statement,
    parse_line,
    verify_entry_signature,
)
from common.privacy.mechanism import HOLDOUT_SIDE, VALIDATION_SIDE, Losses
from common.trust import verify_signature


@dataclass
class Reservation:
    """What happened to one RESERVE. ``state``: open, committed, forfeit or void; ``outbox`` after a COMMIT.

    ``reason``: why it is void or forfeit.
    """

    sequence: int
    hash: str
    time: str
    body: Reserve
    state: str = "open"
    outbox: str = ""
    reason: str = ""


@dataclass
class Replay:
    """What a ledger says after the entries applied so far.

    ``split``: (share held out, digest of the key, share of those by whom runs choose) of all reservations, None before the first. ``order``: the Rényi order
    fixed before the first release. ``planned``: digests of the runs' settings that were reserved before anything was
    released; ``late``: reservations of other runs, which may have been chosen after seeing a model.
    ``admitted``: public key -> site of every kit of a shared ledger; ``absorbed``: public key of a former ledger (of an older
    entry: its site) -> its last entry that is charged here. ``hashes`` holds nothing for numbers that were left out.
    Guarantee: ``spent`` counts every COMMIT, every RESERVE that is not void, and every CHARGE; an entry
    that breaks a rule raises and changes nothing.
    """

    header: Open | None = None
    first_sequence: int = 0
    first_previous: str = FIRST_PREVIOUS
    hashes: list[str] = field(default_factory=list)
    reservations: dict[int, Reservation] = field(default_factory=dict)
    carried: Losses = field(default_factory=Losses)
    charges: list[Charge] = field(default_factory=list)
    spent: Losses = field(default_factory=Losses)
    split: tuple[float, str, float] | None = None
    order: float | None = None
    released_any: bool = False
    carried_adaptive: bool = False
    planned: set[str] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    admitted: dict[str, str] = field(default_factory=dict)
    absorbed: dict[str, int] = field(default_factory=dict)

    @property
    def adaptive_order(self) -> float | None:
        """The order at which this scope must be accounted for; None while all was planned before the first release."""
        return self.order if self.late or self.carried_adaptive else None

    def order_with(self, config: str, order: float) -> float | None:
        """As ``adaptive_order``, if a run of these settings reserved now; ``order``: what would be fixed if none is."""
        chosen = self.order or order
        return chosen if self.late or self.carried_adaptive or self._is_late(config) else None

    def _is_late(self, config: str) -> bool:
        """After the first release only the one run that was planned goes on as planned: which of two does is a choice."""
        return self.released_any and self.planned != {config}

    @property
    def sequence(self) -> int:
        """The sequence number of the next entry."""
        return self.first_sequence + len(self.hashes)

    @property
    def head(self) -> str:
        """The hash of the last entry, hex."""
        return self.hashes[-1] if self.hashes else self.first_previous

    def hash_at(self, sequence: int) -> str | None:
        """The hash of an entry of this ledger, or of the one just before it began."""
        if sequence == self.first_sequence - 1:
            return self.first_previous
        index = sequence - self.first_sequence
        return self.hashes[index] or None if 0 <= index < len(self.hashes) else None

    @property
    def entries(self) -> int:
        """How many entries there are."""
        return sum(map(bool, self.hashes))

    def sequence_of(self, body: Body) -> int:
        """The sequence number that an entry gets: one that takes over a former ledger comes after all of its entries."""
        return max(self.sequence, body.until + 1) if isinstance(body, Charge) and body.key else self.sequence

    def is_of_former(self, key: str, site: str, sequence: int) -> bool:
        """Whether an entry, as a kit has attested it, is one of its former ledger, which is charged here."""
        return sequence <= max(self.absorbed.get(key, -1), self.absorbed.get(site, -1))

    def former(self, key: str) -> list[Charge]:
        """What was charged here for ledgers that this key has signed."""
        return [charge for charge in self.charges if charge.key == key]

    def apply(self, entry: Entry) -> None:
        """Take in the next entry. Raises: VerificationError if it does not follow."""
        if self.header is None:
            self._apply_header(entry)
        elif entry.sequence not in (self.sequence, self.sequence_of(entry.body)):
            raise VerificationError(f"sequence is {entry.sequence}, expected {self.sequence}: an entry is missing")
        elif entry.previous != self.head:
            raise VerificationError("does not follow the entry before it: the chain is broken")
        elif len(self.hashes) == 1 and self.first_sequence and not isinstance(entry.body, Charge):
            raise VerificationError("a ledger that continues another must begin with a charge")
        else:
            self._apply_body(entry)
            self.hashes += [""] * (entry.sequence - self.sequence)
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
            case Admit():
                self._admit(entry.body)
            case Charge():
                self._check_order(entry.body.order)
                if entry.body.holdout is not None:
                    self._bind_split(entry.body.holdout, entry.body.split_key, entry.body.validation)
                self._take_over_plans(entry.body)
                self.charges.append(entry.body)
                self._charge(Losses.of(entry.body.events))
                if self.split is not None and self.split[2]:
                    self._charge(_of_validation(entry.body))
                self.order = self.order or entry.body.order
                if entry.body.site:
                    self.absorbed[entry.body.key or entry.body.site] = entry.body.until
            case Reserve():
                self._check_source(entry.body)
                self._check_order(entry.body.order, charged=bool(entry.body.events))
                self._check_kit(entry.body)
                self._bind_split(entry.body.holdout, entry.body.split_key, entry.body.validation)
                self.reservations[entry.sequence] = Reservation(entry.sequence, entry.hash, entry.time, entry.body)
                self.spent += Losses.of(entry.body.events)
                self._plan(entry.sequence, entry.body)
            case Commit():
                reservation = self._open_reservation(entry.body.reserve)
                reservation.state, reservation.outbox = "committed", entry.body.outbox
                self.released_any |= bool(reservation.body.events)
            case Void():
                reservation = self._open_reservation(entry.body.reserve)
                reservation.state, reservation.reason = "void", entry.body.reason
                self.spent -= Losses.of(reservation.body.events)
                self.late.discard(reservation.sequence)
                self._forget_plan(reservation.body.config)
            case Forfeit():
                reservation = self._open_reservation(entry.body.reserve)
                reservation.state, reservation.reason = "forfeit", entry.body.reason
                self.released_any |= bool(reservation.body.events)

    def _take_over_plans(self, body: Charge) -> None:
        """What was charged elsewhere was released there; two accounts that meet were not planned together."""
        if body.adaptive or self.spent:
            self.carried_adaptive = True
        elif not self.released_any:
            self.planned |= set(body.planned)
        self.released_any = True

    def _plan(self, sequence: int, body: Reserve) -> None:
        if not body.events:
            return
        self.order = self.order or body.order
        if self._is_late(body.config):
            self.late.add(sequence)
        elif not self.released_any:
            self.planned.add(body.config)

    def _forget_plan(self, config: str) -> None:
        """A run of which everything was given back before anything was released was not begun."""
        begun = any(r.body.config == config and r.state != "void" for r in self.reservations.values())
        if not self.released_any and not begun:
            self.planned.discard(config)

    def _check_order(self, order: float | None, *, charged: bool = False) -> None:
        if order is not None and self.order is not None:
            raise VerificationError("fixes the order at which this scope is accounted for a second time")
        if charged and order is None and self.order is None:
            raise VerificationError("does not fix the order at which this scope is accounted for")

    def _check_source(self, body: Reserve) -> None:
        """Post-processing names what it is made of: a release of the same run that is charged and never voided."""
        if body.source is None:
            if not body.events:
                raise VerificationError("says it costs nothing and does not name the release it is made from")
            return
        origin = self.reservations.get(body.source)
        if body.events or origin is None or origin.state != "committed" or not origin.body.events:
            raise VerificationError(
                f"says it is post-processing of entry {body.source}, which is no charged release"
            )
        if (origin.body.run, origin.body.config, origin.body.by) != (body.run, body.config, body.by):
            raise VerificationError(f"says it is post-processing of entry {body.source}, which is of another run")

    def released(self, run: str, config: str, by: str = "") -> Reservation | None:
        """The newest charged release of a run that left this kit, from which more may be computed without a charge."""
        asked = (run, config, by)
        candidates = (r for r in self.reservations.values() if (r.body.run, r.body.config, r.body.by) == asked)
        return max(
            (r for r in candidates if r.state == "committed" and r.body.events),
            key=lambda r: r.sequence,
            default=None,
        )

    def _admit(self, body: Admit) -> None:
        header = self.header
        assert header is not None
        if not header.shared:
            raise VerificationError("admits a kit to a ledger that is one site's own")
        statement = admission_statement(header.public_key, header.scope, body.site)
        verify_signature(bytes.fromhex(body.public_key), statement, bytes.fromhex(body.signature))
        self.admitted[body.public_key] = body.site

    def _check_kit(self, body: Reserve) -> None:
        header = self.header
        assert header is not None
        if header.shared and body.by not in self.admitted:
            raise VerificationError("is of a kit that this ledger has not admitted")
        if body.by and not header.shared:
            raise VerificationError("names a kit in a ledger that is one site's own")

    def _charge(self, losses: Losses) -> None:
        self.carried += losses
        self.spent += losses

    def _bind_split(self, holdout: float, split_key: str, validation: float) -> None:
        split = (holdout, split_key, validation)
        if self.split not in (None, split):
            raise VerificationError("the hold-out is not the one of the entries before: consumers changed sides")
        if self.split is None and validation:
            for charge in self.charges:
                self._charge(_of_validation(charge))
        self.split = split

    def _open_reservation(self, sequence: int) -> Reservation:
        reservation = self.reservations.get(sequence)
        if reservation is None or reservation.state != "open":
            raise VerificationError(f"entry {sequence} is not an open reservation")
        return reservation

    def runs(self, by: str = "") -> list[str]:
        """Every run that has a reservation of this kit, in the order of their first."""
        return list(dict.fromkeys(r.body.run for r in self.reservations.values() if r.body.by == by))

    def of_run(self, run: str, by: str = "") -> list[Reservation]:
        """The reservations of a run that this kit made, oldest first; ``by``: its public key, in a shared ledger."""
        return [r for r in self.reservations.values() if (r.body.run, r.body.by) == (run, by)]

    def charged_for(self, config: str, by: str = "") -> Losses:
        """What the run of these settings was charged by this kit."""
        mine = (r for r in self.reservations.values() if (r.body.config, r.body.by) == (config, by))
        return Losses.of(event for r in mine if r.state != "void" for event in r.body.events)

    def count(self, run: str, state: str, reason: str = "", *, by: str = "") -> int:
        """How many reservations of a run of this kit are in a state, for a reason."""
        mine = (r for r in self.of_run(run, by) if r.state == state)
        return sum(not reason or r.reason == reason for r in mine)

    def open_reservations(self) -> list[Reservation]:
        """The RESERVEs that are neither committed, forfeit nor void, oldest first."""
        return [r for r in self.reservations.values() if r.state == "open"]


def _of_validation(charge: Charge) -> Losses:
    """What a charge that knows two sides only means for consumers by whom runs choose now: they were held out then."""
    if charge.holdout is not None or any(event.sub_scope == VALIDATION_SIDE for event in charge.events):
        return Losses()
    held = [event for event in charge.events if event.sub_scope == HOLDOUT_SIDE]
    return Losses.of(replace(event, sub_scope=VALIDATION_SIDE) for event in held)


def replay_lines(lines: Iterable[bytes], public_key: bytes | None = None) -> Iterator[tuple[int, Entry, Replay]]:
    """Check and fold lines one by one; yields (line number, entry, state after it).

    With ``public_key`` every signature is checked, else only form, hashes and rules.
    Raises: VerificationError naming the line.
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
