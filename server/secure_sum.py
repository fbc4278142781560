"""The sum over a cohort, and nothing but the sum.

``secure_sum`` drives the secure-aggregation machine over five exchanges. ``plain_sum`` is the same
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
from common.config import AggregationSettings
from common.contribution import Block
from common.errors import FedcartError, RemoteProtocolError, RoundAbortedError
from common.flower import Parts
from common.run.records import SiteRound
from common.secagg.messages import Params
from common.secagg.server import ADVERTISE, MASK, ServerProtocol
from server.admission import Admission
from server.exchange import Answer, Exchange

CONTRIBUTE = "contribute"
SITE_REFUSALS = ("policy", "budget", "rollback", "refused")


@dataclass(frozen=True)
class Opening:
    """The first exchange of a round: what travels to each site beside the session's parameters (query, model,
    echoed head), and who decides which answers are let in. ``on_leaving`` is called before the sites are asked
    for what they cannot take back."""

    requests: Mapping[str, Parts]
    admission: Admission
    on_leaving: Callable[[], None] = lambda: None


@dataclass
class SumOutcome:
    """What a round of exchanges gave, complete or not.

    ``blocks``: the decoded sum by block name, empty if the round was aborted. ``sites``: what each invited
    site did.
    ``exposed``: sites whose masked vector has left; their contribution is dead and charged.
    Units: ``protocol_seconds`` wall time of all exchanges after the one that trains.
    """

    sites: dict[str, SiteRound]
    blocks: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()
    evidence: str = ""
    aborted: str = ""
    exposed: tuple[str, ...] = ()
    protocol_seconds: float = 0.0

    def note(self, site: str, phase: str, answer: Answer) -> None:
        """Record why a site is out of the round."""
        status = "lost"
        if answer.error in SITE_REFUSALS:
            status = "stopped" if answer.error == "budget" else "refused"
        reason = str(answer.parts.get("rule", "")) or answer.error
        self.sites[site] = SiteRound(status, reason[:80], phase)


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
        return outcome
    result = machine.result
    outcome.blocks, outcome.survivors = result.decode_blocks(), result.survivors
    outcome.evidence = result.evidence.to_json()
    for site in result.survivors:
        outcome.sites[site] = SiteRound("ok")
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
            continue
        try:
            if phase == ADVERTISE:
                opening.admission.admit(site, answer.parts)
            machine.receive(site, answer.parts["message"])
        except (FedcartError, KeyError) as error:
            outcome.sites[site] = SiteRound("lost", getattr(error, "code", "protocol"), phase)
    if phase == ADVERTISE:
        opening.admission.close()


def plain_sum(
    exchange: Exchange, blocks: tuple[Block, ...], group: str, opening: Opening, settings: AggregationSettings
) -> SumOutcome:
    """Sum the contributions in the clear: the server sees each of them. Simulations and tests only."""
    outcome = SumOutcome({site: SiteRound("lost") for site in opening.requests})
    total = np.zeros(sum(block.length for block in blocks), dtype=np.uint32)
    survivors = []
    opening.on_leaving()
    answers = exchange.ask(CONTRIBUTE, opening.requests, deadline_s=settings.deadline_s, group=group)
    for site, answer in answers.items():
        if not answer.ok:
            outcome.note(site, CONTRIBUTE, answer)
            continue
        try:
            opening.admission.admit(site, answer.parts)
            total += _plain_ring(answer, total.size)
        except FedcartError as error:
            outcome.sites[site] = SiteRound("lost", error.code, CONTRIBUTE)
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
    ring = np.frombuffer(answer.parts.get("ring", b""), dtype="<u4")
    if ring.size != length:
        raise RemoteProtocolError(f"{answer.site} sent {ring.size} coordinates, not {length}")
    return ring
