"""Server optimizers: ``apply(state, mean_update) -> state``. The server sees sums only.

FedAvg (McMahan et al. 2017), FedAvgM (Hsu et al. 2019), FedAdam and FedYogi (Reddi et al. 2021) and scalar Adam, each followed by
an exponential moving average of the model, which costs no epsilon: it is post-processing of the sums.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, WorkFailedError
from common.run import StrategySettings
from server.state import ServerState

Vector = NDArray[np.float32]
_ADAM_EPS = 1e-3  # Reddi et al. 2021, section 5: larger than on one machine, updates are small


_TINY = 1e-12
CUSTOM = "custom:"  # before the name of a strategy that a program has registered
CustomStrategy = Callable[[ServerState, Vector], ServerState]
_custom: dict[str, CustomStrategy] = {}


def register(name: str, strategy: CustomStrategy) -> None:
    """Make ``strategy.name = "custom:NAME"`` mean ``strategy(state, mean_update) -> state`` in this process.

    Raises: ConfigError for a name that is no word, or a strategy that cannot be called.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        raise ConfigError(f"{name!r} is not a name for a strategy", hint="letters, digits and hyphens only")
    if not callable(strategy):
        raise ConfigError(
            f"{strategy!r:.60} is no strategy", hint="give a function of (state, update) that returns the state"
        )
    _custom[name] = strategy


def require_known(settings: StrategySettings) -> None:
    """Return if this process can apply the strategy. Raises: ConfigError: better before anything is charged."""
    name = settings.name.removeprefix(CUSTOM)
    if settings.name.startswith(CUSTOM) and name not in _custom:
        raise ConfigError(
            f"no strategy {name!r} is registered in this process",
            hint=f"register it first: fedcart.register_strategy; registered: {', '.join(sorted(_custom)) or 'none'}",
        )


def apply(state: ServerState, mean_update: Vector, settings: StrategySettings, private_steps: int) -> ServerState:
    """The state after one round: parameters moved by the strategy, average and moments carried along.

    Shapes: ``mean_update: float32[d]``. ``private_steps``: local steps the update stands for; the moving
    average decays by ``ema ** private_steps``.
    """
    if settings.name.startswith(CUSTOM):
        require_known(settings)
        moved = _apply_custom(settings.name.removeprefix(CUSTOM), state, mean_update)
        parameters, moments = moved.parameters, moved.moments
    else:
        step, moments = _STEPS[settings.name](mean_update, dict(state.moments), settings)
        parameters = (state.parameters + np.float32(settings.learning_rate) * step).astype(np.float32)
    decay = np.float32(settings.ema**private_steps) if settings.ema else np.float32(0)
    # Early rounds would remember the random start: the usual bias-free warm-up keeps the average recent.
    decay = min(decay, np.float32((1 + state.round) / (10 + state.round)))
    average = (decay * state.average + (1 - decay) * parameters).astype(np.float32) if decay else parameters
    return replace(state, round=state.round + 1, parameters=parameters, average=average, moments=moments)


def _apply_custom(name: str, state: ServerState, update: Vector) -> ServerState:
    """The state that a registered strategy gives. Raises: ConfigError if that is no usable one, WorkFailedError."""
    try:
        moved = _custom[name](state, update)
    except Exception as error:  # whatever somebody else's code raises
        raise WorkFailedError(
            f"strategy {name!r} failed: {type(error).__name__}: {error}",
            hint="the run can be resumed once it is mended",
        ) from error
    shape = getattr(getattr(moved, "parameters", None), "shape", None)
    if shape != state.parameters.shape:
        raise ConfigError(
            f"strategy {name!r} gave parameters of shape {shape}, they are {state.parameters.shape}",
            hint="return dataclasses.replace(state, parameters=...)",
        )
    parameters = moved.parameters.astype(np.float32)
    if not np.isfinite(parameters).all():
        raise ConfigError(
            f"strategy {name!r} gave parameters that are no numbers",
            hint="mend it, and resume the run from its checkpoint",
        )
    return replace(moved, parameters=parameters)


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
    beta2, square = np.float32(settings.beta2), update * update
    second = beta2 * moments.get("second", np.zeros_like(update)) + (1 - beta2) * square
    return _adaptive(update, moments, settings, second)


def _fedyogi(
    update: Vector, moments: dict[str, Vector], settings: StrategySettings
) -> tuple[Vector, dict[str, Vector]]:
    """As FedAdam, but the second moment moves by what is new alone: it falls slowly after a large update."""
    beta2, square = np.float32(settings.beta2), update * update
    before = moments.get("second", np.zeros_like(update))
    return _adaptive(update, moments, settings, before - (1 - beta2) * square * np.sign(before - square))


def _adaptive(
    update: Vector, moments: dict[str, Vector], settings: StrategySettings, second: Vector
) -> tuple[Vector, dict[str, Vector]]:
    beta1 = np.float32(settings.momentum)
    first = beta1 * moments.get("first", np.zeros_like(update)) + (1 - beta1) * update
    step = first / (np.sqrt(second) + np.float32(_ADAM_EPS))
    return np.asarray(step, dtype=np.float32), {"first": first, "second": second}


def _scalar_adam(
    update: Vector, moments: dict[str, Vector], settings: StrategySettings
) -> tuple[Vector, dict[str, Vector]]:
    """Adam with one second moment that all coordinates share, bias-corrected: under noise of equal scale their own carry no
    signal. A round without a sum is no step."""
    beta1, beta2 = np.float32(settings.momentum), np.float32(settings.beta2)
    count = moments.get("count", np.zeros(1, np.float32)) + np.float32(1)
    first = beta1 * moments.get("first", np.zeros_like(update)) + (1 - beta1) * update
    square = np.float32(np.dot(update, update) / max(update.size, 1))
    second = beta2 * moments.get("second", np.zeros(1, np.float32)) + (1 - beta2) * square
    scale = np.sqrt(second / (1 - beta2**count)) + np.float32(_TINY)
    step = first / ((1 - beta1**count) * scale)
    return np.asarray(step, dtype=np.float32), {"first": first, "second": second, "count": count}


_STEPS = {
    "scalar-adam": _scalar_adam,
    "fedavg": _fedavg,
    "fedavgm": _fedavgm,
    "fedadam": _fedadam,
    "fedyogi": _fedyogi,
}
