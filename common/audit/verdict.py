"""What a verification found: problems, notes, and what every intact ledger says."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.errors import VerificationError
from common.privacy import Reading


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
    quorum: str = ""
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
