"""Do the records of a run belong together, and to what coordinator and sites have signed? Each function yields what does not.

A round is bound to the plan (query, events, delta), to the record before it, to the model that it asked about, to its
evidence (session, survivors) and to one attestation of every site in its sum; the whole to the manifest and to what the
sites signed at the close; and every site's ledger to the heads that all sites were shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from common.audit.quorum import quorum_problems
from common.contribution import EVALUATE, TRAIN, Query
from common.errors import FedcartError, VerificationError
from common.privacy import Attestation, Replay, SignedAttestation, epsilon_alone, epsilon_of, witness_of
from common.run import (
    COMPLETED,
    COUNTERSIGNED,
    EXCLUDED,
    FACTS_FILE,
    FAILED,
    FAULT_WORDS,
    LEFT_OUT,
    STOPPED,
    Closing,
    FaultRecord,
    RoundRecord,
    RunFolder,
    RunPlan,
    Summary,
    check_manifest,
    digest_of,
    facts_digest,
    is_sealed_name,
    result_of,
    sealed_paths,
    sums_in,
)
from common.secagg.blame import ProofFile
from common.secagg.evidence import Evidence
from common.trust import Roster, verify_signature

OVER = (COMPLETED, STOPPED, FAILED)


@dataclass
class _Chain:
    """What the records before the next one have fixed. ``newest``: site -> sequence.

    ``entries``: (site, sequence) -> hash, as the site has signed it; ``shown``: as the coordinator has shown it to all sites.
    """

    previous: str
    trained: int = 0
    state: str = ""
    average: str = ""
    entries: dict[tuple[str, int], str] = field(default_factory=dict)
    shown: dict[tuple[str, int], str] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)


def record_problems(plan: RunPlan, roster: Roster, records: Sequence[RoundRecord]) -> Iterator[tuple[int, str]]:
    """(line number, what does not hold) of the records of a run."""
    chain = _Chain(plan.digest().hex())
    for number, record in enumerate(records, start=1):
        for what in (
            *_chained(chain, plan, roster, record),
            *_asked(chain, plan, record),
            *_attested(chain, plan, roster, record),
        ):
            yield number, what
        chain.previous, chain.state, chain.average = record.digest, record.state, record.average
        chain.trained += record.kind == TRAIN


def _chained(chain: _Chain, plan: RunPlan, roster: Roster, record: RoundRecord) -> Iterator[str]:
    try:
        verify_signature(
            roster.coordinator.public_key, bytes.fromhex(record.digest), bytes.fromhex(record.signature)
        )
    except (FedcartError, ValueError):
        yield "is not as the coordinator signed it"
    if record.previous != chain.previous:
        yield "does not follow the record before it: one was left out, added or exchanged"
    said = (record.aggregation, record.private)
    if said != (plan.config.aggregation.mode, plan.config.privacy.enabled):
        yield f"says {record.aggregation}, {'private' if record.private else 'not private'}: not what the plan says"


def _asked(chain: _Chain, plan: RunPlan, record: RoundRecord) -> Iterator[str]:
    rounds = plan.config.training.rounds
    expected = 0 if record.kind == plan.task.opening else chain.trained + 1
    if record.round != expected or not plan.task.accepts(record.kind, record.round, rounds):
        yield f"is {record.kind} round {record.round}: not the one that comes next in the plan"
    before = chain.average if record.kind == EVALUATE else chain.state
    if before and record.model != before:
        yield "asks about another model than the round before has left"
    if record.aborted and record.kind == TRAIN and record.state != record.model:
        yield "was aborted, and says that it changed the model"
    for site, did in sorted(record.sites.items()):
        proven = {fault.kind for fault in record.faults if fault.culprit == site}
        named = did.status == "ok" or did.reason in (EXCLUDED, *FAULT_WORDS)
        if named and did.reason and did.reason not in proven:
            yield f"says of {site} what nothing proves: {did.status}, {did.reason[:60]}"
    if strangers := sorted(set(record.sites) - set(plan.sites)):
        yield f"names {', '.join(strangers)}, not in the plan"


def _query_of(plan: RunPlan, record: RoundRecord) -> Query:
    return Query(record.kind, plan.run, record.round, plan.to_json(), bytes.fromhex(record.model))


def _attested(chain: _Chain, plan: RunPlan, roster: Roster, record: RoundRecord) -> Iterator[str]:
    if not plan.config.privacy.enabled:
        return
    expected = {
        "run": plan.run,
        "round": record.round,
        "query": _query_of(plan, record).digest().hex(),
        "events": plan.events(record.kind),
        "roster": roster.digest.hex(),
        "witness": witness_of(record.heads).hex(),
    }
    for site, (sequence, head) in sorted(record.heads.items()):
        yield from _shown(chain, site, sequence, head)
        if sequence < chain.newest.get(site, -1):
            yield f"showed the sites an older entry of {site}'s ledger than it had attested"
    said = dict(_read(record))
    for site, attestation in sorted(said.items()):
        for name in [name for name, value in expected.items() if getattr(attestation, name) != value]:
            yield f"holds an attestation of {site} with another {name}"
        yield from _delta_of(plan, record, site, attestation)
        yield from _signed_entry(chain, roster, SignedAttestation.from_json(record.attestations[site]))
        if attestation.sequence <= chain.newest.get(site, -1):
            yield f"holds an attestation of {site} that is not newer than the one before: entry {attestation.sequence}"
        chain.newest[site] = max(attestation.sequence, chain.newest.get(site, -1))
    for site in (site for site, did in sorted(record.sites.items()) if did.status == "ok"):
        if site not in said:
            yield f"counts {site} in the sum and has no attestation of it"
        elif said[site].attempt != record.attempt:
            yield f"is attempt {record.attempt}, {site} attested attempt {said[site].attempt}"


def _delta_of(plan: RunPlan, record: RoundRecord, site: str, said: Attestation) -> Iterator[str]:
    """A scope may have a larger delta than the run states: then what the record shows is at the run's."""
    delta = plan.config.privacy.delta
    if site not in plan.sites or not plan.accepts_delta(site, said.delta):
        yield f"holds an attestation of {site} with another delta"
    elif (
        said.delta > delta
        and record.epsilon.get(site, 0.0) < epsilon_of(said.totals, delta, said.adaptive_order) - 1e-6
    ):
        yield f"shows an epsilon of {site} at another delta than the run's"
    if plan.quorum and site in plan.sites:
        alone = epsilon_alone(said.totals, min(delta, said.delta), said.adaptive_order)
        if record.alone.get(site, 0.0) < alone - 1e-6:
            yield f"shows less than epsilon {alone:.6f} for {site} alone, which is what its own noise allows"


