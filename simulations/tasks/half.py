"""The oracle's half of a task: one module, found by the task's room."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from common.tasks import task_named

if TYPE_CHECKING:
    from common.data import Catalogue
    from common.run import RoundRecord, RunConfig, RunPlan

Figures = dict[str, float]


class OracleHalf(Protocol):
    """What ``simulations/tasks/ROOM.py`` has. Numbers are *oracle*: no server sees them."""

    NOISED_REFERENCE: bool
    """Whether central training with the noise of all sites means something."""

    def fill_in(self, config: RunConfig, dealt: Any, known: Catalogue | None) -> RunConfig:
        """The settings with what a deployment declares and a simulation takes from its log."""

    def encoded(self, config: RunConfig, dealt: Any, spec: Any, catalogue: Catalogue | None) -> dict[str, Any]:
        """What each site's model reads of its consumers, by site; empty if it reads none."""

    def store(self, kit_state: Path, plan: RunPlan, part: Any, encoded: Any, mask: Any) -> None:
        """Leave a site's prepared data in its kit, so that no site prepares it again."""

    def hold_out_sums(self, kit: str, plan: RunPlan, vector: NDArray[np.float32]) -> list[float]:
        """Exact metric sums of a model at one site, in the order of ``RunPlan.metrics``."""

    def baselines(self, kits: list[str], plan: RunPlan) -> dict[str, Figures]:
        """Forecasts or guesses that need no training, by name."""

    def train_alone(self, kits: list[str], plan: RunPlan, noise_multiplier: float) -> list[float]:
        """Train on the data of some sites in one place; exact metric sums over those sites."""

    def expectation(self, plan: RunPlan, signal: float, steps: int) -> str:
        """What to expect of a run, in lines of words: public, known before anything is released."""

    def assumptions(self, config: RunConfig) -> list[str]:
        """What a reader must believe of this task's simulation, beside what holds for all."""

    def remarks(self, record: RoundRecord, baselines: dict[str, Figures]) -> list[str]:
        """What the comparison with the baselines asks to be said."""


def oracle_of(task: str) -> OracleHalf:
    """The oracle's half of a task by its name. Raises: ConfigError."""
    return cast(OracleHalf, importlib.import_module(f"simulations.tasks.{task_named(task).room}"))
