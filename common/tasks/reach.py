"""How far an honest site's local steps can move a model, by public constants only: what must hold, and what is usual.

What must hold are theorems about clipped gradients, known noise and known optimizers; nothing else refuses a sum. What is
usual was measured on logs, and a log may be unlike them: it shortens, it does not refuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from common.tasks.local_steps import BETA1, BETA2, MOMENTUM, LocalConstants

TAIL = 8.0  # standard deviations that noise never has: one normal number in 10^15 is beyond
GROWN = 2.0  # consumers that a site may have for each that it declares: declarations are rounded, sites grow
AGREEING = 0.6  # usual: share of the clipping norm that all consumers have in common; .33 was the most in any log
UNEVEN = 2.0  # usual: without noise Adam's steps follow gradients that change in length


@dataclass(frozen=True)
class Reach:
    """How far an honest site's local steps go in one round. Units: length of the update, L2.

    ``most(k)``: the longest that ``k`` coordinates are, such as a row, whoever the consumers are, noise included.
    ``usual``: the longest that consumers of usual logs make of it. ``usual_row``: the same for a single row;
    less, as what is common to all consumers is learnt in the first steps. ``noise``: standard deviation of
    what the noise makes of each coordinate, as predicted.
    """

    most: Callable[[int], float]
    usual: float
    usual_row: float
    noise: float = 0.0


def unlimited(_coordinates: int) -> float:
    """Nothing is known: gradients that nobody clips, under an optimizer that follows their length."""
    return math.inf


def most_consumers(declared: float) -> float:
    """How many consumers there may be where so many are declared, sampled or held out.

    ``GROWN`` times as many, and the tail of a Poisson number of that mean: more are drawn once in 10^9 times at most, by
    Bernstein's inequality.
    """
    mean = GROWN * declared
    return mean + TAIL * math.sqrt(mean) + TAIL


def longest_noise(coordinates: int) -> float:
    """The longest that so many independent standard normal numbers are: their expected length is below the root of their number,
    and by concentration (a length is 1-Lipschitz) they exceed it by ``TAIL`` once in ``exp(TAIL**2 / 2)`` times, 10^14, at most.
    """
    return math.sqrt(coordinates) + TAIL


def shortest_noise(coordinates: int) -> float:
    """The shortest that they are, whatever known vector is added to them (Anderson's inequality); 0: that says nothing."""
    return max(math.sqrt(max(coordinates - 1, 0)) - TAIL, 0.0)


def reach(constants: LocalConstants, parameters: int) -> Reach:
    """How far the local steps of one round can go in a model of ``parameters`` coordinates.

    A step follows ``g_t``: at most ``most_consumers`` gradients of the clipping norm, which may all point one way and lie in
    one coordinate, the noise, and ``proximal`` times what the steps before have moved.
    """
    batch, scale = constants.expected_batch, constants.noise_multiplier * constants.sensitivity
    usual = AGREEING * (batch + 4 * math.sqrt(batch)) * constants.clip
    count = constants.steps
    if constants.optimizer in ("sgd", "momentum"):
        moved = _responses(constants)
        spread = math.sqrt(sum(part * part for part in moved)) * scale / batch
        length = sum(moved) * usual / batch
        most = linear_steps(constants, moved) if scale else unlimited
        return Reach(most, length, length / math.sqrt(count), spread)
    if not scale:
        return adam_reach(constants.learning_rate, count, parameters, constants.optimizer)
    width, rate = math.sqrt(parameters), constants.learning_rate
    rho = usual / (scale * width)
    length = rate * count * width * rho / math.sqrt(1 + rho * rho)
    return Reach(adam_steps(constants, parameters), length, length / math.sqrt(count), rate * math.sqrt(count))


def adam_reach(rate: float, steps: int, parameters: int, optimizer: str) -> Reach:
    """The same for Adam without noise, whose steps have a longest length whatever the gradients are."""
    usual = rate * steps * UNEVEN * math.sqrt(parameters)
    total = sum(longest_adam_step(step, BETA1) for step in range(1, steps + 1))
    return Reach(
        lambda coordinates: rate * total * math.sqrt(parameters if optimizer == "scalar-adam" else coordinates),
        usual,
        usual / math.sqrt(steps),
    )


def linear_steps(constants: LocalConstants, moved: list[float]) -> Callable[[int], float]:
    """SGD, momentum, a proximal term: the update is ``sum(moved_t g_t)``, so signals add up by the inequality of the triangle,
    and the noise in it is normal with the root of ``sum(moved_t^2)`` as its deviation.
    """
    signal = sum(moved) * most_consumers(constants.expected_batch) * constants.sensitivity
    spread = math.sqrt(sum(part * part for part in moved)) * constants.noise_multiplier * constants.sensitivity
    return lambda coordinates: (signal + spread * longest_noise(coordinates)) / constants.expected_batch


def adam_steps(constants: LocalConstants, parameters: int) -> Callable[[int], float]:
    """Private steps of Adam, which keep no first moment: ``rate g_t / R_t``, with two limits for each, of which the smaller holds.

    ``R_t`` is the root of a mean of squares in which those of ``g_t`` have the weight ``v_t``: a step is at most
    ``rate sqrt(1 / v_t)`` long in a coordinate, and ``rate sqrt(parameters / v_t)`` in all of them; one second moment that all
    coordinates share lets the latter lie in a single one. And such a shared one holds the noise: ``R_t`` is at least
    ``shortest_noise(parameters)`` deviations over ``sqrt(parameters)``, so what ``k`` coordinates of ``g_t`` are bounds the step.
    """
    noise = constants.noise_multiplier * constants.sensitivity / constants.expected_batch
    signal = most_consumers(constants.expected_batch) * constants.sensitivity / constants.expected_batch
    shared = constants.optimizer == "scalar-adam"
    floor = noise * shortest_noise(parameters) / math.sqrt(parameters) if shared else 0.0

    def most(coordinates: int) -> float:
        width, moved = math.sqrt(parameters if shared else coordinates), 0.0
        for step in range(1, constants.steps + 1):
            longest = width * longest_adam_step(step, 0.0)
            if floor > 0:
                gradient = signal + noise * longest_noise(coordinates) + constants.proximal * moved
                longest = min(longest, gradient / floor)
            moved += constants.learning_rate * longest
        return moved

    return most


def longest_adam_step(step: int, momentum: float) -> float:
    """The longest step number ``step`` of Adam, in units of ``rate sqrt(parameters)``, over all gradients.

    First and second moment are means of ``g_s`` and ``g_s^2`` with weights ``w_s`` and ``v_s``, so by the inequality of Cauchy
    and Schwarz the ratio ``|sum w_s g_s| / sqrt(sum v_s g_s^2)`` is at most ``sqrt(sum w_s^2 / v_s)``: both weights, and so
    this sum, are geometric. Nothing is longer: it is reached where ``g_s`` is ``w_s / v_s``.
    """
    first, second = (1 - momentum) / (1 - momentum**step), (1 - BETA2) / (1 - BETA2**step)
    ratio = momentum * momentum / BETA2
    return first * math.sqrt((1 - ratio**step) / (1 - ratio) / second)


def _responses(constants: LocalConstants) -> list[float]:
    """How far the model is moved, at the end of the round, by a unit of each step's gradient: SGD, momentum, proximal term."""
    decay = MOMENTUM if constants.optimizer == "momentum" else 0.0
    place, velocity, moved = 0.0, 1.0, []
    for _ in range(constants.steps):
        place -= constants.learning_rate * velocity
        moved.append(abs(place))
        velocity = decay * velocity + constants.proximal * place
    return moved
