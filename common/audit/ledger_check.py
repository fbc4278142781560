"""One ledger file, checked offline: form, hash, chain, signature and rules of every line, the signed end of the chain, and
every attestation that speaks of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from common.audit.verdict import Finding, LedgerReport, VerifyReport
from common.errors import BadInputError, FedcartError, VerificationError
from common.privacy import (
    FINE,
    Open,
    PldAccountant,
    PrivacyEvent,
    RdpAccountant,
    Replay,
    ScopeAccountant,
    SignedAttestation,
    anchor_of,
    read_head,
    replay_lines,
    split_lines,
)
from common.run import LEDGERS
from common.trust import Roster


@dataclass
class LedgerCheck:
    """Checks of one ledger file; stops at its first bad line."""

    file: Path
    verdict: VerifyReport
    roster: Roster | None
    attested: tuple[SignedAttestation, ...] = ()
    every_round: bool = False
    state: Replay | None = None

    def run(self) -> None:
        """Check everything; what does not hold is in the verdict, and nothing is raised."""
        try:
            self._run()
        except FedcartError as error:
            self._problem(error.message)
        except OSError as error:
            self._problem(f"cannot be read: {error.strerror}")

    def _problem(self, what: str) -> None:
        where, _, rest = what.partition(": ") if what.startswith("line ") else ("", "", what)
        self.verdict.findings.append(Finding(f"{self.file.name}{', ' + where if where else ''}", rest))

    def _run(self) -> None:
        lines, torn = split_lines(self.file.read_bytes())
        if not lines:
            raise VerificationError("line 1: there is no complete entry")
        key, pinned = self._public_key(lines[0])
        by_sequence: dict[int, list[SignedAttestation]] = {}
        for signed in self.attested:
            by_sequence.setdefault(signed.attestation.sequence, []).append(signed)
        state = Replay()
        for number, entry, state in replay_lines(lines, key):
            for signed in by_sequence.pop(entry.sequence, []) if self._may_be_of(state) else ():
                _compare(number, signed, state)
        for sequence in sorted(by_sequence):
            if sequence >= state.first_sequence and not state.is_of_former(*self._who(), sequence):
                raise VerificationError(
                    f"line {len(lines)}: the tail is cut: the last entry is {state.sequence - 1}, "
                    f"the site attested entry {sequence}"
                )
        self._check_anchor(state, key, torn, len(lines))
        self._report(state, pinned)
        self.state = state

    def _who(self) -> tuple[str, str]:
        """Public key (hex, empty without a roster) and name of the site whose attestations are compared."""
        site = self.attested[0].attestation.site if self.attested else ""
        return (self.roster.party(site).public_key.hex() if self.roster and site else ""), site

    def _may_be_of(self, state: Replay) -> bool:
        """Whether what was attested can be about this ledger: before a kit is admitted, it speaks of its former one."""
        key, _ = self._who()
        return not key or state.header is None or not state.header.shared or key in state.admitted

    def _public_key(self, first_line: bytes) -> tuple[bytes, bool]:
        """The key that must have signed, and whether it is pinned from outside the ledger."""
        (_, entry, _), *_ = replay_lines([first_line])
        header = entry.body
        assert isinstance(header, Open)  # Replay accepts no other first entry
        claimed = bytes.fromhex(header.public_key)
        if (
            self.roster is None or header.shared
        ):  # a shared ledger's own key: `_report` looks for the kits it admits
            return claimed, False
        pinned = self.roster.party(header.site).public_key
        if claimed != pinned:
            raise VerificationError(f"line 1: the ledger names another key than the roster pins for {header.site}")
        return pinned, True

    def _check_anchor(self, state: Replay, key: bytes, torn: bytes, lines: int) -> None:
        path = anchor_of(self.file)
        if not path.exists():
            if self.roster is not None:
                raise VerificationError(f"{path.name} is missing: a cut tail could not be seen")
            if torn:
                raise VerificationError(f"line {lines + 1}: torn, {len(torn)} bytes without an end of line")
            self._note("no signed head beside it: a cut tail cannot be seen")
            return
        anchor = read_head(path)
        anchor.verify(key)
        said = anchor.head
        assert state.header is not None  # at least one line was applied
        if (said.site, said.scope) != (state.header.site, state.header.scope):
            raise VerificationError(f"{path.name} is of another ledger")
        if said.sequence >= state.sequence:
            raise VerificationError(
                f"line {lines}: the tail is cut: the last entry is {state.sequence - 1}, the site signed {said.sequence}"
            )
        if state.hash_at(said.sequence) != said.head:
            raise VerificationError(f"entry {said.sequence} is not the one whose head the site signed")
        if said.sequence < state.sequence - 1:
            self._note(f"{state.sequence - 1 - said.sequence} entries are later than the signed head")
        if torn:
            self._note(f"line {lines + 1} is torn and counts as never written; every signed entry is there")

    def _admits_a_party(self, state: Replay) -> bool:
        """Whether the ledger has admitted the very key that the roster pins for a site: that site has signed for it.

        Anybody can make a ledger under a key of his own, and call it what he likes: a coordinator admits none but sites.
        """
        assert self.roster is not None
        assert state.header is not None
        pinned = {party.public_key.hex(): party.name for party in self.roster.sites}
        admitted = {pinned[key] for key in state.admitted if key in pinned}
        if not admitted:
            raise VerificationError("no site of this roster was ever admitted to this ledger")
        if (name := state.header.site) in pinned.values() and name not in admitted:
            raise VerificationError(f"bears the name of {name}, which was never admitted to it")
        return True

    def _note(self, what: str) -> None:
        self.verdict.notes.append(Finding(self.file.name, what))

    def _report(self, state: Replay, pinned: bool) -> None:
        header = state.header
        assert header is not None  # at least one line was applied
        if header.shared and self.roster is not None:
            pinned = self._admits_a_party(state)
        if not pinned:
            self._note(f"the key of {header.site} is the one that the ledger names itself, not pinned by a roster")
        if self.file.parent.name == LEDGERS and self.file.name != f"{header.site}.jsonl":
            raise VerificationError(f"line 1: this is the ledger of {header.site}")
        if self.every_round and _disagree(state.spent.events, header.delta):
            self._note("the two accountants disagree more than they should; report this as a bug")
        reading = ScopeAccountant(state.spent, state.adaptive_order).reading(header.delta)
        count = state.entries
        self.verdict.ledgers.append(
            LedgerReport(header.site, header.scope, count, header.delta, header.simulated, reading, pinned)
        )


def _compare(number: int, signed: SignedAttestation, state: Replay) -> None:
    """An attestation against the ledger as it was when it was given."""
    said = signed.attestation
    if state.head != said.head:
        raise VerificationError(f"line {number}: not the entry that the site attested in round {said.round}")
    if state.spent.events != said.totals:
        raise VerificationError(f"line {number}: the site attested other totals in round {said.round}")
    if (state.order, state.adaptive_order) != (said.order, said.adaptive_order):
        raise VerificationError(f"line {number}: the site attested another way to add up in round {said.round}")
    header = state.header
    if header is None or header.delta != said.delta or header.scope != said.scope:
        raise VerificationError(f"line {number}: the site attested another scope or delta")
    asked = (said.run, said.round, said.query, said.events)
    if not any(
        (r.body.run, r.body.round, r.body.query, r.body.events) == asked for r in state.reservations.values()
    ):
        raise VerificationError(f"line {number}: no reservation for the attested round {said.round}")


@lru_cache(maxsize=64)
def _disagree(events: tuple[PrivacyEvent, ...], delta: float) -> bool:
    """Whether the loss distribution is worse than the Renyi bound, which it should never be."""
    rdp = RdpAccountant(events).epsilon(delta)
    return PldAccountant(events, discretization=FINE).epsilon(delta) > 1.02 * rdp + 1e-3


def sites_of(file: Path, roster: Roster | None) -> list[str]:
    """Whose ledger this is: the site in its first line, or of a shared one those of the roster that it has admitted."""
    try:
        *_, (_, _, state) = replay_lines(split_lines(file.read_bytes())[0])
        header = state.header
        assert header is not None  # at least one line was applied
        keys = {party.public_key.hex(): party.name for party in roster.parties} if roster else {}
        return [keys[key] for key in state.admitted if key in keys] if header.shared else [header.site]
    except (OSError, ValueError, FedcartError) as error:
        raise BadInputError(f"{file} is not a ledger: {error}", hint="name KIT/state/ledger.jsonl") from None
