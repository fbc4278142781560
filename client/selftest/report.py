"""What the self-test finds, and the statistics it decides by. False alarms of all of them together: one in ten thousand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from client.selftest.one_run_audit import OneRunAudit

FALSE_ALARM = 1e-4
STATISTICS = 200  # tests that share the level, rounded up
LEVEL = FALSE_ALARM / STATISTICS

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """One promise, what was seen, and the limit."""

    name: str
    passed: bool
    seen: float
    limit: float
    meaning: str


@dataclass(frozen=True)
class SelfTestResult:
    """All checks and the empirical audit. Units: ``seconds`` of wall time."""

    checks: tuple[Check, ...]
    audit: OneRunAudit
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every promise held."""
        return self.audit.passed and all(check.passed for check in self.checks)


def at_most(name: str, seen: float, limit: float, meaning: str) -> Check:
    """A number that must not pass a limit."""
    return Check(name, bool(seen <= limit), float(seen), float(limit), meaning)


def holds(name: str, true: bool, meaning: str) -> Check:
    """A fact."""
    return Check(name, bool(true), float(bool(true)), 1.0, meaning)


def variance_check(name: str, values: Vector, meaning: str) -> Check:
    """Sum of squares of standard normal values against its chi-square limits; reported as a variance."""
    n = len(values)
    square = float(np.square(values).sum())
    low, high = stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], n)
    return Check(name, bool(low <= square <= high), square / n, float(high / n), meaning)


def normality_checks(name: str, values: Vector) -> list[Check]:
    """Standard normal values: their whole distribution, both tails beyond 4, and that few of them are equal.

    A cut at 4 deviations means a delta of at least 0.0013 whatever epsilon is, and moves the variance by half a percent.
    """
    n = len(values)
    p = float(stats.kstest(values, "norm").pvalue)
    beyond, expected = int((np.abs(values) > 4).sum()), 2 * n * float(stats.norm.sf(4))
    low, high = stats.poisson.ppf([LEVEL / 2, 1 - LEVEL / 2], expected)
    equal = n - len(np.unique(values))
    pairs = n * (n - 1) / 2 * 2.0**-31  # far coarser than doubles, far finer than half precision
    return [
        Check(f"distribution of {name}", p >= LEVEL, p, LEVEL, "standard normal (Kolmogorov-Smirnov)"),
        Check(
            f"tails of {name}",
            bool(low <= beyond <= high),
            beyond,
            float(high),
            f"beyond 4 of {n:,}; at least {low:.0f}",
        ),
        at_most(f"grid of {name}", equal, max(10.0, 10 * pairs), "equal values: no coarse grid"),
    ]


def far_tails_check(name: str, values: Vector) -> Check:
    """How many of many standard normal values lie beyond 4.5: a cut there is a delta of 7e-6 by itself."""
    beyond, expected = int((np.abs(values) > 4.5).sum()), 2 * len(values) * float(stats.norm.sf(4.5))
    low, high = stats.poisson.ppf([LEVEL / 2, 1 - LEVEL / 2], expected)
    fits = bool(low <= beyond <= high)
    return Check(
        f"far tails of {name}", fits, beyond, float(high), f"beyond 4.5 of {len(values):,}; at least {low:.0f}"
    )


def coordinates_check(name: str, draws: Vector, meaning: str) -> Check:
    """Standard normal values in every coordinate of several draws: ``[draws, coordinates]``; one without noise shows.

    Reported is the variance of the coordinate that has least.
    """
    n, coordinates = draws.shape
    squares = np.square(draws).sum(axis=0)
    share = LEVEL / 2 / coordinates
    low, high = stats.chi2.ppf(share, n), stats.chi2.isf(share, n)
    fits = bool(low <= squares.min() and squares.max() <= high)
    return Check(name, fits, float(squares.min() / n), float(low / n), meaning)


def lags_check(name: str, values: Vector) -> Check:
    """Independent values of mean 0 and variance 1: none repeats or mirrors another at any distance: ``[sequences, n]``.

    Sums of products at every distance, around the end, by a Fourier transform.
    """
    sequences, n = values.shape
    powers = np.zeros(n // 2 + 1)
    for sequence in values:
        spectrum = np.fft.rfft(sequence)
        powers += np.square(spectrum.real) + np.square(spectrum.imag)
    sums = np.fft.irfft(powers, n)[1 : n // 2 + 1]
    if n % 2 == 0:
        sums[-1] /= np.sqrt(2)  # half way around, every product is there twice
    seen = float(np.abs(sums).max()) / np.sqrt(sequences * n)
    limit = float(stats.norm.isf(LEVEL / n)) * 1.05  # both sides of n / 2 distances; squares vary a little too
    return Check(name, bool(seen <= limit), seen, limit, "nothing repeats at any distance")


def correlation_check(name: str, first: Vector, second: Vector) -> Check:
    """Independent standard normal values."""
    n = min(len(first), len(second))
    seen = abs(float(np.dot(first[:n], second[:n]))) / np.sqrt(n)
    limit = float(stats.norm.ppf(1 - LEVEL / 2)) * 1.05  # squares vary a little too
    return Check(name, bool(seen <= limit), float(seen), limit, "uncorrelated")


def frequencies_check(name: str, counts: NDArray[np.int64], probabilities: Vector, meaning: str) -> Check:
    """Counts of classes against what their probabilities say (rare classes together)."""
    expected = counts.sum() * probabilities
    rare = expected < 8
    seen = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    keep = wanted > 0
    statistic = float((np.square(seen - wanted)[keep] / wanted[keep]).sum())
    limit = float(stats.chi2.ppf(1 - LEVEL, max(int(keep.sum()) - 1, 1)))
    return at_most(name, statistic, limit, meaning)
