"""The plan of a new run, simulated or deployed: every public constant fixed, the noise calibrated."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import uuid4

from common.privacy import (
    Quorum,
    calibrate_noise,
    delta_remark,
    usual_colluders,
    with_slack,
)
from common.run import RunConfig, RunPlan
from common.secagg.params import MAX_SITES, default_threshold
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
    config = settled(config, len(populations))
    noise, evaluation = noise_of(config)
    config = config.model_copy(
        update={"privacy": config.privacy.model_copy(update={"closing_noise": closing_noise_of(config)})}
    )
    run = f"{config.name}-{uuid4().hex[:12]}"
    plan = RunPlan(run, config.public_json(), populations, spec.canonical(), parameters, noise, evaluation)
    if plan.quorum:
        plan.blocks("train")  # whether noise and clipped sums fit the ring is said here
    return plan


def settled(config: RunConfig, sites: int) -> RunConfig:
    """The settings with threshold, colluders and honest sites as numbers, for a run of so many sites that share its noise.

    Colluders are counted among all of them, also where a cohort is picked for each round: all of them may be in one.
    Raises: ConfigError if the noise cannot be counted on.
    """
    if config.privacy.trust != "quorum":
        return config
    privacy, aggregation = config.privacy, config.aggregation
    cohort = min(sites, aggregation.max_cohort, MAX_SITES)
    threshold = aggregation.threshold or default_threshold(cohort)
    colluders = usual_colluders(sites) if privacy.colluders < 0 else privacy.colluders
    quorum = Quorum(cohort, threshold, colluders, privacy.honest or max(threshold - colluders, 0))
    quorum.check()
    shared = {"colluders": colluders, "honest": quorum.honest}
    return config.model_copy(
        update={
            "privacy": privacy.model_copy(update=shared),
            "aggregation": aggregation.model_copy(update={"threshold": threshold}),
        }
    )


def remark_on(plan: RunPlan) -> str:
    """What is to be said of a plan before it runs; empty if nothing."""
    privacy = plan.config.privacy
    return delta_remark(privacy.delta, dict(plan.populations)) if privacy.enabled else ""


def noise_of(config: RunConfig) -> tuple[float, float]:
    """Noise multipliers of training and of evaluation that each site draws; 0 for what the run does not release, or not
    privately.

    Where sites share the noise of a sum, ``config`` is a settled one. Raises: ConfigError if the target cannot be met.
    """
    noise, evaluation = noise_of_sums(config)
    if config.privacy.trust != "quorum":
        return noise, evaluation
    quorum = Quorum(0, 0, config.privacy.colluders, config.privacy.honest)
    return quorum.share(noise), quorum.share(evaluation)


def noise_of_sums(config: RunConfig) -> tuple[float, float]:
    """The same that the target asks of what holds the noise: each site's release, or the sum where they share it.

    A process that asks again gets the answer without the work. Raises: ConfigError if the target cannot be met.
    """
    if not config.privacy.enabled:
        return 0.0, 0.0
    shared = config.privacy.trust == "quorum"
    return task_named(config.task).calibrate(config, _calibrated_in_sum if shared else _calibrated)


def closing_noise_of(config: RunConfig) -> float:
    """Noise multiplier of the closing evaluation, 0 where it is that of the rounds. Raises: as ``noise_of``."""
    if not config.privacy.enabled:
        return 0.0
    shared = config.privacy.trust == "quorum"
    return task_named(config.task).closing(config, _calibrated_in_sum if shared else _calibrated)


LEAST_NOISE = 0.25  # multiplier of a sum down to which the slack of discrete noise is what is calibrated for

_calibrated = lru_cache(maxsize=64)(calibrate_noise)


def _calibrated_in_sum(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The noise of a sum that meets the target with discrete noise too, whose slack is a part of it."""
    slack, left = with_slack(delta, steps, LEAST_NOISE)
    return _calibrated(epsilon - slack, left, rate, steps)
