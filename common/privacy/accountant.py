"""From events to epsilon: two upper bounds, of which the smaller counts.

Every implementation sums up ``PrivacyEvent`` per sub-scope (the disjoint parts of the consumers) and
reports the largest epsilon of any sub-scope: what one consumer can lose. Loading dp-accounting takes
most of a second, so it is imported at the first use.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from common.privacy.mechanism import PrivacyEvent

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

Setting: TypeAlias = tuple[
    float, float
]  # (sampling rate, noise multiplier): what a step costs depends on nothing else

COARSE = 1e-3  # discretization of the privacy loss: fast; both are pessimistic
FINE = 1e-4
FINE_BELOW = (
    1.0  # epsilon under which, and noise from which, the coarse grid is visibly loose and the fine one cheap
)
FINE_FROM = 4.0
SMALLEST_PLD_DELTA = 1e-10  # below this the rounding of the Fourier transform is no longer negligible


class Accountant(ABC):
    """Sums up privacy events; ``epsilon`` never reports less than the truth.

    **Guarantee** for consumers, neighbouring by adding or removing one, under Poisson sampling and
    Gaussian noise. The order of ``add`` does not matter.
    """

    def __init__(self, events: Iterable[PrivacyEvent] = ()) -> None:
        self._steps: dict[str, Counter[Setting]] = {}
        for event in events:
            self.add(event)

    def add(self, event: PrivacyEvent, n: int = 1) -> None:
        """Compose ``n`` repetitions of an event. **Raises** ValueError if ``n`` is negative."""
        if n < 0:
            raise ValueError(f"cannot take back events, got n = {n}")
        if event.steps and n:
            setting = (event.sampling_rate, event.noise_multiplier)
            self._steps.setdefault(event.sub_scope, Counter())[setting] += event.steps * n

    def epsilon(self, delta: float) -> float:
        """Epsilon of everything added: the largest over the sub-scopes, 0 if nothing was added.

        **Raises** ConfigError if ``delta`` is not in (0, 1).
        """
        _check_delta(delta)
        return max((self.sub_epsilon(sub_scope, delta) for sub_scope in self._steps), default=0.0)

    @abstractmethod
    def sub_epsilon(self, sub_scope: str, delta: float) -> float:
        """Epsilon of one sub-scope alone."""

    def copy(self) -> Self:
        """An independent accountant with the same events: project on it before deciding."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._steps = {sub_scope: Counter(steps) for sub_scope, steps in self._steps.items()}
        return twin

    def steps(self, sub_scope: str) -> dict[Setting, int]:
        """Steps taken in a sub-scope, for each (sampling rate, noise multiplier)."""
        return dict(self._steps.get(sub_scope, {}))

    @property
    def sub_scopes(self) -> tuple[str, ...]:
        """The sub-scopes that were charged."""
        return tuple(self._steps)


class RdpAccountant(Accountant):
    """Rényi bound. Also holds where settings are chosen from earlier results.

    Fewer ``orders`` give a bound that is faster and looser.
    **Source** Mironov, Talwar and Zhang 2019 for the bound; Lécuyer 2021 for adaptive settings.
    """

    def __init__(self, events: Iterable[PrivacyEvent] = (), *, orders: tuple[float, ...] = ()) -> None:
        self._orders = orders
        super().__init__(events)

    def sub_epsilon(self, sub_scope: str, delta: float) -> float:
        """Epsilon of one sub-scope alone, best over the Rényi orders."""
        from dp_accounting import rdp

        settings = self._steps.get(sub_scope)
        if not settings:
            return 0.0
        orders, _ = _rdp_of_step(*next(iter(settings)), self._orders)
        total = sum(steps * _rdp_of_step(*setting, self._orders)[1] for setting, steps in settings.items())
        return float(rdp.compute_epsilon(orders, total, delta)[0])


