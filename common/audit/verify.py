"""Offline verification of a run folder, a ledger, or a folder of ledgers. Needs no torch, opacus or flwr.

What is checked: every line of every ledger (form, hash, chain, signature, rules), the signed end of each
chain, every attestation in ``metrics.jsonl`` against the ledger it speaks of, the epsilon of the last
state by both accountants (on request of every round), and the aggregation evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from common.audit.records import Records, find_records
from common.errors import BadInputError, FedcartError, VerificationError
from common.privacy.accountant import FINE, PldAccountant, RdpAccountant, Reading, ScopeAccountant
from common.privacy.attestation import SignedAttestation, check_attestation, read_head
from common.privacy.entries import Open, Replay, as_events, replay_lines, split_lines
from common.privacy.mechanism import PrivacyEvent
from common.run.files import LEDGERS, METRICS_FILE, ROSTER_FILE, RunFolder
from common.run.records import RoundRecord
from common.trust.identity import Roster


@dataclass(frozen=True)
class Finding:
    """Something that does not hold: in which file, on which line, and what."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class LedgerReport:
    """What one intact ledger says. ``reading`` is recomputed from its events."""

    site: str
    scope: str
    entries: int
    delta: float
    simulated: bool
    reading: Reading
    pinned: bool


@dataclass
class VerifyReport:
    """Everything that was checked. ``ok`` if there are no problems; notes are no problems."""

    path: str
    ledgers: list[LedgerReport] = field(default_factory=list)
    attestations: int = 0
    evidence: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def raise_if_broken(self) -> None:
        """**Raises** VerificationError naming the first problem."""
        if self.findings:
            more = f" (and {len(self.findings) - 1} more)" if len(self.findings) > 1 else ""
            raise VerificationError(
                f"{self.findings[0]}{more}", hint="compare with another copy; do not trust the figures of this one"
            )


def verify_path(path: Path, *, every_round: bool = False, roster: Roster | None = None) -> VerifyReport:
    """Verify a run folder, a ledger file, a folder of ledgers, or a kit, with what lies beside it.

    ``roster`` pins the sites' keys from outside; without it the roster beside the records is used, and a ledger
    without one is checked against the key that it names itself.
    **Raises** BadInputError if there is nothing to verify.
    """
    records = find_records(path)
    if records.run is not None:
        return verify_run(records.run, every_round=every_round, roster=roster)
    report = VerifyReport(str(path))
    pinned = roster or _roster_beside(records, report)
    for file in records.ledgers:
        _LedgerCheck(file, report, pinned, every_round=every_round).run()
    return report


def _roster_beside(records: Records, report: VerifyReport) -> Roster | None:
    try:
        return records.roster
    except FedcartError as error:
        report.findings.append(Finding(ROSTER_FILE, error.message))
        return None


def verify_run(run: RunFolder, *, every_round: bool = False, roster: Roster | None = None) -> VerifyReport:
    """Verify everything in a run folder that can be verified offline. Nothing is raised for a damaged file."""
    verdict = VerifyReport(str(run.path))
    pinned = roster or _own_roster(run, verdict)
    records = _records(run, verdict)
    attested = _attested(records, verdict)
    checks = {}
    for file in sorted(run.ledgers.glob("*.jsonl")):
        site = file.name.removesuffix(".jsonl")
        checks[site] = _LedgerCheck(
            file, verdict, pinned, tuple(s for _, s in attested if s.attestation.site == site)
        )
        checks[site].run()
    if pinned is not None:
        _check_attestations(attested, pinned, verdict, every_round=every_round)
    _check_completeness(run, verdict, attested, set(checks))
    if pinned is not None:
        _check_evidence(run, pinned, records, verdict)
    return verdict


