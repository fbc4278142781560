"""The layout of an answer whose noise is drawn in the ring, because the sum is to hold the noise of several sites.

Every site sends its clipped sum, times one public constant that is the same for all: so each may add the same noise, and a
larger site weighs more by itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from common.contribution import METRICS, TRAIN, UPDATE, Block
from common.privacy import noised_grid
from common.tasks.local_steps import LocalConstants, local_constants
from common.tasks.metric_sums import metric_sensitivity

LEAST_SUM = 50.0  # clipping norms that a coordinate of a site's sum may reach, however few consumers it has
SHARE_OF_BATCH = 0.25  # of the clipping norms of a whole batch; .06 is the most that was seen
LEAST_COUNT = 100.0  # held-out consumers that a metric sum may hold, however few there are


def noised_blocks(task: Any, plan: Any, kind: str) -> tuple[Block, ...]:
    """The blocks of an answer to a query of this kind, in a quorum. Raises: ConfigError if noise and sums do not fit the ring."""
    metrics = len(task.metrics(plan.config)) if task.evaluates(plan.config) else 0
    blocks = (_update(plan),) if kind == TRAIN else ()
    return (*blocks, _metrics(plan, kind, metrics)) if metrics else blocks


def largest_constants(plan: Any) -> LocalConstants:
    """The local constants of the site with the most consumers, by whose batch the sums of all are divided."""
    largest = max(population for _, population in plan.populations)
    return local_constants(plan.config, largest, plan.cohort, plan.noise_multiplier, plan.signal)


def scale_of(constants: LocalConstants) -> float:
    """What a clipped sum is multiplied by, so that a weighted mean of the results is the mean step of plain SGD."""
    return constants.learning_rate / constants.expected_batch


def update_noise(plan: Any) -> float:
    """Standard deviation of what each site adds to its update times its weight."""
    return _update(plan).noise_scale


def noise_needs(plan: Any, kind: str, block: str) -> tuple[float, float]:
    """What one consumer moves a block by, L2 in its values, and the multiplier that each site's noise must be worth."""
    if block == UPDATE:
        constants = largest_constants(plan)
        return scale_of(constants) * constants.sensitivity, plan.noise_multiplier
    return metric_sensitivity(list(plan.config.model.heads)), plan.measured(kind).noise


def _update(plan: Any) -> Block:
    constants = largest_constants(plan)
    limit = max(LEAST_SUM, SHARE_OF_BATCH * constants.expected_batch) * constants.clip
    sensitivity, multiplier = noise_needs(plan, TRAIN, UPDATE)
    return _block(UPDATE, plan.parameters, sensitivity, scale_of(constants) * limit, plan.cohort, multiplier)


def _metrics(plan: Any, kind: str, length: int) -> Block:
    largest = max(population for _, population in plan.populations)
    limit = max(LEAST_COUNT, 2 * plan.measured(kind).share * largest)
    sensitivity, multiplier = noise_needs(plan, kind, METRICS)
    return _block(METRICS, length, sensitivity, limit, plan.cohort, multiplier)


@lru_cache(maxsize=64)
def _block(name: str, length: int, sensitivity: float, limit: float, sites: int, multiplier: float) -> Block:
    grid = noised_grid(sites=sites, length=length, sensitivity=sensitivity, limit=limit, multiplier=multiplier)
    return Block(name, length, float(limit), 0, grid.unit, grid.log2_sigma)
