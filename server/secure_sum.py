"""The sum over a cohort, and nothing but the sum.

``secure_sum`` drives the secure-aggregation machine over six exchanges. ``plain_sum`` is the same
question asked in the clear: a test oracle, and an explicit choice of a simulation, marked in every output.
Both add fixed-point numbers in the same ring, so they give the same sum bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import common.secagg.fixedpoint as fixedpoint
import common.secagg.messages as messages
import common.wire as wire
from common.contribution import Block
from common.errors import FedcartError, RemoteProtocolError, RoundAbortedError, VerificationError
from common.flower import Parts
from common.plain_text import word_or
from common.run import ENDED, AggregationSettings, SiteRound
from common.secagg.blame import BAD_BOX, BAD_DEALING, FALSE_COMPLAINT, WRONG_SHARE, Fault, Proofs
from common.secagg.messages import Params, PlainParams
from common.secagg.server import ACCEPT, ADVERTISE, MASK, SHARE, UNMASK, ServerProtocol
from server.admission import Admission
from server.exchange import LOST, MALFORMED, Answer, Exchange

CONTRIBUTE = "contribute"
FAULT_PHASES = {BAD_DEALING: SHARE, BAD_BOX: SHARE, FALSE_COMPLAINT: ACCEPT, WRONG_SHARE: UNMASK}
STATUS_OF = {
    "policy": "refused",
    "rollback": "refused",
    "refused": "refused",
    "budget": "stopped",
    "paused": "paused",
}


@dataclass(frozen=True)
class Opening:
    """The first exchange of a round: what travels to each site beside the session's parameters (query, model,
    echoed head), and who decides which answers are let in. ``on_leaving`` is called before the sites are asked
    for what they cannot take back."""

    requests: Mapping[str, Parts]
    admission: Admission
    on_leaving: Callable[[], None] = lambda: None

    def note(self, site: str, phase: str, answer: Answer) -> None:
        """Take in what an answer that is none says of the site's ledger."""
        if STATUS_OF.get(answer.error, LOST) in ENDED and phase in (ADVERTISE, CONTRIBUTE):
            self.admission.note_no(site)
        self.admission.note_charge(site, answer.parts)


@dataclass
class SumOutcome:
    """What a round of exchanges gave, complete or not.

    ``blocks``: the decoded sum by block name, empty if the round was aborted. ``sites``: what each invited
    site did.
    ``exposed``: sites whose masked vector has left; their contribution is dead and charged. ``remarks``: for people,
    what was wrong with an answer, and whose it was. ``faults``: what sites have provably done wrong, and ``proofs`` of that.
    Units: ``protocol_seconds`` wall time of all exchanges after the one that trains.
    """

    sites: dict[str, SiteRound]
    blocks: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()
    evidence: str = ""
    aborted: str = ""
    exposed: tuple[str, ...] = ()
    protocol_seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)
    faults: tuple[Fault, ...] = ()
    proofs: Proofs | None = None

    def blame(self, faults: tuple[Fault, ...], proofs: Proofs) -> None:
        """Record who broke the protocol; whose vector is in the sum all the same stays in it."""
        self.faults, self.proofs = faults, proofs if faults else None
        for fault in faults:
            did = self.sites[fault.culprit]
            self.sites[fault.culprit] = SiteRound(did.status, fault.kind, did.phase or FAULT_PHASES[fault.kind])

    def note(self, site: str, phase: str, answer: Answer) -> None:
        """Record why a site is out of the round."""
        reason = word_or(answer.parts.get("rule"), answer.error)
        self.sites[site] = SiteRound(STATUS_OF.get(answer.error, "lost"), reason, phase)
        if answer.error == MALFORMED:
            self.remarks.append(f"site {site} is lost: {MALFORMED}: its message to {phase} cannot be read")

    def refuse(self, site: str, phase: str, error: FedcartError) -> None:
        """Record that a site's answer was refused: it is out of the round, all others go on."""
        reason = error.code if isinstance(error, VerificationError) else MALFORMED
        self.sites[site] = SiteRound("lost", reason, phase)
        self.remarks.append(f"site {site} is lost: {reason}: {error.message[:200]}")


