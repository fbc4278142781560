"""Offline verification of a run folder, a ledger, or a folder of ledgers. Needs no torch, opacus or flwr.

What is checked: every line of every ledger (form, hash, chain, signature, rules), the signed end of each
chain, every attestation in ``metrics.jsonl`` against the ledger it speaks of, the epsilon of the last
state by both accountants (on request of every round), and the aggregation evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from common.audit.binding import (
    countersigned_by,
    evidence_problems,
    ledger_problems,
    manifest_problems,
    proof_problems,
    record_problems,
)
from common.audit.records import Records, find_records
from common.errors import BadInputError, FedcartError, VerificationError
from common.privacy import (
    FINE,
    Open,
    PldAccountant,
    PrivacyEvent,
    RdpAccountant,
    Reading,
    Replay,
    ScopeAccountant,
    SignedAttestation,
    anchor_of,
    check_attestation,
    read_head,
    replay_lines,
    split_lines,
)
from common.run import (
    COUNTERSIGNED_FILE,
    EVIDENCE,
    LEDGERS,
    MANIFEST_FILE,
    METRICS_FILE,
    PROOFS,
    SETTINGS_FILE,
    RoundRecord,
    RunFolder,
    digest_of,
    round_file,
)
from common.secagg.blame import ProofFile
from common.secagg.evidence import Evidence, verify_evidence
from common.trust import ROSTER_FILE, Roster


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
    countersigned: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def raise_if_broken(self) -> None:
        """Raises: VerificationError naming the first problem."""
        if self.findings:
            more = f" (and {len(self.findings) - 1} more)" if len(self.findings) > 1 else ""
            raise VerificationError(
                f"{self.findings[0]}{more}", hint="compare with another copy; do not trust the figures of this one"
            )


def verify_path(
    path: Path, *, every_round: bool = False, roster: Roster | None = None, ledgers: Sequence[Path] = ()
) -> VerifyReport:
    """Verify a run folder, a ledger file, a folder of ledgers, or a kit, with what lies beside it.

    ``roster`` pins the sites' keys from outside; without it the roster beside the records is used, and a ledger
    without one is checked against the key that it names itself. ``ledgers``: see ``verify_run``.
    Raises: BadInputError if there is nothing to verify.
    """
    records = find_records(path)
    if records.run is not None:
        return verify_run(records.run, every_round=every_round, roster=roster, ledgers=ledgers)
    if ledgers:
        raise BadInputError("--ledger goes with a run folder", hint="a ledger alone: fedcart audit verify LEDGER")
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


def verify_run(
    run: RunFolder, *, every_round: bool = False, roster: Roster | None = None, ledgers: Sequence[Path] = ()
) -> VerifyReport:
    """Verify everything in a run folder that can be verified offline. Nothing is raised for a damaged file.

    ``ledgers``: of sites that hold their own, to be compared with what the run says. Raises: BadInputError for one that is
    no ledger of a site of this run.
    """
    verdict = VerifyReport(str(run.path))
    pinned = roster or _own_roster(run, verdict)
    records = _records(run, verdict)
    attested = _attested(records, verdict)
    checks = {}
    files = {file.name.removesuffix(".jsonl"): file for file in sorted(run.ledgers.glob("*.jsonl"))}
    for file in ledgers:
        files |= dict.fromkeys(_sites_of(file, pinned), file)
    for site, file in files.items():
        own = tuple(s for _, s in attested if s.attestation.site == site)
        checks[site] = _LedgerCheck(file, verdict, pinned, own)
        checks[site].run()
    if pinned is not None:
        _check_attestations(attested, pinned, verdict, every_round=every_round)
    _check_completeness(run, verdict, attested, set(checks))
    if pinned is None and records:
        verdict.findings.append(Finding(ROSTER_FILE, "is missing: nothing that was signed could be checked"))
    if pinned is not None:
        states = {site: check.state for site, check in checks.items() if check.state is not None}
        _check_bindings(run, pinned, records, states, verdict)
    return verdict


def _sites_of(file: Path, roster: Roster | None) -> list[str]:
    """Whose ledger this is: the site in its first line, or of a shared one those of the roster that it has admitted."""
    try:
        *_, (_, _, state) = replay_lines(split_lines(file.read_bytes())[0])
        header = state.header
        assert header is not None  # at least one line was applied
        keys = {party.public_key.hex(): party.name for party in roster.parties} if roster else {}
        return [keys[key] for key in state.admitted if key in keys] if header.shared else [header.site]
    except (OSError, ValueError, FedcartError) as error:
        raise BadInputError(f"{file} is not a ledger: {error}", hint="name KIT/state/ledger.jsonl") from None


@dataclass
class _LedgerCheck:
    """Checks of one ledger file; stops at its first bad line."""

    file: Path
    verdict: VerifyReport
    roster: Roster | None
    attested: tuple[SignedAttestation, ...] = ()
    every_round: bool = False
    state: Replay | None = None

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
        self.state = state

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
        """Whether the ledger has admitted the very key that the roster pins: that site has signed for it."""
        assert self.roster is not None
        pinned = {party.public_key.hex() for party in self.roster.parties}
        if not pinned & set(state.admitted):
            raise VerificationError("no site of this roster was ever admitted to this ledger")
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
        count = len(state.hashes)
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
    attestations = []
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
            attestations.append((number, signed))
    return attestations


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


def _read_evidence(run: RunFolder, roster: Roster, verdict: VerifyReport) -> dict[int, tuple[Evidence, str]]:
    """Round -> evidence that the pinned sites agreed on its survivors, and the digest of its file."""
    proven: dict[int, tuple[Evidence, str]] = {}
    for path in sorted(run.evidence.glob("*.json")):
        where = f"{EVIDENCE}/{path.name}"
        try:
            text = path.read_text("utf-8")
            evidence = Evidence.from_json(text)
            verify_evidence(evidence, roster)
        except (FedcartError, OSError, UnicodeDecodeError, RecursionError) as error:
            verdict.findings.append(Finding(where, str(error)))
            continue
        number = evidence.params.session.round
        if path.name != round_file(run.evidence, number, "json").name:
            verdict.findings.append(Finding(where, f"is the evidence of round {number}"))
        proven.setdefault(number, (evidence, digest_of(text.encode())))
        verdict.evidence += 1
    return proven


def _read_proofs(run: RunFolder, verdict: VerifyReport) -> dict[int, tuple[ProofFile, str]]:
    """Round -> proofs of the faults in it, and the digest of their file; what they prove is checked with the records."""
    read: dict[int, tuple[ProofFile, str]] = {}
    for path in sorted(run.proofs.glob("*.json")):
        where = f"{PROOFS}/{path.name}"
        try:
            text = path.read_text("utf-8")
            found = ProofFile.from_json(text)
        except (FedcartError, OSError, UnicodeDecodeError, RecursionError) as error:
            verdict.findings.append(Finding(where, str(error)))
            continue
        number = found.sessions[0].params.session.round if found.sessions else -1
        if path.name != round_file(run.proofs, number, "json").name:
            verdict.findings.append(Finding(where, "is not the proofs of a round under its number"))
            continue
        read[number] = (found, digest_of(text.encode()))
    return read


def _check_bindings(
    run: RunFolder, roster: Roster, records: list[RoundRecord], states: Mapping[str, Replay], verdict: VerifyReport
) -> None:
    """Whether plan, rounds, evidence, manifest and ledgers belong together; see ``common.audit.binding``."""
    try:
        plan, settings, summary = run.plan(), run.settings(), run.summary()
        if settings.public_json() != plan.settings:
            verdict.findings.append(Finding(SETTINGS_FILE, "has other settings than the plan that was signed"))
        evidence = _read_evidence(run, roster, verdict)
        proofs = _read_proofs(run, verdict)
        problems = [
            *record_problems(plan, roster, records),
            *evidence_problems(plan, roster, records, evidence),
            *proof_problems(plan, roster, records, proofs),
        ]
        verdict.findings += [Finding(f"{METRICS_FILE}, line {number}", what) for number, what in problems]
        verdict.faults += [f"round {record.round}: {fault}" for record in records for fault in record.faults]
        sealed = manifest_problems(run, plan, roster, records, summary)
        verdict.findings += [Finding(MANIFEST_FILE, what) for what in sealed]
        verdict.countersigned, false = countersigned_by(run, plan, roster, records)
        what = "stands there, but did not sign the last record: the tail was cut or exchanged"
        verdict.findings += [Finding(COUNTERSIGNED_FILE, f"{site} {what}") for site in false]
        for site, state in states.items():
            of_ledger = ledger_problems(plan, roster, records, site, state)
            verdict.findings += [Finding(f"ledger of {site}", what) for what in of_ledger]
    except (FedcartError, KeyError, TypeError, ValueError, AttributeError) as error:
        verdict.findings.append(Finding(str(run.path), f"cannot be read as a run: {error}"))
        return
    _say_what_is_open(run, records, verdict)


def _say_what_is_open(run: RunFolder, records: list[RoundRecord], verdict: VerifyReport) -> None:
    if not run.manifest():
        what = "the run is not over: nothing seals it, and rounds after the last one here could have been left out"
        verdict.notes.append(Finding(MANIFEST_FILE, what))
    if left_out := run.left_out():
        verdict.notes.append(Finding(str(run.path), f"an export, without {', '.join(left_out)}"))
    last = {site for record in records[-1:] for site, did in record.sites.items() if did.status == "ok"}
    if silent := sorted(last - set(verdict.countersigned)):
        verdict.notes.append(Finding(COUNTERSIGNED_FILE, f"{', '.join(silent)} did not sign the last record"))


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
