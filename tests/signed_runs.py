"""Run folders whose records are signed and belong together, without any training: for tests of what reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from client.guard import Proposal
from common.contribution import TRAIN, Query
from common.privacy.attestation import SignedAttestation, witness_of
from common.run import RunPlan, build_config
from common.run.files import RunFolder
from common.run.records import RoundRecord, SiteRound
from common.trust.identity import Identity, Roster
from server.plausible import judge
from tests.guard_samples import COORDINATOR, proposal

MODEL = "11" * 32


@dataclass(frozen=True)
class SignedRun:
    """A run folder, its plan and its roster."""

    folder: RunFolder
    plan: RunPlan
    roster: Roster

    def proposal(self, number: int, **changes: Any) -> Proposal:
        """What a site of the run is asked in a round."""
        query = Query(TRAIN, self.plan.run, number, self.plan.to_json(), bytes.fromhex(MODEL))
        bound = {"roster": self.roster.digest.hex(), "witness": witness_of(self.heads()).hex(), "attempt": number}
        facts = {
            "query": query.digest().hex(),
            "config": self.plan.digest().hex(),
            "events": self.plan.events(TRAIN),
        }
        return proposal(number, secure=False, **(bound | facts | changes))

    def heads(self) -> dict[str, tuple[int, str]]:
        """The newest attested entry of each site in the records."""
        found = {}
        for record in self.folder.metrics():
            for site, plain in record.attestations.items():
                said = SignedAttestation.from_json(plain).attestation
                found[site] = (said.sequence, said.head)
        return found

    def append(self, number: int, attested: Mapping[str, SignedAttestation], **changes: Any) -> None:
        """The round's record, signed by the coordinator."""
        record = RoundRecord(
            number,
            sites={site: SiteRound("ok") for site in attested},
            epsilon={site: one.attestation.epsilon_after for site, one in attested.items()},
            attestations={site: one.to_json() for site, one in attested.items()},
            attempt=number,
            model=MODEL,
            state=MODEL,
            average=MODEL,
            heads=self.heads(),
            plausible=self.judged(attested),
            previous=self.folder.last_record(),
        )
        record = replace(record, **changes)
        self.folder.append_round(replace(record, signature=COORDINATOR.sign(bytes.fromhex(record.digest)).hex()))

    def judged(self, survivors: Iterable[str]) -> dict[str, tuple[float, float]]:
        """What a sum of nothing but zeros is judged by."""
        known = sorted(survivors)
        if not known:
            return {}
        zeros = {block.name: np.zeros(block.length) for block in self.plan.blocks(TRAIN)}
        return dict(judge(self.plan, TRAIN, zeros, known, None).figures)


def signed_run(
    folder: RunFolder, sites: Mapping[str, Identity], settings: list[str], noise: tuple[float, float]
) -> SignedRun:
    """Write settings, plan and roster of a private run in the clear. ``noise``: of training and of evaluation."""
    config = build_config({}, ["aggregation.mode=plain", *settings])
    plan = RunPlan("run", config.public_json(), tuple((site, 5_000) for site in sites), "{}", 4, *noise)
    roster = Roster.signed_by(COORDINATOR, [(name, one.public_key) for name, one in sites.items()])
    folder.write_settings(config)
    folder.write_plan(plan)
    folder.write_roster(roster)
    return SignedRun(folder, plan, roster)
