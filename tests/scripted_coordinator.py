"""A coordinator who signs whatever a test gives him."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common import wire
from common.contribution import TRAIN, Query
from common.run import FAREWELL, Closing, RunPlan, model_bytes, model_digest
from common.secagg import messages
from common.secagg.messages import Member, Params, Session, default_threshold
from common.trust.identity import Identity, Roster


@dataclasses.dataclass(frozen=True)
class Coordinator:
    """Everything a coordinator can sign with, honest or not."""

    out: Path
    plan: RunPlan
    roster: Roster
    identity: Identity
    model: np.ndarray

    def query(self, number: int = 50, **changes: Any) -> Query:
        plan = changes.pop("plan", self.plan)
        return dataclasses.replace(
            Query(TRAIN, plan.run, number, plan.to_json(), model_digest(self.model)), **changes
        )

    def request(self, query: Query, attempt: int = 1, **changes: Any) -> dict[str, Any]:
        cohort = tuple(Member(s, self.roster.party(s).public_key, self.plan.weight(s)) for s in self.plan.sites)
        params = Params(
            Session(query.run, query.round, attempt),
            cohort,
            default_threshold(len(cohort)),
            self.plan.blocks(query.kind),
            query.model_digest,
            query.digest(),
            self.roster.digest,
            bytes(32),
        )
        params = changes.pop("params", params)
        return {
            "message": messages.encode(params),
            "invitation": self.identity.sign(messages.invitation(params)),
            "query": wire.encode(query),
            "signature": self.identity.sign(query.digest()),
            "model": model_bytes(self.model),
            "head": "",
        } | changes

    def farewell(self) -> dict[str, Any]:
        closing = Closing(self.plan.run, 99, "ab" * 32)
        return {"closing": wire.encode(closing), "signature": self.identity.sign(closing.statement(FAREWELL))}

    def session(self, request: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """The request with other parameters, signed by the true coordinator."""
        params = dataclasses.replace(messages.decode(Params, request["message"]), **changes)
        signed = {"invitation": self.identity.sign(messages.invitation(params))}
        return dict(request) | {"message": messages.encode(params)} | signed