def _shown(chain: _Chain, site: str, sequence: int, head: str) -> Iterator[str]:
    """What the coordinator shows of a ledger is its own word: the site is named only for what it has signed itself."""
    known = chain.entries.get((site, sequence), chain.shown.setdefault((site, sequence), head))
    if known != head:
        yield f"shows two entries {sequence} of {site}'s ledger ({known[:12]} and {head[:12]}): made up, or a fork"


def _signed_entry(chain: _Chain, roster: Roster, signed: SignedAttestation) -> Iterator[str]:
    said = signed.attestation
    place = said.site, said.sequence
    try:
        signed.verify(roster.party(said.site).public_key)
    except FedcartError:
        return  # not the site's word: named where attestations are checked
    known = chain.entries.setdefault(place, said.head)
    if known != said.head:
        yield f"shows a fork: {said.site} has signed two different entries {said.sequence} ({known[:12]} and {said.head[:12]})"
    elif chain.shown.get(place, said.head) != said.head:
        yield from _shown(chain, said.site, said.sequence, chain.shown[place])


def _read(record: RoundRecord) -> Iterator[tuple[str, Attestation]]:
    for site, plain in record.attestations.items():
        try:
            yield site, SignedAttestation.from_json(plain).attestation
        except (FedcartError, TypeError):
            continue  # reported where attestations are checked


