"""What a run says of itself before round 1: ``RunFacts``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.strict_json import fields_of


@dataclass(frozen=True)
class SiteFacts:
    """One site of a run. ``population`` is declared (public); ``items``: rows it stocks and shares."""

    name: str
    population: int
    items: int
    note: str = ""


_FIGURES_BEFORE = (
    "rounds", "local_steps", "noise_multiplier", "epsilon_target", "delta", "sampling_rate", "expected_signal", "parameters",
)  # fmt: skip


@dataclass(frozen=True)
class RunFacts:
    """What is known before round 1; all public, but ``data`` (oracle: counts of the log, cleaning report).

    Units: ``epsilon_target`` and ``delta`` of the whole run, per site and consumer; ``expected_signal``
    is S of docs/simulate.md, infinite without privacy (null in JSON). ``noise_multiplier``: of what holds the noise, each
    site's release or the sum; ``trust``: against whom a sum's noise is enough, empty where each site's own is enough against
    everybody; ``alone``: epsilon of the whole run if no other site is honest, 0 likewise.
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
    trust: str = ""
    alone: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return fields_of(self) | {"out": str(self.out)}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> RunFacts:
        """Inverse of ``to_json``. Raises: TypeError, KeyError on foreign values."""
        signal = plain["expected_signal"]
        require_figures(
            *(plain[name] for name in _FIGURES_BEFORE), *(site["population"] for site in plain["sites"])
        )
        parts = {
            "out": Path(plain["out"]),
            "sites": tuple(SiteFacts(**site) for site in plain["sites"]),
            "assumptions": tuple(plain["assumptions"]),
            "expected_signal": math.inf if signal is None else signal,
        }
        return RunFacts(**{**plain, **parts})


def require_figures(*values: Any) -> None:
    """Return if these are numbers, null, or names with numbers. Raises: TypeError."""
    for value in values:
        each = value.values() if isinstance(value, dict) else (value,)
        if any(not isinstance(one, int | float | None) for one in each):
            raise TypeError("a figure is a number")
