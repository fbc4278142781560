"""What a simulation tells its caller: facts before round 1, progress, one record a round, a summary."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.run.records import RoundRecord


@dataclass(frozen=True)
class SiteFacts:
    """A simulated site. ``population`` is declared (public); ``items``: rows it stocks and shares."""

    name: str
    population: int
    items: int
    note: str = ""


@dataclass(frozen=True)
class RunFacts:
    """What is known before round 1; all public, but ``data`` (oracle: counts of the log, cleaning report).

    Units: ``epsilon_target`` and ``delta`` of the whole run, per site and consumer; ``expected_signal``
    is S of docs/simulate.md, infinite without privacy.
    """

    out: Path
    sites: tuple[SiteFacts, ...]
    rounds: int
    local_steps: int
    private: bool
    aggregation: str
    noise_multiplier: float
    epsilon_target: float
    delta: float
    sampling_rate: float
    expected_signal: float
    expectation: str
    parameters: int
    data: dict[str, Any]
    assumptions: tuple[str, ...]
    budget: str


@dataclass(frozen=True)
class Summary:
    """How a run ended; ``summary.json`` has the same keys.

    ``metrics``: released, public and oracle; ``baselines`` are oracle; ``epsilon`` is spent per site, from
    the signed attestations, reservations included.
    """

    status: str
    rounds: int
    metrics: dict[str, dict[str, float]]
    baselines: dict[str, dict[str, float]]
    epsilon: dict[str, float]
    aggregation: str
    private: bool
    paths: dict[str, str]
    seconds: float
    notes: tuple[str, ...] = field(default_factory=tuple)


class Observer:
    """Watches a simulation and says nothing; the command line subclasses it."""

    def prepared(self, facts: RunFacts) -> None:
        """Everything is ready, round 1 starts."""

    def progress(self, round: int, phase: str, done: int, total: int) -> None:  # noqa: A002
        """``done`` of ``total`` sites have answered to ``phase`` of a round; round 0 is preparation."""

    def round_done(self, record: RoundRecord) -> None:
        """One round is over and about to be written."""

    def note(self, message: str) -> None:
        """A sentence for the person at the screen."""

    def finished(self, summary: Summary) -> None:
        """The run is over."""