def evidence_problems(
    plan: RunPlan, roster: Roster, records: Sequence[RoundRecord], evidence: Mapping[int, tuple[Evidence, str]]
) -> Iterator[tuple[int, str]]:
    """(line number, what does not hold); ``evidence``: round -> what was read, and the digest of its file."""
    sums = {}
    for number, record in enumerate(records, start=1):
        if record.aggregation != "secure" or not record.summed:
            continue
        sums[record.round] = number
        if record.round not in evidence:
            yield number, f"round {record.round} gave a secure sum, but there is no evidence for it"
            continue
        found, digest = evidence[record.round]
        params, query = found.params, _query_of(plan, record)
        session = (params.session.run, params.session.round, params.session.attempt)
        survivors = {site for site, did in record.sites.items() if did.status == "ok"}
        for holds, what in (
            (digest == record.evidence, "was another file when the coordinator signed the round"),
            (session == (plan.run, record.round, record.attempt), f"is of another session: {params.session}"),
            (params.query_digest == query.digest(), "is about another query"),
            (params.model_digest == query.model_digest, "is about another model"),
            (params.blocks == plan.blocks(record.kind), "is of another layout than the plan's"),
            (params.roster == roster.digest, "is of another roster"),
            (params.witness == witness_of(record.heads), "shows other heads than the record"),
            (set(found.survivors.survivors) == survivors, "names other survivors than the record"),
        ):
            if not holds:
                yield number, f"evidence of round {record.round} {what}"
        for what in quorum_problems(plan, record.kind, found):
            yield number, f"evidence of round {record.round} {what}"
    for stray in sorted(evidence.keys() - sums.keys()):
        yield len(records), f"there is evidence of a sum in round {stray} that no record shows"


def proof_problems(
    plan: RunPlan, roster: Roster, records: Sequence[RoundRecord], proofs: Mapping[int, tuple[ProofFile, str]]
) -> Iterator[tuple[int, str]]:
    """(line number, what does not hold); ``proofs``: round -> what was read, and the digest of its file.

    A record must name just the faults that its proofs prove, in sessions of its own round.
    """
    lines = {record.round: number for number, record in enumerate(records, start=1)}
    for number, record in enumerate(records, start=1):
        found, digest = proofs.get(record.round, (ProofFile(), ""))
        if digest != record.proofs:
            yield number, f"proofs of round {record.round} are missing, or not those that the coordinator signed"
        proven: set[FaultRecord] = set()
        for case in found.sessions:
            session = case.params.session
            if (session.run, session.round) != (plan.run, record.round):
                yield number, f"proofs of round {record.round} are of another session: {session}"
            try:
                proven |= {
                    FaultRecord(f.culprit, f.victim, f.kind, session.attempt) for f in case.verdicts(roster)
                }
            except FedcartError as error:
                yield number, f"proofs of round {record.round} do not hold: {error.message}"
        if proven != set(record.faults):
            yield number, f"names other faults than those that are proven in round {record.round}"
    for stray in sorted(proofs.keys() - lines.keys()):
        yield len(records), f"there are proofs of faults in round {stray} that no record shows"


