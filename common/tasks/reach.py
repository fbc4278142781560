"""How far an honest site's local steps can move a model, by public constants only: what must hold, and what is usual.

What must hold are theorems about clipped gradients, known noise and known optimizers; nothing else refuses a sum. What is
usual was measured on logs, and a log may be unlike them: it shortens, it does not refuse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.tasks.local_steps import BETA1, BETA2, MOMENTUM, LocalConstants

AGREEING = 0.6  # usual: share of the clipping norm that all consumers have in common; .33 was the most in any log
UNEVEN = 2.0  # usual: without noise Adam's steps follow gradients that change in length
SHORT = 6.0  # a Gaussian vector is shorter than the root of its variance by so many deviations at most, but for one in 10^8


@dataclass(frozen=True)
class Reach:
    """How far an honest site's local steps go in one round. Units: length of the update, L2.

    ``signal``: the longest that consumers can make of it, whoever they are. ``usual``: the longest that consumers of
    usual logs make. ``usual_row``: the same for a single row or coordinate; less, as what is common to all consumers
    is learnt in the first steps. ``noise``: standard deviation of what the noise makes of each coordinate,
    ``most_noise``: the largest that it can be.
    """

    signal: float
    usual: float
    usual_row: float
    noise: float = 0.0
    most_noise: float = 0.0


UNLIMITED = Reach(math.inf, math.inf, math.inf)


def most_consumers(declared: float) -> float:
    """How many consumers there may be where so many are declared, sampled or held out: declarations are rounded, sites grow."""
    return 1.5 * declared + 8 * math.sqrt(declared) + 8


def reach(constants: LocalConstants, parameters: int) -> Reach:
    """How far the local steps of one round can go in ``parameters`` coordinates.

    A step moves the model by ``c_t g_t``, and ``g_t`` is the noise and at most ``most_consumers`` gradients of the clipping
    norm, which may all point one way. For SGD ``c_t`` is known. Adam divides by the root ``R_t`` of a mean of squared
    lengths in which ``g_t`` itself has the weight ``v_t``: no step is longer than ``rate sqrt(parameters / v_t)``, and of one
    with ``rho`` times as much signal as noise the signal is at most ``rho / sqrt(1 + v_t rho^2)``.
    """
    batch, scale = constants.expected_batch, constants.noise_multiplier * constants.sensitivity
    most = most_consumers(batch) * constants.sensitivity
    usual = AGREEING * (batch + 4 * math.sqrt(batch)) * constants.clip
    count = constants.steps
    if constants.optimizer in ("sgd", "momentum"):
        moved = _responses(constants)
        total, spread = sum(moved), math.sqrt(sum(part * part for part in moved)) * scale / batch
        length = total * usual / batch
        return Reach(total * most / batch, length, length / math.sqrt(count), spread, spread)
    width, rate = math.sqrt(parameters), constants.learning_rate
    if not scale:
        return adam_reach(rate, count, parameters)
    rho = usual / (scale * width)
    length = rate * count * width * rho / math.sqrt(1 + rho * rho)
    spread = rate * math.sqrt(count)
    signal, low = _longest_signal(constants, width, most / scale), max(1 - SHORT / width, 1e-3)
    return Reach(signal, length, length / math.sqrt(count), spread, spread / low)


def adam_reach(rate: float, steps: int, parameters: int) -> Reach:
    """The same for Adam without noise, whose steps have a longest length whatever the gradients are."""
    width = math.sqrt(parameters)
    usual = rate * steps * UNEVEN * width
    most = rate * width * sum(longest_adam_step(step, BETA1) for step in range(1, steps + 1))
    return Reach(most, usual, usual / math.sqrt(steps))


def longest_adam_step(step: int, momentum: float) -> float:
    """The longest step number ``step`` of Adam, in units of ``rate sqrt(parameters)``, over all gradients.

    First and second moment are means of ``g_s`` and ``g_s^2`` with weights ``w_s`` and ``v_s``, so by the inequality of Cauchy
    and Schwarz the ratio ``|sum w_s g_s| / sqrt(sum v_s g_s^2)`` is at most ``sqrt(sum w_s^2 / v_s)``.
    """
    first, second = _weights(step, momentum), _weights(step, BETA2)
    return math.sqrt(sum(w * w / v for w, v in zip(first, second, strict=True)))


def _weights(step: int, decay: float) -> list[float]:
    """What each of ``step`` values counts in a bias-corrected moving mean."""
    if decay == 0:
        return [0.0] * (step - 1) + [1.0]
    return [(1 - decay) * decay ** (step - s) / (1 - decay**step) for s in range(1, step + 1)]


def _longest_signal(constants: LocalConstants, width: float, ratio: float) -> float:
    """The longest part of an Adam update that is not noise, ``ratio`` being the longest signal over the noise of a coordinate.

    With a second moment per coordinate, or a proximal term, signal and noise are not apart: then it is all of the update.
    """
    rate, steps = constants.learning_rate, range(1, constants.steps + 1)
    longest = [longest_adam_step(step, 0.0) for step in steps]
    if constants.optimizer == "adam" or constants.proximal:
        return rate * width * sum(longest)
    rho = ratio / max(width - SHORT, 1e-3 * width)
    return rate * width * sum(rho / math.sqrt(1 + (rho / step) ** 2) for step in longest)


def _responses(constants: LocalConstants) -> list[float]:
    """How far the model is moved, at the end of the round, by a unit of each step's gradient: SGD, momentum, proximal term."""
    decay = MOMENTUM if constants.optimizer == "momentum" else 0.0
    place, velocity, moved = 0.0, 1.0, []
    for _ in range(constants.steps):
        place -= constants.learning_rate * velocity
        moved.append(abs(place))
        velocity = decay * velocity + constants.proximal * place
    return moved
