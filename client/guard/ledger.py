"""The ledger file of a site: append-only, locked, durable before anything acts on it.

Every change is one ``transaction``: take the lock, read what other processes appended, decide, append.
No entry is ever rewritten. A torn last line was never acted upon, so it is removed; a line that is whole
but damaged refuses the ledger, because what it charged is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from client.guard.appendfile import HeldFile, ReadSoFar, hold
from client.guard.journal import has_released
from client.guard.outbox import replace_file
from client.guard.remains import Remains
from common.atomic import write_atomic
from common.errors import BadInputError, RollbackError, VerificationError, WorkFailedError
from common.privacy import (
    Admit,
    Body,
    Charge,
    Head,
    Open,
    Replay,
    Reservation,
    SignedAttestation,
    SignedHead,
    admission_statement,
    anchor_of,
    canonical_json,
    make_line,
    parse_line,
    read_head,
    split_lines,
    verify_entry_signature,
)
from common.trust import Identity

RECOVER_HINT = "restore the newest copy of the ledger, or write it off: `fedcart site recover`"


class Ledger:
    """A site's durable, signed list of reservations and releases, shared by all its processes.

    Guarantee: when ``append`` returns, the entry is on disk (except ``simulated`` ledgers, which survive
    a killed process but not a power cut).
    """

    def __init__(self, path: Path, identity: Identity, copy: Path | None = None) -> None:
        """``copy``: where a kit keeps the signed end of a ledger that lies outside of it."""
        self.path, self._copy = path, copy
        self._identity = identity
        self._state = Replay()
        self._read = ReadSoFar()
        self._file: HeldFile | None = None

    def __repr__(self) -> str:
        return f"Ledger({self._identity.name}, {self._state.sequence} entries)"

    @property
    def state(self) -> Replay:
        """What the ledger said at the end of the last transaction."""
        return self._state

    def open(self, *, scope: str, delta: float, simulated: bool, shared: bool = False) -> None:
        """Read the ledger, or make it if there never was one; ``shared``: by a key of its own, for several kits.

        Raises: BadInputError if it belongs to another site, scope or delta; VerificationError if damaged;
        RollbackError if it is shorter than its anchor says, or gone.
        """
        header = self._header(scope, delta, simulated, shared)
        self._prepare_folder()
        with self.transaction():
            self._refuse_other_account()
            if self._state.header is None:
                self._refuse_second_beginning()
                self.append(header)
            self._check_header(header)
            self.refuse_rollback(None)
            if not all(path.exists() for path in self._anchors()):
                self.renew_anchor()

    def recover(self, lost: Remains, *, scope: str, delta: float, simulated: bool) -> None:
        """Begin a new ledger that goes on where the lost one ended, and charges on both sides all that it had.

        The old file, if any, must have been moved away. Who was held out is decided anew, so every old event
        counts for every consumer. Raises: BadInputError, WorkFailedError (disk).
        """
        if self.path.exists() and self.path.stat().st_size:
            raise BadInputError(f"{self.path} exists", hint="move it away first, and keep it as evidence")
        charged = lost.losses.on_every_side().events
        header = self._header(scope, delta, simulated)
        charge = Charge(
            events=charged,
            reason=f"recovered after entry {lost.sequence}",
            order=lost.order,
            adaptive=lost.adaptive,
        )
        opening = self._line(header, lost.sequence + 1, lost.head)
        charging = self._line(charge, lost.sequence + 2, parse_line(opening[:-1]).hash)
        self._prepare_folder()
        write_atomic(self.path, opening + charging, mode=0o600)  # both or none: an uncharged ledger is never seen
        with self.transaction():
            self._check_header(header)
            self.renew_anchor()

    def _prepare_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise WorkFailedError(f"cannot make {self.path.parent}: {error.strerror}") from None

    def _header(self, scope: str, delta: float, simulated: bool, shared: bool = False) -> Open:
        key = self._identity.public_key.hex()
        return Open(
            site=self._identity.name, scope=scope, delta=delta, public_key=key, simulated=simulated, shared=shared
        )

    def admit(self, kit: Identity) -> None:
        """Let a kit reserve from this shared ledger, if it may not yet."""
        with self.transaction() as state:
            if state.header is None or kit.public_key.hex() in state.admitted:
                return
            statement = admission_statement(state.header.public_key, state.header.scope, kit.name)
            self.append(Admit(site=kit.name, public_key=kit.public_key.hex(), signature=kit.sign(statement).hex()))
            self.renew_anchor()

    def _check_header(self, expected: Open) -> None:
        header = self._state.header
        assert header is not None
        for name in ("site", "scope", "delta", "public_key", "simulated", "shared"):
            actual, wanted = getattr(header, name), getattr(expected, name)
            if actual != wanted:
                raise BadInputError(
                    f"{self.path.name} was opened with {name} {actual}, now {name} is {wanted}",
                    hint="these are fixed when a ledger is made: another scope needs another state folder",
                )

    @contextmanager
    def transaction(self) -> Iterator[Replay]:
        """Hold the ledger's lock and yield its current state. ``append`` works inside only.

        Raises: VerificationError if the ledger is damaged, WorkFailedError if the disk fails.
        """
        if self._file is not None:
            raise WorkFailedError("a transaction on this ledger is under way")
        with hold(self.path) as file:
            self._file = file
            try:
                self._catch_up(file)
                yield self._state
            finally:
                self._file = None

    def append(self, body: Body) -> int:
        """Append one entry durably and return its sequence number.

        Raises: WorkFailedError if it may not be on disk; then nothing may act on it.
        """
        sequence = self._state.sequence_of(body)
        line = make_line(body, sequence=sequence, previous=self._state.head, time=_now(), identity=self._identity)
        header = body if isinstance(body, Open) else self._state.header
        entry = parse_line(line[:-1])
        self._state.apply(entry)  # before the write: an entry that breaks a rule must not reach the file
        self._write(line, durable=not (header and header.simulated))
        return sequence

    def _line(self, body: Body, sequence: int, previous: str) -> bytes:
        return make_line(body, sequence=sequence, previous=previous, time=_now(), identity=self._identity)

    def _write(self, line: bytes, *, durable: bool) -> None:
        if self._file is None:
            raise WorkFailedError("an entry can be appended only inside a transaction")
        end, self._read = (
            self._read.offset + len(line),
            ReadSoFar(),
        )  # if it fails: read everything again next time
        self._file.append(line, durable=durable)
        self._read = self._file.read_up_to(end)

    def _catch_up(self, file: HeldFile) -> None:
        """Read what was appended since the last transaction, by this process or another."""
        if not file.holds(self._read):
            self._state, self._read = Replay(), ReadSoFar()
        data = file.read_from(self._read.offset)
        begin, self._read = self._read.offset, ReadSoFar()
        lines, rest = split_lines(data)
        end = begin + len(data) - len(rest)
        if rest and _is_whole(rest):  # whole but for its end
            file.append(b"\n", durable=True)
            lines, end = [*lines, rest], end + len(rest) + 1
        elif rest:
            file.cut(end)  # never acted upon
        self._take_in(lines)
        self._read = file.read_up_to(end)

    def _take_in(self, lines: list[bytes]) -> None:
        entry = None
        for line in lines:
            try:
                entry = parse_line(line)
                self._state.apply(entry)
            except VerificationError as error:
                number = self._state.entries + 1
                raise VerificationError(
                    f"{self.path}, line {number}: {error.message}", hint=RECOVER_HINT
                ) from None
        if entry is not None:  # its signature covers everything before it, through the chain
            try:
                verify_entry_signature(entry, self._identity.public_key)
            except VerificationError as error:
                raise VerificationError(f"{self.path}, last line: {error.message}", hint=RECOVER_HINT) from None

    def refuse_rollback(self, echoed: SignedAttestation | None, kit: Identity | None = None) -> None:
        """Return if this ledger contains its own anchor, and what the server echoes. Inside a transaction.

        ``kit``: who attests, where the ledger is shared.

        Raises: RollbackError; VerificationError if this site signed the anchor or the echo not.
        """
        for path in self._anchors():
            if path.exists():
                anchor = _verified(path, self._identity.public_key)
                if not self._concerns(anchor.site, anchor.scope):
                    raise VerificationError(f"{path.name} is of another ledger", hint=RECOVER_HINT)
                self._must_contain(anchor.sequence, anchor.head)
        if echoed is not None:
            key, said = (kit or self._identity).public_key, echoed.attestation
            echoed.verify(key)
            former = self._state.is_of_former(key.hex(), said.site, said.sequence)
            if not former and self._concerns(said.site, said.scope):
                self._must_contain(said.sequence, said.head)

    def _concerns(self, site: str, scope: str) -> bool:
        header = self._state.header
        if header is None:
            return True
        return scope == header.scope and site in {header.site, *self._state.admitted.values()}

    def _must_contain(self, sequence: int, head: str) -> None:
        if sequence < self._state.first_sequence - 1:
            return  # before a recovery, which charged a later entry than this one
        if self._state.hash_at(sequence) != head:
            raise RollbackError(
                f"the ledger has {self._state.entries} entries and does not contain entry {sequence}, "
                "which this site has signed",
                hint=RECOVER_HINT,
            )

    def _refuse_second_beginning(self) -> None:
        """What lies beside a ledger shows that there was one, even when the file itself is gone."""
        folder, journal = self.path.parent, self.path.with_name("journal.jsonl")
        traces = [self.anchor_path] if self.anchor_path.exists() else []
        traces += sorted(folder.glob(f"{self.path.stem}.lost-*{self.path.suffix}"))
        traces += [journal] if has_released(journal) else []
        traces += [moved] if (moved := self.path.with_name(f"moved-{self.path.name}")).exists() else []
        if traces:
            raise RollbackError(
                f"there is no entry in {self.path.name}, but {traces[0].name} shows that there was a ledger",
                hint=RECOVER_HINT,
            )

    def _refuse_other_account(self) -> None:
        """A kit that has answered from one shared ledger answers from no other: there it might have spent nothing yet."""
        if self._copy is None or not self._copy.exists():
            return
        try:
            read_head(self._copy).verify(self._identity.public_key)
        except VerificationError:
            raise RollbackError(
                f"{self.path} is not the shared ledger that this kit has used until now",
                hint="set ledger and scope in site.toml as they were: the same consumers have one account",
            ) from None

    @property
    def anchor_path(self) -> Path:
        """The signed end of the chain beside the ledger, renewed at every reservation and what becomes of it."""
        return anchor_of(self.path)

    def renew_anchor(self) -> None:
        """Write the signed end of the chain beside the ledger, so that a cut tail is found. Inside a transaction."""
        header = self._state.header
        data = canonical_json(self.signed_head().to_json()) + b"\n"
        for path in self._anchors():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(path, data, durable=not (header and header.simulated))

    def _anchors(self) -> list[Path]:
        """The signed end of the chain: beside the ledger, and in the kit that uses a shared one."""
        return [self.anchor_path, *([self._copy] if self._copy else [])]

    def reservation(self, sequence: int) -> Reservation | None:
        """What happened to the RESERVE with this sequence number, as of the last transaction."""
        return self._state.reservations.get(sequence)

    def signed_head(self) -> SignedHead:
        """The end of the chain, signed: the tail anchor to keep beside a copy of the ledger."""
        header = self._state.header
        if header is None:
            raise WorkFailedError("the ledger is not open")
        head = Head(
            header.site,
            header.scope,
            self._state.sequence - 1,
            self._state.head,
            header.simulated,
            self._state.spent.events,
            self._state.order,
            self._state.adaptive_order is not None,
        )
        return SignedHead.sign(head, self._identity)


def _verified(path: Path, public_key: bytes) -> Head:
    try:
        signed = read_head(path)
        signed.verify(public_key)
    except VerificationError as error:
        raise VerificationError(f"{path.name}: {error.message}", hint=RECOVER_HINT) from None
    return signed.head


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_whole(line: bytes) -> bool:
    try:
        parse_line(line)
    except VerificationError:
        return False
    return True
