"""The sum over a cohort, and nothing but the sum.

``secure_sum`` drives the secure-aggregation machine over five exchanges. ``plain_sum`` is the same
question asked in the clear: a test oracle, and an explicit choice of a simulation, marked in every output.
Both add fixed-point numbers in the same ring, so they give the same sum bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import AggregationSettings
from common.contribution import Block
from common.errors import FedcartError, RoundAbortedError
from common.flower import Parts
from common.runfolder import SiteRound
from common.secagg import fixedpoint, messages
from common.secagg.messages import Params
from common.secagg.server import ADVERTISE, MASK, ServerProtocol
from server.exchange import Answer, Exchange

CONTRIBUTE = "contribute"
SITE_REFUSALS = ("policy", "budget", "rollback", "refused")


@dataclass
class SumOutcome:
    """What a round of exchanges gave, complete or not.

    ``blocks``: the decoded sum by block name, empty if the round was aborted. ``sites``: what each invited
    site did. ``attestations``: signed ledger statements as the sites sent them, unchecked.
    ``exposed``: sites whose masked vector has left; their contribution is dead and charged.
    Units: ``protocol_seconds`` wall time of all exchanges after the one that trains.
    """

    sites: dict[str, SiteRound]
    blocks: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()
    attestations: dict[str, Any] = field(default_factory=dict)
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


def secure_sum(
    exchange: Exchange, params: Params, opening: Mapping[str, Parts], settings: AggregationSettings
) -> SumOutcome:
    """Sum the cohort's contributions so that nobody sees one of them.

    ``opening``: what travels to each site beside the parameters in exchange 1 (query, model, echoed head).
    Guarantee: the decoded sum is over at least ``params.threshold`` sites, or ``aborted`` says why not.
    """
    machine = ServerProtocol(params)
    outcome = SumOutcome({site: SiteRound("lost") for site in params.sites})
    group = f"{params.session.round}.{params.session.attempt}"
    try:
        while not machine.finished:
            phase, started = machine.phase, time.monotonic()
            _exchange(exchange, machine, outcome, opening, settings, group)
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
    opening: Mapping[str, Parts],
    settings: AggregationSettings,
    group: str,
) -> None:
    phase = machine.phase
    asked = machine.requests()
    encoded = {id(request): messages.encode(request) for request in {id(r): r for r in asked.values()}.values()}
    requests: dict[str, Parts] = {
        site: {"message": encoded[id(request)]} | (dict(opening[site]) if phase == ADVERTISE else {})
        for site, request in asked.items()
    }
    deadline_s = settings.deadline_s if phase == ADVERTISE else settings.exchange_deadline_s
    for site, answer in exchange.ask(phase, requests, deadline_s=deadline_s, group=group).items():
        if not answer.ok:
            outcome.note(site, phase, answer)
            continue
        try:
            machine.receive(site, answer.parts["message"])
        except (FedcartError, KeyError) as error:
            outcome.sites[site] = SiteRound("lost", getattr(error, "code", "protocol"), phase)
            continue
        if "attestation" in answer.parts:
            outcome.attestations[site] = answer.parts["attestation"]


def plain_sum(
    exchange: Exchange,
    blocks: tuple[Block, ...],
    group: str,
    opening: Mapping[str, Parts],
    settings: AggregationSettings,
) -> SumOutcome:
    """Sum the contributions in the clear: the server sees each of them. Simulations and tests only."""
    outcome = SumOutcome({site: SiteRound("lost") for site in opening})
    total = np.zeros(sum(block.length for block in blocks), dtype=np.uint32)
    survivors = []
    for site, answer in exchange.ask(CONTRIBUTE, opening, deadline_s=settings.deadline_s, group=group).items():
        ring = np.frombuffer(answer.parts.get("ring", b""), dtype="<u4")
        if not answer.ok or ring.shape != total.shape:
            outcome.note(site, CONTRIBUTE, answer if not answer.ok else Answer(site, error="protocol-remote"))
            continue
        total += ring
        survivors.append(site)
        outcome.sites[site] = SiteRound("ok")
        if "attestation" in answer.parts:
            outcome.attestations[site] = answer.parts["attestation"]
    outcome.survivors = outcome.exposed = tuple(survivors)
    if len(survivors) < settings.min_sites:
        outcome.aborted = "too-few-contribute"
        return outcome
    decoded = fixedpoint.decode(total, blocks)
    outcome.blocks = {block.name: decoded[part] for block, part in fixedpoint.slices(blocks)}
    return outcome
