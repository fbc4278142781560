"""Offline verification of a run folder, a ledger, or a folder of ledgers. Needs no torch, opacus or flwr.

What is checked: every line of every ledger (form, hash, chain, signature, rules), the signed end of each
chain, every attestation in ``metrics.jsonl`` against the ledger it speaks of, the epsilon of the last
state by both accountants (on request of every round), and the aggregation evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from common.audit.binding import (
    countersigned_by,
    evidence_problems,
    ledger_problems,
    manifest_problems,
    proof_problems,
    record_problems,
)
from common.audit.judgements import judgement_problems
from common.audit.ledger_check import LedgerCheck, sites_of
from common.audit.model_binding import model_problems
from common.audit.quorum import quorum_words
from common.audit.records import Records, find_records
from common.audit.results import (
    catalogue_problems,
    facts_problems,
    fixed_problems,
    oracle_problems,
    summary_problems,
    unsigned_files,
)
from common.audit.verdict import Finding, VerifyReport
from common.errors import BadInputError, FedcartError, VerificationError
from common.privacy import (
    Replay,
    SignedAttestation,
    check_attestation,
)
from common.run import (
    CLOSINGS_FILE,
    COUNTERSIGNED_FILE,
    EVIDENCE,
    LEDGERS,
    MANIFEST_FILE,
    METRICS_FILE,
    PROOFS,
    SETTINGS_FILE,
    SUMMARY_FILE,
    RoundRecord,
    RunFolder,
    digest_of,
    no_files,
    noted_closings,
    round_file,
    strange_lines,
)
from common.secagg.blame import ProofFile
from common.secagg.evidence import Evidence, verify_evidence
from common.trust import ROSTER_FILE, Roster


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
        LedgerCheck(file, report, pinned, every_round=every_round).run()
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
    if strange := no_files(run.path):  # a pipe would keep us for ever, a link show another file's content
        verdict.findings += [Finding(name, f"is {kind}, and no file of a run") for name, kind in strange]
        return verdict
    beside = _own_roster(run, verdict)
    if roster is not None and beside is not None and beside.digest != roster.digest:
        verdict.findings.append(Finding(ROSTER_FILE, "is another roster than the trusted one"))
    pinned = roster or beside
    records = _records(run, verdict)
    attested = _attested(records, verdict)
    checks = {}
    files = {file.name.removesuffix(".jsonl"): file for file in sorted(run.ledgers.glob("*.jsonl"))}
    for file in ledgers:
        files |= dict.fromkeys(sites_of(file, pinned), file)
    for site, file in files.items():
        own = tuple(s for _, s in attested if s.attestation.site == site)
        checks[site] = LedgerCheck(file, verdict, pinned, own)
        checks[site].run()
    if pinned is not None:
        _check_attestations(attested, pinned, verdict, every_round=every_round)
    _check_completeness(run, verdict, attested, set(checks))
    if pinned is None and records:
        verdict.findings.append(Finding(ROSTER_FILE, "is missing: nothing that was signed could be checked"))
    if pinned is not None:
        states = {site: check.state for site, check in checks.items() if check.state is not None}
        _check_bindings(run, pinned, records, states, verdict)
        _check_closings(run, pinned, records, ledgers, verdict)
    return verdict


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
        records = run.metrics()
        lines = [Finding(f"{METRICS_FILE}, line {number}", what) for number, what in strange_lines(run, records)]
    except FedcartError as error:
        verdict.findings.append(Finding(METRICS_FILE, error.message))
        return []
    verdict.findings += lines
    return records


def _attested(records: list[RoundRecord], verdict: VerifyReport) -> list[tuple[int, SignedAttestation]]:
    """(line number, attestation) of every attestation in the records that can be read."""
    attestations = []
    spent: dict[str, float] = {}  # site -> the last that it attested, in this record or before
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
            spent[site] = signed.attestation.epsilon_after
            attestations.append((number, signed))
        for site, attested in sorted(spent.items()):
            shown = record.epsilon.get(site, 0.0)
            if shown < attested - 1e-9:
                verdict.findings.append(
                    Finding(where, f"shows epsilon {shown} for {site}, attested is {attested}")
                )
    return attestations


def _line_of_metrics(number: int) -> str:
    """Where to look; 0: there is no line, and that is the matter."""
    return f"{METRICS_FILE}, line {number}" if number else METRICS_FILE


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
        if not plan.is_of(settings):
            verdict.findings.append(Finding(SETTINGS_FILE, "has other settings than the plan that was signed"))
        evidence = _read_evidence(run, roster, verdict)
        proofs = _read_proofs(run, verdict)
        problems = [
            *record_problems(plan, roster, records),
            *evidence_problems(plan, roster, records, evidence),
            *proof_problems(plan, roster, records, proofs),
            *judgement_problems(run, plan, records),
        ]
        verdict.findings += [Finding(_line_of_metrics(number), what) for number, what in problems]
        verdict.quorum = quorum_words(plan, {r.round: r.kind for r in records if r.summed}, evidence)
        verdict.faults += [f"round {record.round}: {fault}" for record in records for fault in record.faults]
        sealed = manifest_problems(run, plan, roster, records, summary)
        verdict.findings += [Finding(MANIFEST_FILE, what) for what in sealed]
        beside = [
            *((SUMMARY_FILE, what) for what in summary_problems(plan, records, summary)),
            *oracle_problems(run, records, summary),
            *facts_problems(run, plan),
            *fixed_problems(run, records),
            *catalogue_problems(run, plan),
            *model_problems(run, plan, roster, records),
        ]
        verdict.findings += [Finding(*found) for found in beside]
        verdict.countersigned, false = countersigned_by(run, plan, roster, records)
        what = "stands there, but did not sign the last record: the tail was cut or exchanged"
        verdict.findings += [Finding(COUNTERSIGNED_FILE, f"{site} {what}") for site in false]
        for site, state in states.items():
            of_ledger = ledger_problems(plan, roster, records, site, state)
            verdict.findings += [Finding(f"ledger of {site}", what) for what in of_ledger]
        _say_what_is_open(run, records, verdict)
    except (FedcartError, KeyError, TypeError, ValueError, AttributeError) as error:
        verdict.findings.append(Finding(str(run.path), f"cannot be read as a run: {error}"))


def _check_closings(
    run: RunFolder, roster: Roster, records: list[RoundRecord], ledgers: Sequence[Path], verdict: VerifyReport
) -> None:
    """Whether the record goes on from what sites were told at the close, as far as that lies beside their ledgers."""
    known = {record.digest for record in records}
    with suppress(FedcartError, ValueError):  # no plan can be read: that is said already
        plan = run.plan()
        for file in ledgers:
            for closing in noted_closings(file.parent, plan.run, roster.coordinator.public_key):
                if closing.last not in known | {plan.digest().hex()}:
                    what = f"the coordinator signed another end of round {closing.round} to this site: rewritten since, or cut"
                    verdict.findings.append(Finding(f"{file.parent.name}/{CLOSINGS_FILE}", what))


def _say_what_is_open(run: RunFolder, records: list[RoundRecord], verdict: VerifyReport) -> None:
    if not run.manifest():
        what = "the run is not over: nothing seals it, and rounds after the last one here could have been left out"
        verdict.notes.append(Finding(MANIFEST_FILE, what))
    if left_out := run.left_out():
        verdict.notes.append(Finding(str(run.path), f"an export, without {', '.join(left_out)}"))
    from common.audit.papers.card import strange_cards

    if unsigned := unsigned_files(run):
        verdict.notes.append(Finding(", ".join(unsigned), "nobody signs what stands there"))
    if strange := strange_cards(run):
        what = "not what this version of the program makes of the record: edited, or made by another version"
        verdict.notes.append(Finding(", ".join(strange), what))
    summary = run.summary()
    made_up = summary is not None and (summary.baselines or summary.metrics.get("oracle"))
    if made_up or any(record.oracle for record in records):
        what = "figures marked oracle, and baselines, are a simulation's own: nobody signs them"
        verdict.notes.append(Finding(SUMMARY_FILE if made_up else METRICS_FILE, what))
    last = {site for record in records[-1:] for site, did in record.sites.items() if did.status == "ok"}
    if silent := sorted(last - set(verdict.countersigned)):
        verdict.notes.append(Finding(COUNTERSIGNED_FILE, f"{', '.join(silent)} did not sign the last record"))


def _is_private(run: RunFolder) -> bool:
    try:
        summary = run.summary()
    except BadInputError:
        return False
    return summary is not None and summary.private
