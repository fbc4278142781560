"""Server optimizers against their papers, written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.training.optimizer import Adam
from common.run import StrategySettings
from server import strategy
from server.state import ServerState

ZERO = ServerState.initial(np.zeros(3, dtype=np.float32), b"\0" * 32)
UPDATES = [np.array([1.0, -2.0, 0.5], dtype=np.float32), np.array([0.5, 0.5, 0.5], dtype=np.float32)]


def _run(settings: StrategySettings) -> ServerState:
    state = ZERO
    for update in UPDATES:
        state = strategy.apply(state, update, settings, private_steps=1)
    return state


def test_fedavg_adds_the_mean_updates() -> None:
    assert np.allclose(_run(StrategySettings(name="fedavg")).parameters, UPDATES[0] + UPDATES[1])


def test_fedavgm_carries_velocity() -> None:
    found = _run(StrategySettings(name="fedavgm", momentum=0.5)).parameters
    assert np.allclose(found, UPDATES[0] + (UPDATES[1] + 0.5 * UPDATES[0]))


def test_fedyogi_follows_reddi_et_al_2021_algorithm_2_and_is_not_fedadam() -> None:
    b1, b2, eta = 0.9, 0.99, 0.05
    m, v, x = np.zeros(3), np.zeros(3), np.zeros(3)
    for update in UPDATES:
        m = b1 * m + (1 - b1) * update
        v = v - (1 - b2) * update**2 * np.sign(v - update**2)
        x = x + eta * m / (np.sqrt(v) + 1e-3)
    settings = StrategySettings(name="fedyogi", momentum=b1, beta2=b2, learning_rate=eta)
    found = _run(settings).parameters
    np.testing.assert_allclose(found, x, rtol=1e-5)
    assert not np.allclose(found, _run(settings.model_copy(update={"name": "fedadam"})).parameters, rtol=1e-3)


def test_fedadam_follows_reddi_et_al_2021_algorithm_2() -> None:
    b1, b2, eta, eps = 0.9, 0.99, 0.1, 1e-3
    x = m = v = np.zeros(3)
    for update in UPDATES:
        m = b1 * m + (1 - b1) * update
        v = b2 * v + (1 - b2) * update**2
        x = x + eta * m / (np.sqrt(v) + eps)
    found = _run(StrategySettings(name="fedadam", momentum=b1, beta2=b2, learning_rate=eta)).parameters
    assert np.allclose(found, x, rtol=1e-5)


def test_the_average_forgets_the_random_start() -> None:
    start = replace(
        ZERO, parameters=np.full(3, 100.0, dtype=np.float32), average=np.full(3, 100.0, dtype=np.float32)
    )
    state = start
    for _ in range(30):
        state = strategy.apply(state, (-state.parameters).astype(np.float32), StrategySettings(ema=0.97), 10)
    assert np.abs(state.average).max() < 0.1


@pytest.mark.parametrize("ema", [0.0, 0.97])
def test_without_movement_nothing_changes(ema: float) -> None:
    state = strategy.apply(ZERO, np.zeros(3, dtype=np.float32), StrategySettings(ema=ema), 10)
    assert np.array_equal(state.parameters, ZERO.parameters)
    assert np.array_equal(state.average, ZERO.average)
    assert state.round == 1


def test_scalar_adam_is_the_sites_own_adam_behind_the_sum() -> None:
    """The client's optimizer, written for torch and for gradients, is the oracle: an update is a gradient downhill."""
    settings = StrategySettings(name="scalar-adam", learning_rate=0.03, momentum=0.9, beta2=0.99, ema=0.0)
    oracle, theta = Adam(0.03, scalar=True, momentum=0.9), torch.zeros(3)
    state = ZERO
    for update in (*UPDATES, np.zeros(3, dtype=np.float32), *UPDATES):
        state = strategy.apply(state, update, settings, private_steps=1)
        oracle.step(theta, torch.from_numpy(-update))
        assert np.allclose(state.parameters, theta.numpy(), rtol=1e-5)
    assert int(state.moments["count"][0]) == 5


def test_scalar_adam_does_not_ask_how_long_updates_are() -> None:
    settings = StrategySettings(name="scalar-adam", learning_rate=0.03)
    long, short = ZERO, ZERO
    for update in UPDATES:
        long = strategy.apply(long, 100 * update, settings, private_steps=1)
        short = strategy.apply(short, update / 100, settings, private_steps=1)
    assert np.allclose(long.parameters, short.parameters, rtol=1e-4)