def secure_sum(exchange: Exchange, params: Params, opening: Opening, settings: AggregationSettings) -> SumOutcome:
    """Sum the cohort's contributions so that nobody sees one of them.

    Guarantee: the decoded sum is over at least ``params.threshold`` sites, or ``aborted`` says why not.
    """
    machine = ServerProtocol(params)
    outcome = SumOutcome({site: SiteRound("lost") for site in params.sites})
    try:
        while not machine.finished:
            phase, started = machine.phase, time.monotonic()
            if phase == MASK:
                opening.on_leaving()
            _exchange(exchange, machine, outcome, opening, settings)
            if phase == MASK:
                outcome.exposed = tuple(
                    s for s in params.sites if s not in machine.waiting_for and not outcome.sites[s].reason
                )
            machine.advance()
            if phase != ADVERTISE:
                outcome.protocol_seconds += time.monotonic() - started
    except RoundAbortedError as error:
        outcome.aborted = error.reason
        outcome.blame(machine.faults, machine.proofs)
        return outcome
    result = machine.result
    outcome.blocks, outcome.survivors = result.decode_blocks(), result.survivors
    outcome.evidence = result.evidence.to_json()
    for site in result.survivors:
        outcome.sites[site] = SiteRound("ok")
    outcome.blame(machine.faults, machine.proofs)
    return outcome


def _exchange(
    exchange: Exchange,
    machine: ServerProtocol,
    outcome: SumOutcome,
    opening: Opening,
    settings: AggregationSettings,
) -> None:
    phase, session = machine.phase, machine.params.session
    group = f"{session.round}.{session.attempt}"
    asked = machine.requests()
    encoded = {id(request): messages.encode(request) for request in {id(r): r for r in asked.values()}.values()}
    requests: dict[str, Parts] = {
        site: {"message": encoded[id(request)]} | (dict(opening.requests[site]) if phase == ADVERTISE else {})
        for site, request in asked.items()
    }
    deadline_s = settings.deadline_s if phase == ADVERTISE else settings.exchange_deadline_s
    for site, answer in exchange.ask(phase, requests, deadline_s=deadline_s, group=group).items():
        if not answer.ok:
            outcome.note(site, phase, answer)
            opening.note(site, phase, answer)
            continue
        try:
            if phase == ADVERTISE:
                opening.admission.admit(site, answer.parts)
            machine.receive(site, answer.parts.get("message", b""))
        except FedcartError as error:
            outcome.refuse(site, phase, error)
    if phase == ADVERTISE:
        opening.admission.close()


def plain_sum(
    exchange: Exchange,
    params: PlainParams,
    blocks: tuple[Block, ...],
    opening: Opening,
    settings: AggregationSettings,
) -> SumOutcome:
    """Sum the contributions in the clear: the server sees each of them. Simulations and tests only."""
    group, message = f"{params.session.round}.{params.session.attempt}", wire.encode(params)
    requests: dict[str, Parts] = {s: {"message": message, **parts} for s, parts in opening.requests.items()}
    outcome = SumOutcome({site: SiteRound("lost") for site in opening.requests})
    total = np.zeros(sum(block.length for block in blocks), dtype=np.uint32)
    survivors = []
    opening.on_leaving()
    answers = exchange.ask(CONTRIBUTE, requests, deadline_s=settings.deadline_s, group=group)
    for site, answer in answers.items():
        if not answer.ok:
            outcome.note(site, CONTRIBUTE, answer)
            opening.note(site, CONTRIBUTE, answer)
            continue
        try:
            opening.admission.admit(site, answer.parts)
            total += _plain_ring(answer, total.size)
        except FedcartError as error:
            outcome.refuse(site, CONTRIBUTE, error)
            continue
        survivors.append(site)
        outcome.sites[site] = SiteRound("ok")
    opening.admission.close()
    outcome.survivors = outcome.exposed = tuple(survivors)
    if len(survivors) < settings.min_sites:
        outcome.aborted = "too-few-contribute"
        return outcome
    decoded = fixedpoint.decode(total, blocks)
    outcome.blocks = {block.name: decoded[part] for block, part in fixedpoint.slices(blocks)}
    return outcome


def _plain_ring(answer: Answer, length: int) -> NDArray[np.uint32]:
    ring = answer.parts.get("ring")
    if not isinstance(ring, bytes) or len(ring) != 4 * length:
        raise RemoteProtocolError(f"{answer.site} sent no vector of {length} coordinates")
    return np.frombuffer(ring, dtype="<u4")
