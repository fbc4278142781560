"""Noise for a target epsilon, and rounds for what is left of a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from common.errors import ConfigError
from common.privacy.accountant import Accountant, RdpAccountant, ScopeAccountant, show_epsilon
from common.privacy.mechanism import TRAIN, PrivacyEvent

SMALLEST_SIGMA = 0.3  # below this a step leaks so much that no bound is useful
LARGEST_SIGMA = 10_000.0
_TOLERANCE = 1e-3  # relative, on the noise multiplier


def calibrate_noise(
    target_epsilon: float, delta: float, rate: float, steps: int, extra_events: Sequence[PrivacyEvent] = ()
) -> float:
    """The smallest noise multiplier (to 0.1 %) with which ``steps`` training steps meet the target.

    ``extra_events`` are the other releases of the whole run: statistics and evaluations. Those on the
    hold-out sub-scope are checked alone; no training noise can make up for them.
    **Guarantee** ``ScopeAccountant`` reports at most ``target_epsilon`` for the result.
    **Raises** ConfigError if the target cannot be met.
    """
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise ConfigError(f"target epsilon must be positive, got {target_epsilon}")
    _check_extras(target_epsilon, delta, extra_events)

    def epsilon(kind: type[Accountant], sigma: float) -> float:
        accountant = kind([e for e in extra_events if e.sub_scope == TRAIN])
        accountant.add(PrivacyEvent(sigma, rate, steps))
        return accountant.epsilon(delta)

    if epsilon(RdpAccountant, LARGEST_SIGMA) > target_epsilon:
        raise ConfigError(
            f"epsilon {target_epsilon} cannot be met in {steps} steps at sampling rate {rate}",
            hint="raise epsilon, or lower the number of rounds or the noise of the other releases",
        )
    low, high = _bracket(
        lambda s: epsilon(RdpAccountant, s) <= target_epsilon, SMALLEST_SIGMA, LARGEST_SIGMA, 1.02
    )
    low, high = _tighter(lambda s: epsilon(ScopeAccountant, s), target_epsilon, high, low)
    return math.ceil(high * 1e4) / 1e4


def _tighter(epsilon: Callable[[float], float], target: float, high: float, low: float) -> tuple[float, float]:
    """Close in from above by the slope of log epsilon over log sigma; ``high`` always meets the target."""
    value = epsilon(high)
    for _ in range(6):
        guess = max(high * (value / target) * (1 + _TOLERANCE / 2), SMALLEST_SIGMA)
        if guess >= high * (1 - _TOLERANCE):
            break
        found = epsilon(guess)
        if found > target:
            low = max(low, guess) if guess < high else low
            return _bracket(lambda s: epsilon(s) <= target, guess, high, 1 + _TOLERANCE)
        high, value = guess, found
    return low, high


def _bracket(meets: Callable[[float], bool], low: float, high: float, ratio: float) -> tuple[float, float]:
    """Bisect on a logarithmic scale until ``high / low`` is at most ``ratio``; ``high`` meets the target."""
    if meets(low):
        return low, low
    while high > low * ratio:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if meets(middle) else (middle, high)
    return low, high


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
    """How many more rounds of these events fit below the limit. **Shapes** result: 0 to ``at_most``."""

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