class PldAccountant(Accountant):
    """Privacy loss distribution, discretized upwards: tighter, valid where all settings were fixed in advance.

    Without sampling the loss is Gaussian and its exact formula is used (Balle and Wang 2018, theorem 8).
    ``discretization`` None means fine for small epsilon under much noise, and coarse otherwise.
    """

    def __init__(self, events: Iterable[PrivacyEvent] = (), *, discretization: float | None = None) -> None:
        self._grid = discretization
        super().__init__(events)

    def sub_epsilon(self, sub_scope: str, delta: float) -> float:
        """Epsilon of one sub-scope alone; infinite where delta is too small for this method."""
        settings = self._steps.get(sub_scope)
        if not settings:
            return 0.0
        if all(rate == 1.0 for rate, _ in settings):
            return gaussian_epsilon(math.sqrt(sum(n / sigma**2 for (_, sigma), n in settings.items())), delta)
        if delta < SMALLEST_PLD_DELTA:
            return math.inf
        if self._grid is not None:
            return _pld_epsilon(_pld_of_settings(settings, self._grid), delta)
        coarse = _pld_epsilon(_pld_of_settings(settings, COARSE), delta)
        if coarse >= FINE_BELOW or min(sigma for _, sigma in settings) < FINE_FROM:
            return coarse
        return min(coarse, _pld_epsilon(_pld_of_settings(settings, FINE), delta))


@dataclass(frozen=True)
class Reading:
    """Both bounds for one accountant and the one that counts.

    ``epsilon`` is what the budget gate and every display use: the smaller bound, or the Rényi bound
    where a sub-scope holds sampled releases of more than one setting (``adaptive``), because then the later
    settings may have been chosen after seeing earlier models. ``if_fixed_in_advance`` is the smaller bound anyway.
    """

    epsilon: float
    rdp: float
    pld: float
    if_fixed_in_advance: float
    adaptive: bool


class ScopeAccountant(Accountant):
    """The accountant of record: the smaller of both bounds, Rényi alone where settings are mixed."""

    def __init__(self, events: Iterable[PrivacyEvent] = ()) -> None:
        self._rdp = RdpAccountant()
        self._pld = PldAccountant()
        super().__init__(events)

    def add(self, event: PrivacyEvent, n: int = 1) -> None:
        """Compose ``n`` repetitions of an event in both accountants."""
        super().add(event, n)
        self._rdp.add(event, n)
        self._pld.add(event, n)

    def copy(self) -> Self:
        """An independent accountant with the same events."""
        twin = super().copy()
        twin._rdp, twin._pld = self._rdp.copy(), self._pld.copy()
        return twin

    def sub_epsilon(self, sub_scope: str, delta: float) -> float:
        """Epsilon of one sub-scope alone, by the rule of the gate."""
        rdp = self._rdp.sub_epsilon(sub_scope, delta)
        if self._is_adaptive(sub_scope):
            return rdp
        return min(rdp, self._pld.sub_epsilon(sub_scope, delta))

    def _is_adaptive(self, sub_scope: str) -> bool:
        """Mixed settings. Without sampling the exact bound holds for them too (Smith and Thakurta 2022)."""
        settings = self.steps(sub_scope)
        return len(settings) > 1 and any(rate < 1.0 for rate, _ in settings)

    def reading(self, delta: float) -> Reading:
        """Both bounds over all sub-scopes, the one that counts, and why."""
        _check_delta(delta)
        pairs = [(self._rdp.sub_epsilon(s, delta), self._pld.sub_epsilon(s, delta)) for s in self._steps]
        return Reading(
            epsilon=self.epsilon(delta),
            rdp=max((rdp for rdp, _ in pairs), default=0.0),
            pld=max((pld for _, pld in pairs), default=0.0),
            if_fixed_in_advance=max((min(pair) for pair in pairs), default=0.0),
            adaptive=any(self._is_adaptive(s) for s in self._steps),
        )


def show_epsilon(epsilon: float, digits: int = 4) -> str:
    """Write an epsilon with ``digits`` decimals, rounded up: no output ever shows less than was computed."""
    if math.isinf(epsilon):
        return "inf"
    return str(Decimal(epsilon).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING))


def round_up(epsilon: float, digits: int = 6) -> float:
    """The smallest number with ``digits`` decimals that is not below ``epsilon``; for files and messages."""
    if math.isinf(epsilon):
        return epsilon
    return float(Decimal(epsilon).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING))


