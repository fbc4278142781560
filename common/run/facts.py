"""What is known of a run before round 1: who takes part, under which promise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SiteFacts:
    """One site of a run. ``population`` is declared (public); ``items``: rows it stocks and shares."""

    name: str
    population: int
    items: int
    note: str = ""


@dataclass(frozen=True)
class RunFacts:
    """What is known before round 1; all public, but ``data`` (oracle: counts of the log, cleaning report).

    Units: ``epsilon_target`` and ``delta`` of the whole run, per site and consumer; ``expected_signal``
    is S of docs/simulate.md, infinite without privacy (null in JSON).
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

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"out": str(self.out)}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> RunFacts:
        """Inverse of ``to_json``. Raises: TypeError, KeyError on foreign values."""
        signal = plain["expected_signal"]
        parts = {
            "out": Path(plain["out"]),
            "sites": tuple(SiteFacts(**site) for site in plain["sites"]),
            "assumptions": tuple(plain["assumptions"]),
            "expected_signal": math.inf if signal is None else signal,
        }
        return RunFacts(**{**plain, **parts})
