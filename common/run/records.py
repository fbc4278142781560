"""What a run says of itself, round by round: one ``RoundRecord`` each, and how a run may end."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from common.strict_json import one_line

RUNNING = "running"
INTERRUPTED = "interrupted"
COMPLETED = "completed"
FAILED = "failed"  # all planned rounds were run, and none gave a sum: there is no model
STOPPED = "stopped"  # gracefully, before the planned rounds: budget, policy, or too few sites


@dataclass(frozen=True)
class SiteRound:
    """What one site did in one round. ``status``: ok, lost, refused, stopped, not-invited; ``phase`` of a loss."""

    status: str
    reason: str = ""
    phase: str = ""


@dataclass(frozen=True)
class RoundRecord:
    """One line of ``metrics.jsonl``, where null is a metric that has no value; the closing evaluation has ``kind = "evaluate"`` and the next number.

    ``released``: noised and charged (model at the start of the round); ``public``: follows from settings
    or released sums; ``oracle``: computed by the simulation from all data (model at the end of the round).
    ``epsilon``: spent per site so far, from the ledgers' signed attestations, a RESERVE counts as spent.
    Units: bytes over all sites, seconds of wall time.
    """

    round: int
    kind: str = "train"
    released: dict[str, float] = field(default_factory=dict)
    public: dict[str, float] = field(default_factory=dict)
    oracle: dict[str, float] = field(default_factory=dict)
    sites: dict[str, SiteRound] = field(default_factory=dict)
    epsilon: dict[str, float] = field(default_factory=dict)
    attestations: dict[str, Any] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    protocol_seconds: float = 0.0
    aggregation: str = "plain"
    private: bool = True
    aborted: str = ""

    @property
    def answered(self) -> int:
        """Number of sites whose contribution is in the sum."""
        return sum(site.status == "ok" for site in self.sites.values())

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """All numbers of the round, by what they are."""
        return {"released": self.released, "public": self.public, "oracle": self.oracle}

    @property
    def worst_epsilon(self) -> float | None:
        """Largest epsilon so far over the sites, None without a ledger."""
        return max(self.epsilon.values(), default=None)

    def to_json(self) -> str:
        """One line of canonical JSON."""
        return one_line(asdict(self))

    @staticmethod
    def from_json(text: str) -> RoundRecord:
        """Inverse of ``to_json``. Raises: ValueError, TypeError on foreign text."""
        plain = json.loads(text)
        plain["sites"] = {name: SiteRound(**site) for name, site in plain["sites"].items()}
        for group in ("released", "public", "oracle"):
            plain[group] = {name: math.nan if value is None else value for name, value in plain[group].items()}
        return RoundRecord(**plain)
