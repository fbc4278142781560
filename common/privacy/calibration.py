"""Noise for a target epsilon, and rounds for what is left of a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from common.errors import ConfigError
from common.privacy.accountant import (
    SMALLEST_PLD_DELTA,
    Accountant,
    PldAccountant,
    RdpAccountant,
    ScopeAccountant,
    show_epsilon,
)
from common.privacy.mechanism import TRAIN_SIDE, PrivacyEvent

SMALLEST_SIGMA = 0.3  # below this a step leaks so much that no bound is useful
LARGEST_SIGMA = 10_000.0
_TOLERANCE = 1e-3  # relative
_ROUGH_ORDERS = (*range(2, 12), 14, 16, 20, 24, 32, 48, 64, 128, 256, 512)


def calibrate_noise(
    target_epsilon: float, delta: float, rate: float, steps: int, extra_events: Sequence[PrivacyEvent] = ()
) -> float:
    """The smallest noise multiplier (to about 0.1 %) with which ``steps`` training steps meet the target.

    ``extra_events`` are the other releases of the whole run: statistics and evaluations. Those on the
    hold-out sub-scope are checked alone; no training noise can make up for them.
    Guarantee: ``ScopeAccountant`` reports at most ``target_epsilon`` for the result.
    Raises: ConfigError if the target cannot be met.
    """
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise ConfigError(f"target epsilon must be positive, got {target_epsilon}", hint="for example 8, 3 or 1")
    if not (0 < rate <= 1 and steps > 0):
        raise ConfigError(
            f"need a sampling rate in (0, 1] and at least one step, got {rate} and {steps}",
            hint="for example 0.1 and rounds * local_steps",
        )
    _check_extras(target_epsilon, delta, extra_events)
    extras = [e for e in extra_events if e.sub_scope == TRAIN_SIDE and e.steps]

    def epsilon(accountant: Accountant, sigma: float) -> float:
        for event in (*extras, PrivacyEvent(sigma, rate, steps)):
            accountant.add(event)
        return accountant.epsilon(delta)

    def rough(sigma: float) -> float:
        return epsilon(RdpAccountant(orders=_ROUGH_ORDERS), sigma)

    if rough(LARGEST_SIGMA) > target_epsilon:
        raise ConfigError(
            f"epsilon {target_epsilon} cannot be met in {steps} steps at sampling rate {rate}",
            hint="raise epsilon, or lower the number of rounds, or raise the noise of the other releases",
        )
    start = _bisect(rough, target_epsilon)
    kind = RdpAccountant if delta < SMALLEST_PLD_DELTA else PldAccountant
    sigma = _close_in(lambda sigma: epsilon(kind(), sigma), target_epsilon, start)
    return math.ceil(sigma * 1e4) / 1e4


def _bisect(epsilon: Callable[[float], float], target: float) -> float:
    low, high = SMALLEST_SIGMA, LARGEST_SIGMA
    while high > low * 1.02:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if epsilon(middle) <= target else (middle, high)
    return high


def _close_in(epsilon: Callable[[float], float], target: float, start: float) -> float:
    """Interpolate log epsilon over log sigma from ``start``; what is returned always meets the target."""
    high, at_high = start, epsilon(start)
    while at_high > target:
        high *= 1.05 * at_high / target
        at_high = epsilon(high)
    low, at_low = SMALLEST_SIGMA, math.inf
    while at_high < target * (1 - _TOLERANCE) and high > low * (1 + _TOLERANCE):
        slope = -1.0 if math.isinf(at_low) else math.log(at_high / at_low) / math.log(high / low)
        guess = high * (target / at_high) ** (1 / slope) * (1 + _TOLERANCE / 4)
        guess = math.ceil(min(max(guess, low * (1 + _TOLERANCE / 2)), high * (1 - _TOLERANCE / 2)) * 1e4) / 1e4
        at_guess = epsilon(guess)
        if at_guess <= target:
            high, at_high = guess, at_guess
        else:
            low, at_low = guess, at_guess
    return high


def _check_extras(target: float, delta: float, extra_events: Sequence[PrivacyEvent]) -> None:
    spent = ScopeAccountant(extra_events).epsilon(delta)
    if spent > target:
        raise ConfigError(
            f"evaluation and statistics alone cost epsilon {show_epsilon(spent)}, the target is {target}",
            hint="raise their noise multiplier, evaluate less often, or raise epsilon",
        )


def rounds_left(
    accountant: Accountant, round_events: Sequence[PrivacyEvent], delta: float, limit: float, at_most: int = 10_000
) -> int:
    """How many more rounds of these events fit below the limit. Shapes: result: 0 to ``at_most``."""

    def fits(rounds: int, start: Accountant) -> bool:
        projected = start.copy()
        for event in round_events:
            projected.add(event, rounds)
        return projected.epsilon(delta) <= limit

    if not round_events:
        return at_most if accountant.epsilon(delta) <= limit else 0
    low, step = 0, 1
    while low + step <= at_most and fits(low + step, accountant):
        low, step = low + step, 2 * step
    high = min(low + step, at_most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle, accountant) else (low, middle)
    return low
