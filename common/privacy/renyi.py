"""Rényi divergence of a Poisson-sampled Gaussian step at many orders at once, and the epsilon that follows from it.

Formulas, orders and the rule of convergence are those of dp-accounting's ``RdpAccountant``, which computes them number by
number and takes most of a second to load; tests compare every order with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

ORDERS: tuple[float, ...] = (*(1 + x / 10 for x in range(1, 100)), *range(11, 64), 128, 256, 512, 1024)
_MOST_TERMS = 1000  # of the series at a fractional order, beyond which it counts as infinite
_FIRST_TERMS = 64
_NEGLIGIBLE = 30.0  # in log space, below the sum so far
_CLOSE_TO_ONE = 1.01  # the conversion is not stable at orders up to this


def divergences_of_step(rate: float, sigma: float, orders: Sequence[float] = ORDERS) -> Array:
    """Divergence of one step at sampling rate ``rate`` and noise multiplier ``sigma``: ``float64[orders]``.

    Infinite where the series does not converge: that order then counts for nothing, which is safe.
    Source: Mironov, Talwar and Zhang 2019, "Rényi differential privacy of the sampled Gaussian mechanism", section 3.3.
    """
    at = np.asarray(orders, dtype=np.float64)
    if rate == 1.0:
        return at / (2 * sigma**2)
    whole = at == np.floor(at)
    log_a = np.empty(len(at))
    log_a[whole] = _at_whole_orders(rate, sigma, at[whole])
    log_a[~whole] = _at_fractions(rate, sigma, at[~whole])
    return log_a / (at - 1)


def epsilon_of_divergences(orders: Sequence[float] | Array, divergences: Array, delta: float) -> float:
    """The smallest epsilon over the orders that these divergences allow at ``delta``.

    Source: Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy", proposition 12.
    """
    at = np.asarray(orders, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        epsilon = divergences + np.log1p(-1 / at) - np.log(delta * at) / (at - 1)
    epsilon = np.where(at > _CLOSE_TO_ONE, epsilon, math.inf)
    tiny = (divergences < 0) | (delta**2 + np.expm1(-divergences) > 0)  # by the Kullback-Leibler divergence alone
    return max(0.0, float(np.min(np.where(tiny, 0.0, epsilon))))


def _log_binomial(n: Array, k: Array) -> Array:
    """Logarithm of the absolute binomial coefficient, for fractional ``n`` too."""
    from scipy.special import gammaln

    found: Array = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found


def _at_whole_orders(rate: float, sigma: float, orders: Array) -> Array:
    if not len(orders):
        return orders
    order, i = orders[:, None], np.arange(int(orders.max()) + 1, dtype=np.float64)
    log = _log_binomial(order, np.minimum(i, order)) + i * math.log(rate) + (order - i) * math.log1p(-rate)
    terms = np.where(i <= order, log + (i * i - i) / (2 * sigma**2), -math.inf)
    return np.asarray(np.logaddexp.reduce(terms, axis=1), dtype=np.float64)


def _at_fractions(rate: float, sigma: float, orders: Array) -> Array:
    """The two halves of the integral as series, each order up to where nothing more is added."""
    found = np.full(len(orders), math.inf)
    left, terms = np.arange(len(orders)), _FIRST_TERMS
    while len(left):
        value, converged = _series(rate, sigma, orders[left], terms)
        found[left[converged]] = value[converged]
        if terms == _MOST_TERMS:
            break
        left, terms = left[~converged], min(4 * terms, _MOST_TERMS)
    return found


def _series(rate: float, sigma: float, orders: Array, terms: int) -> tuple[Array, NDArray[np.bool_]]:
    """Sums of the first so many terms at most, and for which orders that was enough."""
    from scipy.special import log_ndtr

    i = np.arange(terms, dtype=np.float64)
    j = orders[:, None] - i
    coefficient = _log_binomial(orders[:, None], i)
    z0, log_rate, log_rest = sigma**2 * math.log(1 / rate - 1) + 0.5, math.log(rate), math.log1p(-rate)
    low = coefficient + i * log_rate + j * log_rest + (i * i - i) / (2 * sigma**2) + log_ndtr((z0 - i) / sigma)
    high = coefficient + j * log_rate + i * log_rest + (j * j - j) / (2 * sigma**2) + log_ndtr((j - z0) / sigma)
    total = np.logaddexp(np.logaddexp.accumulate(low, axis=1), np.logaddexp.accumulate(high, axis=1))
    falling = (low[:, 1:] < low[:, :-1]) & (high[:, 1:] < high[:, :-1])
    enough = falling & (np.maximum(low, high) < total - _NEGLIGIBLE)[:, 1:]
    last = 1 + enough.argmax(axis=1)
    return total[np.arange(len(orders)), last], enough.any(axis=1)