@dataclass
class _LedgerCheck:
    """Checks of one ledger file; stops at its first bad line."""

    file: Path
    verdict: VerifyReport
    roster: Roster | None
    attested: tuple[SignedAttestation, ...] = ()
    every_round: bool = False

    def run(self) -> None:
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
            for signed in by_sequence.pop(entry.sequence, []):
                _compare(number, signed, state)
        for sequence in sorted(by_sequence):
            if sequence >= state.first_sequence:
                raise VerificationError(
                    f"line {len(lines)}: the tail is cut: the last entry is {state.sequence - 1}, "
                    f"the site attested entry {sequence}"
                )
        self._check_anchor(state, key, torn, len(lines))
        self._report(state, pinned)

    def _public_key(self, first_line: bytes) -> tuple[bytes, bool]:
        """The key that must have signed, and whether it is pinned from outside the ledger."""
        (_, entry, _), *_ = replay_lines([first_line])
        header = entry.body
        assert isinstance(header, Open)  # Replay accepts no other first entry
        claimed = bytes.fromhex(header.public_key)
        if self.roster is None:
            return claimed, False
        pinned = self.roster.party(header.site).public_key
        if claimed != pinned:
            raise VerificationError(f"line 1: the ledger names another key than the roster pins for {header.site}")
        return pinned, True

    def _check_anchor(self, state: Replay, key: bytes, torn: bytes, lines: int) -> None:
        path = self.file.with_suffix(".head.json")
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

    def _note(self, what: str) -> None:
        self.verdict.notes.append(Finding(self.file.name, what))

    def _report(self, state: Replay, pinned: bool) -> None:
        header = state.header
        assert header is not None  # at least one line was applied
        if not pinned:
            self._note(f"the key of {header.site} is the one that the ledger names itself, not pinned by a roster")
        if self.file.parent.name == LEDGERS and self.file.name != f"{header.site}.jsonl":
            raise VerificationError(f"line 1: this is the ledger of {header.site}")
        if self.every_round and _disagree(state.events, header.delta):
            self._note("the two accountants disagree more than they should; report this as a bug")
        reading = ScopeAccountant(state.events).reading(header.delta)
        count = len(state.hashes)
        self.verdict.ledgers.append(
            LedgerReport(header.site, header.scope, count, header.delta, header.simulated, reading, pinned)
        )


def _compare(number: int, signed: SignedAttestation, state: Replay) -> None:
    """An attestation against the ledger as it was when it was given."""
    said = signed.attestation
    if state.head != said.head:
        raise VerificationError(f"line {number}: not the entry that the site attested in round {said.round}")
    if as_events(state.spent) != said.totals:
        raise VerificationError(f"line {number}: the site attested other totals in round {said.round}")
    header = state.header
    if header is None or header.delta != said.delta or header.scope != said.scope:
        raise VerificationError(f"line {number}: the site attested another scope or delta")
    asked = (said.run, said.round, said.query, said.events)
    if not any(
        (r.body.run, r.body.round, r.body.query, r.body.events) == asked for r in state.reservations.values()
    ):
        raise VerificationError(f"line {number}: no reservation for the attested round {said.round}")


def _own_roster(run: RunFolder, verdict: VerifyReport) -> Roster | None:
    if not run.has_roster and not any(run.ledgers.glob("*.jsonl")):
        return None
    try:
        return run.roster()
    except FedcartError as error:
        verdict.findings.append(Finding(ROSTER_FILE, error.message))
        return None


def _records(run: RunFolder, verdict: VerifyReport) -> list[RoundRecord]:
    try:
        return run.metrics()
    except FedcartError as error:
        verdict.findings.append(Finding(METRICS_FILE, error.message))
        return []


