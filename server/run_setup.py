"""The plan of a new run, simulated or deployed: every public constant fixed, the noise calibrated."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import uuid4

from common.privacy import calibrate_noise, delta_remark
from common.run import RunConfig, RunPlan
from common.tasks import task_named

if TYPE_CHECKING:
    from common.data import FeatureSpec


def make_plan(
    config: RunConfig, populations: tuple[tuple[str, int], ...], spec: FeatureSpec, parameters: int
) -> RunPlan:
    """Fix every public constant of the run, the noise calibrated to the target epsilon.

    Raises: ConfigError if the target cannot be met, or delta is too large for a declared population.
    """
    if config.privacy.enabled:
        delta_remark(config.privacy.delta, dict(populations))
    noise, evaluation = noise_of(config)
    config = config.model_copy(
        update={"privacy": config.privacy.model_copy(update={"closing_noise": closing_noise_of(config)})}
    )
    run = f"{config.name}-{uuid4().hex[:12]}"
    return RunPlan(run, config.public_json(), populations, spec.canonical(), parameters, noise, evaluation)


def remark_on(plan: RunPlan) -> str:
    """What is to be said of a plan before it runs; empty if nothing."""
    privacy = plan.config.privacy
    return delta_remark(privacy.delta, dict(plan.populations)) if privacy.enabled else ""


def noise_of(config: RunConfig) -> tuple[float, float]:
    """Noise multipliers of training and of evaluation; 0 for what the run does not release, or not privately.

    A process that asks again gets the answer without the work. Raises: ConfigError if the target cannot be met.
    """
    if not config.privacy.enabled:
        return 0.0, 0.0
    return task_named(config.task).calibrate(config, _calibrated)


def closing_noise_of(config: RunConfig) -> float:
    """Noise multiplier of the closing evaluation, 0 where it is that of the rounds. Raises: as ``noise_of``."""
    if not config.privacy.enabled:
        return 0.0
    return task_named(config.task).closing(config, _calibrated)


_calibrated = lru_cache(maxsize=64)(calibrate_noise)
