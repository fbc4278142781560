"""Thousands of consumers whose gradients point the same way: rounding moves the sum too, and the noise covers it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from client.training.dpsgd.engine import TapeEngine
from client.training.trainer import LocalPlan, rounding_slack
from common.trust.randomness import PrivateStream
from tests.dpsgd_samples import aligned_batcher, model_of

CLIP = 1e-3


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize(
    "consumers",
    [300, 2_000, pytest.param(20_000, marks=pytest.mark.full), pytest.param(60_000, marks=pytest.mark.full)],
)
def test_removing_one_of_many_moves_the_sum_by_little_more_than_the_clipping_norm(
    consumers: int, varied: bool
) -> None:
    engine = TapeEngine(model_of(torch.float32, 1), aligned_batcher(consumers, varied=varied), CLIP)

    def total(rows: np.ndarray) -> np.ndarray:
        summed: np.ndarray = engine.clipped_sum(rows)[0].numpy().copy()
        return summed

    everybody = np.arange(consumers)
    whole = total(everybody)
    assert np.linalg.norm(whole) > 0.8 * consumers * CLIP  # aligned indeed
    for gone in (0, consumers // 2, consumers - 1):
        moved = float(np.linalg.norm(whole - total(np.delete(everybody, gone)))) / CLIP
        assert moved <= 1 + rounding_slack(consumers) / 3


def test_the_noise_is_that_much_larger_than_what_is_charged() -> None:
    plan = LocalPlan(30_000.0, 0.1, 1, 2.0, 1.5, "sgd", 1.0)
    mechanism = plan.mechanism(2.0, PrivateStream())
    noise = mechanism.noise(400_000)
    (event,) = mechanism.events()
    assert event.noise_multiplier == 1.5
    assert noise.std() == pytest.approx(1.5 * 2.0 * (1 + rounding_slack(3_000)), rel=0.01)
    assert mechanism._noise.sensitivity == 2.0 * (1 + rounding_slack(3_000)) > 2.0