def manifest_problems(
    run: RunFolder, plan: RunPlan, roster: Roster, records: Sequence[RoundRecord], summary: Summary | None
) -> Iterator[str]:
    """What does not hold of the manifest of a run that is over; nothing of one that is not."""
    manifest = run.manifest()
    if not manifest:
        if summary is not None and summary.status in OVER:
            yield "is missing, but the summary says that the run is over"
        return
    try:
        check_manifest(manifest, roster.coordinator.public_key)
    except VerificationError:
        yield "is not as the coordinator signed it"
        return
    if manifest["run"] != plan.run:
        yield "is of another run"
    if manifest["last"] != (records[-1].digest if records else plan.digest().hex()):
        yield "names another last record: the tail of metrics.jsonl was cut or exchanged"
    yield from _file_problems(run, manifest["files"])
    if summary is None:
        yield "seals a result, but summary.json is missing"
    elif result_of(summary) != manifest["result"]:
        yield "has another result than summary.json"
    if run.facts() is not None and facts_digest(run) != manifest["facts"]:
        yield f"has another digest of {FACTS_FILE}: it was exchanged or edited"
    elif manifest["facts"] and run.facts() is None and not run.left_out():
        yield f"lists {FACTS_FILE}, which is missing"
    rounds, sums = sums_in(records)
    result = manifest["result"]
    if (result["rounds"], result["sums"]) != (rounds, sums) or (
        result["status"] == COMPLETED and rounds != plan.config.training.rounds
    ):
        yield f"says {result['status']}, {result['sums']} sums in {result['rounds']} rounds; the records show {sums} in {rounds}"


def _file_problems(run: RunFolder, files: Mapping[str, str]) -> Iterator[str]:
    for name, digest in sorted(files.items()):
        if not is_sealed_name(name):
            yield f"lists {name[:60]!r}, which is no file of a run"
        elif not (run.path / name).is_file():
            if not {name, name.partition("/")[0]} & set(LEFT_OUT) & set(run.left_out()):
                yield f"lists {name}, which is missing"
        elif digest_of((run.path / name).read_bytes()) != digest:
            yield f"has another digest of {name}: it was exchanged or edited"
    for path in sealed_paths(run):
        if str(path.relative_to(run.path)) not in files:
            yield f"does not list {path.relative_to(run.path)}: it was added"


def countersigned_by(
    run: RunFolder, plan: RunPlan, roster: Roster, records: Sequence[RoundRecord]
) -> tuple[list[str], list[str]]:
    """The sites that signed the last record at the close, and those under whose name another signature stands."""
    plain = run.countersigned()
    if not plain:
        return [], []
    last = records[-1] if records else RoundRecord(0)
    closing = Closing(plan.run, last.round, last.digest if records else plan.digest().hex())
    true, false = [], []
    for site, signature in sorted(plain["sites"].items()):
        try:
            roster.verify(site, closing.statement(COUNTERSIGNED), bytes.fromhex(signature))
            true.append(site)
        except (FedcartError, ValueError):
            false.append(site)
    return true, false


def ledger_problems(
    plan: RunPlan, roster: Roster, records: Sequence[RoundRecord], site: str, state: Replay
) -> Iterator[str]:
    """What a site's own ledger says against the records of a run: forks, and releases that they do not show."""
    key = roster.party(site).public_key.hex()
    for record in records:
        if site in record.heads:
            sequence, head = record.heads[site]
            if state.is_of_former(key, site, sequence):
                continue
            if sequence >= state.sequence:
                what = f"all sites were shown entry {sequence}, the last one here is {state.sequence - 1}"
                yield f"its tail is cut, or the coordinator made it up: {what}"
            elif sequence >= state.first_sequence and state.hash_at(sequence) != head:
                what = f"all sites were shown another entry {sequence} in round {record.round}"
                yield f"it is a fork, or the coordinator made it up: {what}"
    by_round = {record.round: record for record in records}
    for reservation in state.reservations.values():
        body = reservation.body
        if body.run != plan.run or reservation.state == "void" or (body.by and body.by != key):
            continue
        shown = by_round.get(body.round)
        if shown is None:
            yield f"entry {reservation.sequence} is of round {body.round}, which the records do not show"
        elif site not in shown.attestations and reservation.state == "committed":
            yield f"entry {reservation.sequence} left in round {body.round}, the record does not say so"
        elif site in shown.attestations and body.attempt == shown.attempt:
            if body.witness != witness_of(shown.heads).hex():
                yield f"entry {reservation.sequence} was shown other heads than the record of round {body.round} has"
            if body.roster != roster.digest.hex():
                yield f"entry {reservation.sequence} is under another roster"
