"""What every new run folder holds before round 1, simulated or deployed: plan, public item rows."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from common.atomic import write_atomic
from common.config import RunConfig
from common.model.sales_series import SalesSpec
from common.plan import RunPlan
from common.privacy.calibration import calibrate_noise
from common.run.files import RunFolder
from common.tasks.heads import SALES

if TYPE_CHECKING:
    from common.data.features import FeatureSpec

MASKS_FILE, ITEM_OF_FILE, PLAN_FILE = "masks.npz", "item_of.npy", "plan.json"


def make_plan(
    config: RunConfig, populations: tuple[tuple[str, int], ...], spec: FeatureSpec, parameters: int
) -> RunPlan:
    """Fix every public constant of the run, the noise calibrated to the target epsilon.

    Raises: ConfigError if the target cannot be met.
    """
    if config.task == SALES:
        SalesSpec.of(config)  # dates that are missing, or a series that is too short, are said here
    noise, evaluation = noise_of(config)
    run = f"{config.name}-{uuid4().hex[:12]}"
    return RunPlan(run, config.public_json(), populations, spec.canonical(), parameters, noise, evaluation)


def noise_of(config: RunConfig) -> tuple[float, float]:
    """Noise multipliers of training and of evaluation; 0 for what the run does not release, or not privately.

    A process that asks again gets the answer without the work. Raises: ConfigError if the target cannot be met.
    """
    privacy, training = config.privacy, config.training
    if not privacy.enabled:
        return 0.0, 0.0
    if config.task == SALES:
        return privacy.noise_multiplier or _calibrated(privacy.epsilon, privacy.delta, 1.0, 1), 0.0
    steps = training.rounds * training.local_steps
    noise = privacy.noise_multiplier or _calibrated(privacy.epsilon, privacy.delta, privacy.sampling_rate, steps)
    if privacy.holdout == 0:
        return noise, 0.0
    releases = training.rounds + 1  # one a round, one that closes the run
    return noise, privacy.evaluation_noise or _calibrated(privacy.epsilon, privacy.delta, 1.0, releases)


_calibrated = lru_cache(maxsize=64)(calibrate_noise)


def write_setup(
    folder: RunFolder, plan: RunPlan, masks: Mapping[str, NDArray[np.bool_]], item_of: NDArray[np.int32]
) -> None:
    """Write plan, the sites' public item masks, and the catalogue row of each coordinate (-1: none)."""
    arrays: dict[str, Any] = dict(masks)
    rows, layout = io.BytesIO(), io.BytesIO()
    np.savez_compressed(rows, **arrays)
    np.save(layout, item_of, allow_pickle=False)
    write_atomic(folder.path / MASKS_FILE, rows.getvalue())
    write_atomic(folder.path / ITEM_OF_FILE, layout.getvalue())
    write_atomic(folder.path / PLAN_FILE, plan.to_json().encode())
