"""A scratch site in sessions of secure aggregation: what it is asked, under signatures, and what opens.

The other sites have nothing but zeros, so a sum that opens is what the scratch site has sent, masks and all taken off.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

import client.session as session
import common.secagg.messages as messages
import common.wire as wire
from client.selftest.people import Scratch
from common.contribution import TRAIN, Query
from common.run import PerformanceSettings, model_bytes, model_digest
from common.secagg.messages import Member, Params, PlainParams, Session

Model = NDArray[np.float32]
_STEPS = {
    "share": session.share,
    "accept": session.accept,
    "mask": session.mask,
    "confirm": session.confirm,
    "unmask": session.unmask,
}


def asked(
    scratch: Scratch, number: int, model: Model, *, kind: str = TRAIN, attempt: int = 1, **changes: Any
) -> dict[str, Any]:
    """The first request of a session, as the coordinator signs it; ``changes``: of its parameters, or ``cohort`` as names."""
    plan, site = scratch.plan, scratch.site
    query = Query(kind, plan.run, number, plan.to_json(), model_digest(model))
    names = changes.pop("cohort", plan.sites)
    usual = plan.config.aggregation.threshold or messages.default_threshold(len(names))
    plain = Params(
        Session(plan.run, number, attempt),
        tuple(Member(one, site.roster.party(one).public_key, plan.weight(one)) for one in names),
        changes.pop("threshold", usual),
        plan.blocks(kind),
        query.model_digest,
        query.digest(),
        site.roster.digest,
        bytes(32),
    )
    params = dataclasses.replace(plain, **changes)
    sign = scratch.coordinator.sign
    return {
        "message": messages.encode(params),
        "invitation": sign(messages.invitation(params)),
        "query": wire.encode(query),
        "signature": sign(query.digest()),
        "model": model_bytes(model),
        "head": "",
    }


def asked_plainly(scratch: Scratch, number: int, model: Model) -> dict[str, Any]:
    """The same question in a session without secure aggregation."""
    plan, secure = scratch.plan, asked(scratch, number, model)
    query = wire.decode(Query, secure["query"])
    plain = PlainParams(
        Session(plan.run, number, 1), plan.sites, query.digest(), scratch.site.roster.digest, bytes(32)
    )
    invited = scratch.coordinator.sign(messages.invitation(plain))
    return secure | {"message": wire.encode(plain), "invitation": invited}


def answered(scratch: Scratch, request: dict[str, Any], *, plainly: bool = False) -> None:
    """Exchange 1, or the only one of a plain session. Raises: what the site refuses the request with."""
    handle = session.contribute if plainly else session.advertise
    handle(scratch.site, request, PerformanceSettings())


class Round:
    """One session of the scratch site with others who are honest, and have zeros. ``memory``: what the site remembers."""

    def __init__(self, scratch: Scratch, request: dict[str, Any]) -> None:
        """Exchange 1. Raises: what the site refuses the request with."""
        from common.secagg.client import ClientProtocol, LocalSite
        from common.secagg.journal import MemoryJournal
        from common.secagg.server import ServerProtocol

        self._site, params = scratch.site, messages.decode(Params, request["message"])
        self._zeros = np.zeros(params.vector_length, dtype=np.uint32)
        self._server = ServerProtocol(params)
        self._others = {
            one.name: ClientProtocol(LocalSite(one, scratch.site.roster, MemoryJournal()), params)
            for one in scratch.others
            if one.name in params.sites
        }
        reply, self.memory = session.advertise(scratch.site, request, PerformanceSettings())
        self.attestation = reply["attestation"]
        self._finish_exchange({scratch.site.name: reply["message"]})

    def step(self) -> None:
        """The next exchange. Raises: what the site refuses it with; then the exchange is not over."""
        request = self._server.requests()[self._site.name]
        answer = _STEPS[self._server.phase]
        reply, self.memory = answer(self._site, {"message": messages.encode(request)}, self.memory)
        self._finish_exchange({self._site.name: reply["message"]})

    def step_from(self, *phases: str) -> bool:
        """The next exchange if it is one of these; whether it was. Raises: as ``step``."""
        if self._server.phase not in phases:
            return False
        self.step()
        return True

    def opened(self) -> NDArray[np.uint32]:
        """All exchanges that are left, and the sum: ``uint32[d]``."""
        while not self._server.finished:
            self.step()
        ring: NDArray[np.uint32] = self._server.result.ring_sum
        return ring

    def _finish_exchange(self, answers: dict[str, bytes]) -> None:
        for name, request in self._server.requests().items():
            if name in self._others:
                answers[name] = messages.encode(self._answer(name, request))
        for name, raw in answers.items():
            self._server.receive(name, raw)
        self._server.advance()

    def _answer(self, name: str, request: Any) -> Any:
        machine, phase = self._others[name], self._server.phase
        if phase == "advertise":
            return machine.advertise()
        if phase == "mask":
            return machine.mask(request, self._zeros, name.encode().ljust(32, b"."))
        return getattr(machine, phase)(request)