@lru_cache(maxsize=1024)
def epsilon_of(events: tuple[PrivacyEvent, ...], delta: float) -> float:
    """What ``ScopeAccountant`` reports for these events, remembered: equal sites cost one computation."""
    return ScopeAccountant(events).epsilon(delta)


def compose_sites(accountants: Iterable[Accountant]) -> ScopeAccountant:
    """The accountant of a consumer who is known at every one of these sites: everything adds up."""
    total = ScopeAccountant()
    for accountant in accountants:
        for sub_scope in accountant.sub_scopes:
            for (rate, sigma), steps in accountant.steps(sub_scope).items():
                total.add(PrivacyEvent(sigma, rate, steps, sub_scope))
    return total


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of Gaussian mechanisms with joint sensitivity / noise ratio ``mu``, rounded up.

    **Source** Balle and Wang 2018, "Improving the Gaussian mechanism", theorem 8.
    """
    from scipy.special import log_ndtr

    def log_excess(epsilon: float) -> bool:
        first = float(log_ndtr(mu / 2 - epsilon / mu))
        second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
        return second < first and first + math.log1p(-math.exp(second - first)) > math.log(delta)

    if mu == 0 or not log_excess(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while log_excess(high):
        low, high = high, 2 * high
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if log_excess(middle) else (low, middle)
    return high * (1 + 1e-9)


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(
            f"delta must be between 0 and 1, got {delta}", hint="use 1e-5 or smaller than 1 / consumers"
        )


@lru_cache(maxsize=256)
def _rdp_of_step(
    rate: float, sigma: float, orders: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from dp_accounting import dp_event, rdp

    accountant = rdp.RdpAccountant(orders or None)
    with _quiet():
        accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(sigma)))
    return accountant.orders, accountant.rdp


@lru_cache(maxsize=32)
def _pld_of_step(rate: float, sigma: float, grid: float) -> PrivacyLossDistribution:
    from dp_accounting.pld import privacy_loss_distribution as pld

    return pld.from_gaussian_mechanism(sigma, sampling_prob=rate, value_discretization_interval=grid)


class _RecentPlds:
    """The last composed distributions: a round then costs one convolution, not a power of the single step."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: OrderedDict[tuple[float, float, float, int], PrivacyLossDistribution] = OrderedDict()

    def get(self, rate: float, sigma: float, grid: float, steps: int) -> PrivacyLossDistribution:
        key = (rate, sigma, grid, steps)
        if key not in self._found:
            self._found[key] = self._compose(rate, sigma, grid, steps)
            while len(self._found) > self._size:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        return self._found[key]

    def _compose(self, rate: float, sigma: float, grid: float, steps: int) -> PrivacyLossDistribution:
        if rate == 1.0:  # a sum of Gaussian losses is Gaussian: no convolution needed
            return _pld_of_step(rate, sigma / math.sqrt(steps), grid)
        before = max((k[3] for k in self._found if k[:3] == (rate, sigma, grid) and k[3] < steps), default=0)
        if steps - before > before:
            return _pld_of_step(rate, sigma, grid).self_compose(steps)
        first, more = self.get(rate, sigma, grid, before), self.get(rate, sigma, grid, steps - before)
        return first.compose(more)


_recent_plds = _RecentPlds(64)


def _pld_of_settings(settings: Mapping[Setting, int], grid: float) -> PrivacyLossDistribution:
    parts = [_recent_plds.get(rate, sigma, grid, steps) for (rate, sigma), steps in sorted(settings.items())]
    return reduce(lambda a, b: a.compose(b), parts)


def _pld_epsilon(distribution: PrivacyLossDistribution, delta: float) -> float:
    """Smallest epsilon with divergence at most delta, by bisection; the upper end is returned."""

    def too_small(epsilon: float) -> bool:
        return bool(distribution.get_delta_for_epsilon(epsilon) > delta)

    low, high = 0.0, 1.0
    while too_small(high):
        low, high = high, 2 * high
        if high > 1e4:
            return math.inf
    while high - low > 1e-6 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high


@contextmanager
def _quiet() -> Iterator[None]:
    """Orders for which a series does not converge count as infinite; that is safe and not worth a warning."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
