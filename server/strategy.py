"""Server optimizers: ``apply(state, mean_update) -> state``. The server sees sums only.

FedAvg (McMahan et al. 2017), FedAvgM (Hsu et al. 2019) and FedAdam (Reddi et al. 2021), each followed by
an exponential moving average of the model, which costs no epsilon: it is post-processing of the sums.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.config import StrategySettings
from server.state import ServerState

Vector = NDArray[np.float32]
_ADAM_EPS = 1e-3  # Reddi et al. 2021, section 5: larger than on one machine, updates are small


def apply(state: ServerState, mean_update: Vector, settings: StrategySettings, private_steps: int) -> ServerState:
    """The state after one round: parameters moved by the strategy, average and moments carried along.

    Shapes: ``mean_update: float32[d]``. ``private_steps``: local steps the update stands for; the moving
    average decays by ``ema ** private_steps``.
    """
    step, moments = _STEPS[settings.name](mean_update, dict(state.moments), settings)
    parameters = (state.parameters + np.float32(settings.learning_rate) * step).astype(np.float32)
    decay = np.float32(settings.ema**private_steps) if settings.ema else np.float32(0)
    # Early rounds would remember the random start: the usual bias-free warm-up keeps the average recent.
    decay = min(decay, np.float32((1 + state.round) / (10 + state.round)))
    average = (decay * state.average + (1 - decay) * parameters).astype(np.float32)
    return replace(state, round=state.round + 1, parameters=parameters, average=average, moments=moments)


def _fedavg(update: Vector, moments: dict[str, Vector], _: StrategySettings) -> tuple[Vector, dict[str, Vector]]:
    return update, moments


def _fedavgm(
    update: Vector, moments: dict[str, Vector], settings: StrategySettings
) -> tuple[Vector, dict[str, Vector]]:
    velocity = update + np.float32(settings.momentum) * moments.get("velocity", np.zeros_like(update))
    return velocity, {"velocity": velocity}


def _fedadam(
    update: Vector, moments: dict[str, Vector], settings: StrategySettings
) -> tuple[Vector, dict[str, Vector]]:
    zeros = np.zeros_like(update)
    beta1, beta2 = np.float32(settings.momentum), np.float32(settings.beta2)
    first = beta1 * moments.get("first", zeros) + (1 - beta1) * update
    second = beta2 * moments.get("second", zeros) + (1 - beta2) * update * update
    step = first / (np.sqrt(second) + np.float32(_ADAM_EPS))
    return np.asarray(step, dtype=np.float32), {"first": first, "second": second}


_STEPS = {"fedavg": _fedavg, "fedavgm": _fedavgm, "fedadam": _fedadam}