def _attested(records: list[RoundRecord], verdict: VerifyReport) -> list[tuple[int, SignedAttestation]]:
    """(line number, attestation) of every attestation in the records that can be read."""
    found = []
    for number, record in enumerate(records, start=1):
        where = f"{METRICS_FILE}, line {number}"
        for site, plain in sorted(record.attestations.items()):
            try:
                signed = SignedAttestation.from_json(plain)
            except (FedcartError, TypeError) as error:
                verdict.findings.append(Finding(where, f"attestation of {site}: {error}"))
                continue
            if signed.attestation.site != site:
                verdict.findings.append(Finding(where, f"attestation of {signed.attestation.site} under {site}"))
            shown = record.epsilon.get(site)
            if shown is not None and shown < signed.attestation.epsilon_after - 1e-9:
                what = f"shows epsilon {shown} for {site}, attested is {signed.attestation.epsilon_after}"
                verdict.findings.append(Finding(where, what))
            found.append((number, signed))
    return found


def _check_attestations(
    attested: list[tuple[int, SignedAttestation]], roster: Roster, verdict: VerifyReport, *, every_round: bool
) -> None:
    """Signatures of all; the epsilon of the last of each site, or of every one."""
    last = {signed.attestation.site: number for number, signed in attested}
    for number, signed in attested:
        site = signed.attestation.site
        try:
            key = roster.party(site).public_key
            if every_round or last[site] == number:
                check_attestation(signed, key)
            else:
                signed.verify(key)
        except VerificationError as error:
            verdict.findings.append(Finding(f"{METRICS_FILE}, line {number}", f"{site}: {error.message}"))
        verdict.attestations += 1


def _check_completeness(
    run: RunFolder, verdict: VerifyReport, attested: list[tuple[int, SignedAttestation]], found: set[str]
) -> None:
    simulated = {signed.attestation.site for _, signed in attested if signed.attestation.simulated}
    for site in sorted(simulated - found):
        verdict.findings.append(Finding(f"ledgers/{site}.jsonl", "is missing, but the site attested to it"))
    deployed = {signed.attestation.site for _, signed in attested} - simulated - found
    if deployed:
        what = f"ledgers of {', '.join(sorted(deployed))} stay at the sites; their attestations were checked"
        verdict.notes.append(Finding(LEDGERS, what))
    if not attested and not found:
        private = _is_private(run)
        where = verdict.findings if private else verdict.notes
        where.append(
            Finding(LEDGERS, "the run is said to be private but has none" if private else "not a private run")
        )


def _check_evidence(run: RunFolder, roster: Roster, records: list[RoundRecord], verdict: VerifyReport) -> None:
    """Every secure round that gave a sum has evidence that the pinned sites agreed on its survivors."""
    from common.secagg.evidence import Evidence, verify_evidence

    proven: dict[int, str] = {}
    for path in sorted(run.evidence.glob("*.json")):
        where = f"evidence/{path.name}"
        try:
            evidence = Evidence.from_json(path.read_text())
            verify_evidence(evidence, roster)
        except (FedcartError, OSError, UnicodeDecodeError) as error:
            verdict.findings.append(Finding(where, str(error)))
            continue
        number = evidence.params.session.round
        if number in proven:
            verdict.findings.append(Finding(where, f"round {number} was proven by {proven[number]} already"))
        proven[number] = path.name
        verdict.evidence += 1
    for line, record in enumerate(records, start=1):
        if (
            record.aggregation == "secure"
            and not record.aborted
            and record.answered
            and record.round not in proven
        ):
            what = f"round {record.round} gave a secure sum, but there is no evidence for it"
            verdict.findings.append(Finding(f"{METRICS_FILE}, line {line}", what))


def _is_private(run: RunFolder) -> bool:
    try:
        summary = run.summary()
    except BadInputError:
        return False
    return summary is not None and summary.private


@lru_cache(maxsize=64)
def _disagree(events: tuple[PrivacyEvent, ...], delta: float) -> bool:
    """Whether the loss distribution is worse than the Renyi bound, which it should never be."""
    rdp = RdpAccountant(events).epsilon(delta)
    return PldAccountant(events, discretization=FINE).epsilon(delta) > 1.02 * rdp + 1e-3
