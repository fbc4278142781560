"""How much privacy a mechanism shows to an attacker, measured in one run: a lower bound on epsilon.

m canaries are each put in or left out by a fair coin. The attacker sees the release and guesses the coins of
the canaries it is surest about. Guessing better than epsilon allows refutes epsilon.

**Source**: Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run", theorem 5.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

_ITERATIONS = 60
_LARGEST = 30.0


@dataclass(frozen=True)
class OneRunAudit:
    """Result of one audit. ``lower`` holds with probability ``confidence``; ``upper`` is the accountant's."""

    canaries: int
    guesses: int
    correct: int
    lower: float
    upper: float
    delta: float
    confidence: float

    @property
    def passed(self) -> bool:
        """A lower bound above the upper one means that the mechanism leaks more than it says."""
        return self.lower <= self.upper


def audit_scores(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    upper: float,
    delta: float,
    confidence: float = 0.95,
) -> OneRunAudit:
    """Turn attack scores into a lower bound.

    The attacker says "in" to the highest scores and "out" to the lowest; several numbers of guesses are
    tried and each pays its share of the error, so the bound holds for the best of them.
    Shapes: ``scores: float64[m]``, larger for canaries that were included; ``included: bool[m]``.
    """
    order = np.argsort(scores)
    m = len(scores)
    tried = sorted({max(2, 2 * (int(m * share) // 2)) for share in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)})
    error = (1 - confidence) / len(tried)
    best = OneRunAudit(m, 0, 0, 0.0, upper, delta, confidence)
    for guesses in tried:
        half = guesses // 2
        correct = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
        lower = epsilon_lower_bound(m, guesses, correct, delta, error)
        if lower >= best.lower:
            best = OneRunAudit(m, guesses, correct, lower, upper, delta, confidence)
    return best


def epsilon_lower_bound(canaries: int, guesses: int, correct: int, delta: float, error: float) -> float:
    """The largest epsilon that ``correct`` of ``guesses`` refute with probability of error ``error``."""
    if p_value(canaries, guesses, correct, (0.0, delta)) > error:
        return 0.0
    low, high = 0.0, _LARGEST
    for _ in range(_ITERATIONS):
        middle = (low + high) / 2
        refuted = p_value(canaries, guesses, correct, (middle, delta)) <= error
        low, high = (middle, high) if refuted else (low, middle)
    return low


def p_value(canaries: int, guesses: int, correct: int, privacy: tuple[float, float]) -> float:
    """Largest probability that an (epsilon, delta) mechanism lets anybody guess that well."""
    epsilon, delta = privacy
    chance = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, chance))
    if correct == 0 or delta == 0:
        return min(1.0, tail)
    below = np.cumsum(binom.pmf(correct - np.arange(1, correct + 1), guesses, chance))
    excess = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * excess)
