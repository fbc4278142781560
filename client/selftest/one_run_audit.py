"""How much privacy a mechanism shows to an attacker, measured in one run: a lower bound on epsilon.

m canaries are each put in or left out by a fair coin. The attacker sees the release and guesses the coins of
the canaries it is surest about. Guessing better than a Gaussian mechanism with so much noise allows refutes that noise.

Source: Mahloujifar, Melis and Chaudhuri 2024, "Auditing f-differential privacy in one run", algorithm 3, with the curve of
the Gaussian mechanism; the attack is that of Steinke, Nasr and Jagielski 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from common.privacy.divergence import gaussian_epsilon

_ITERATIONS = 40
_LEAST_NOISE, _MOST_NOISE = 0.02, 1_000.0
_NORMAL = NormalDist()


@dataclass(frozen=True)
class OneRunAudit:
    """Result of one audit. ``lower`` holds with probability ``confidence``; ``upper`` is the accountant's.

    ``noise``: the largest noise multiplier that is not refuted.
    """

    canaries: int
    guesses: int
    correct: int
    lower: float
    upper: float
    delta: float
    confidence: float
    noise: float = math.inf

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
    tried = sorted({max(2, 2 * (int(m * share) // 2)) for share in (0.05, 0.2, 0.5, 1.0)})
    error = (1 - confidence) / len(tried)
    best = OneRunAudit(m, 0, 0, 0.0, upper, delta, confidence)
    for guesses in tried:
        half = guesses // 2
        correct = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
        noise = most_noise(m, guesses, correct, error)
        if noise < best.noise:
            lower = gaussian_epsilon(1 / noise, delta)
            best = OneRunAudit(m, guesses, correct, lower, upper, delta, confidence, noise)
    return best


def most_noise(canaries: int, guesses: int, correct: int, error: float) -> float:
    """The largest noise multiplier that ``correct`` of ``guesses`` do not refute with probability of error ``error``."""
    if not refuted(canaries, guesses, correct, _MOST_NOISE, error):
        return math.inf
    low, high = _LEAST_NOISE, _MOST_NOISE
    for _ in range(_ITERATIONS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if refuted(canaries, guesses, correct, middle, error) else (middle, high)
    return high


def refuted(canaries: int, guesses: int, correct: int, noise: float, error: float) -> bool:
    """Whether nobody guesses that well with probability ``error`` if the Gaussian mechanism has this noise.

    ``right`` and ``wrong`` bound from below the mass of right and of wrong guesses, of one canary, among outcomes with at
    least i right ones; if together they pass the mass of all guesses, the assumption was false.
    """
    if correct >= guesses:
        correct = guesses - 1  # the bound is for at least one wrong guess; fewer right ones refute less
    right, wrong = error * correct / canaries, error * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        least = max(wrong, _blow_down(right, noise))
        right += i / (guesses - i) * (least - wrong)
        wrong = least
        if right + wrong > guesses / canaries:
            return True
    return False


def _blow_down(mass: float, noise: float) -> float:
    """The least mass on the other side that a Gaussian mechanism allows: Phi(Phi^-1(mass) - 1 / noise)."""
    if mass <= 0.0:
        return 0.0
    return _NORMAL.cdf(_NORMAL.inv_cdf(min(mass, 1 - 1e-15)) - 1 / noise)
