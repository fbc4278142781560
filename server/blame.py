"""What follows from a proven fault: who is left out of the next attempt, and who is not invited any more."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from common.run import FaultRecord, RunFolder, SiteRound, excluded as excluded
from common.secagg.blame import ProofFile, Proofs, culprits
from server.secure_sum import SumOutcome


@dataclass
class Blamed:
    """The faults of all attempts at one question, and what proves them."""

    faults: list[FaultRecord] = field(default_factory=list)
    proofs: list[Proofs] = field(default_factory=list)
    _left_out: dict[str, SiteRound] = field(default_factory=dict)

    def note(self, outcome: SumOutcome, attempt: int) -> tuple[str, ...]:
        """Take in what an attempt has proven; the sites that it names, for the next attempt to go without."""
        self.faults += [FaultRecord(f.culprit, f.victim, f.kind, attempt) for f in outcome.faults]
        if outcome.proofs:
            self.proofs.append(outcome.proofs)
        named = culprits(outcome.faults)
        self._left_out |= {site: outcome.sites[site] for site in named}
        return named

    def complete(self, outcome: SumOutcome) -> None:
        """Name in the last attempt's outcome those who were left out of it."""
        outcome.sites = self._left_out | outcome.sites

    def write(self, folder: RunFolder, number: int) -> str:
        """Write the proofs of a round; their digest, empty if there is nothing to prove."""
        if not self.proofs:
            return ""
        text = ProofFile(tuple(self.proofs)).to_json()
        folder.write_proofs(number, text)
        return hashlib.sha256(text.encode()).hexdigest()
