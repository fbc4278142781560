"""From events to epsilon: two upper bounds, of which the smaller counts.

Every implementation sums up ``PrivacyEvent`` per sub-scope (the disjoint parts of the consumers) and
reports the largest epsilon of any sub-scope: what one consumer can lose.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from itertools import combinations_with_replacement, product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from common.privacy.divergence import (
    Setting,
    gaussian_epsilon,
    pld_epsilon,
    pld_of_settings,
    rdp_of_step,
)
from common.privacy.mechanism import Losses, PrivacyEvent
from common.privacy.noised_grid import with_slack
from common.privacy.renyi import epsilon_of_divergences

COARSE = 1e-3  # discretization of the privacy loss: fast; both are pessimistic
FINE = 1e-4
FINE_BELOW = (
    1.0  # epsilon under which, and noise from which, the coarse grid is visibly loose and the fine one cheap
)
FINE_FROM = 4.0
_CHOICES = 64  # of sides over sites, beyond which only the Rényi bound is computed
SMALLEST_PLD_DELTA = 1e-10  # below this the rounding of the Fourier transform is no longer negligible
# Beyond these a distribution takes minutes or gigabytes, and the Rényi bound is the one that counts: what a site attests
# must not cost its coordinator more than a second or two.
MAX_PLD_EPSILON = 100.0
MAX_PLD_SETTINGS = 16
MAX_PLD_STEPS = 1_000_000
MIN_PLD_NOISE = 0.1


@dataclass(frozen=True)
class Discrete:
    """Sums whose noise is discrete: how many, and the smallest noise multiplier that one is counted with."""

    sums: int = 0
    least: float = math.inf

    def with_sums(self, sums: int, multiplier: float) -> Discrete:
        """These and more."""
        return Discrete(self.sums + sums, min(self.least, multiplier))

    def slack(self, delta: float) -> tuple[float, float]:
        """What to add to the epsilon of continuous noise, and the delta at which to read that; see ``with_slack``."""
        return with_slack(delta, self.sums, self.least) if self.sums else (0.0, delta)


class Accountant(ABC):
    """Sums up privacy events; ``epsilon`` never reports less than the truth.

    Guarantee: for consumers, neighbouring by adding or removing one, under Poisson sampling and
    Gaussian noise. The order of ``add`` does not matter.

    An event in a quorum counts with the noise of the sum, against the colluders that it names; ``alone``: with the
    site's own noise, against everybody. Either way with the slack of discrete noise, see ``noised_grid``.
    """

    def __init__(self, events: Iterable[PrivacyEvent] = (), *, alone: bool = False) -> None:
        self._alone = alone
        self._steps: dict[str, Counter[Setting]] = {}
        self._discrete: dict[str, Discrete] = {}
        for event in events:
            self.add(event)

    def add(self, event: PrivacyEvent, n: int = 1) -> None:
        """Compose ``n`` repetitions of an event. Raises: ValueError if ``n`` is negative."""
        if n < 0:
            raise ValueError(f"cannot take back events, got n = {n}")
        if event.steps and n:
            noise = event.noise_multiplier if self._alone else event.noise_in_sum
            self._steps.setdefault(event.sub_scope, Counter())[event.sampling_rate, noise] += event.steps * n
            if event.in_quorum:
                before = self._discrete.get(event.sub_scope, Discrete())
                self._discrete[event.sub_scope] = before.with_sums(event.steps * n, noise)

    def epsilon(self, delta: float) -> float:
        """Epsilon of everything added: the largest over the sub-scopes, 0 if nothing was added.

        Raises: ConfigError if ``delta`` is not in (0, 1).
        """
        _check_delta(delta)
        return max((self.sub_epsilon(sub_scope, delta) for sub_scope in self._steps), default=0.0)

    def sub_epsilon(self, sub_scope: str, delta: float) -> float:
        """Epsilon of one sub-scope alone; infinite where delta is too small for the slack of its discrete noise.

        Densities of discrete noise differ from what is accounted for by a factor of ``exp(slack)`` at most.
        """
        slack, left = self._discrete.get(sub_scope, Discrete()).slack(delta)
        return self._sub_epsilon(sub_scope, left) + slack

    @abstractmethod
    def _sub_epsilon(self, sub_scope: str, delta: float) -> float:
        """The same for continuous noise."""

    def copy(self) -> Self:
        """An independent accountant with the same events: project on it before deciding."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._steps = {sub_scope: Counter(steps) for sub_scope, steps in self._steps.items()}
        twin._discrete = dict(self._discrete)
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
    Source: Mironov, Talwar and Zhang 2019 for the bound; Lécuyer 2021 for adaptive settings.
    """

    def __init__(
        self, events: Iterable[PrivacyEvent] = (), *, orders: tuple[float, ...] = (), alone: bool = False
    ) -> None:
        self._orders = orders
        super().__init__(events, alone=alone)

    def _sub_epsilon(self, sub_scope: str, delta: float) -> float:
        """Best over the Rényi orders."""
        settings = self._steps.get(sub_scope)
        if not settings:
            return 0.0
        orders, _ = rdp_of_step(*next(iter(settings)), self._orders)
        total = _rdp_of_side(settings.items(), self._orders)
        return epsilon_of_divergences(orders, total, delta)


class PldAccountant(Accountant):
    """Privacy loss distribution, discretized upwards: tighter, valid where all settings were fixed in advance.

    Without sampling the loss is Gaussian and its exact formula is used (Balle and Wang 2018, theorem 8).
    ``discretization`` None means fine for small epsilon under much noise, and coarse otherwise.
    """

    def __init__(
        self, events: Iterable[PrivacyEvent] = (), *, discretization: float | None = None, alone: bool = False
    ) -> None:
        self._grid = discretization
        super().__init__(events, alone=alone)

    def _sub_epsilon(self, sub_scope: str, delta: float) -> float:
        """Infinite where delta is too small for this method, or the work too much."""
        settings = self._steps.get(sub_scope)
        if not settings:
            return 0.0
        if all(rate == 1.0 for rate, _ in settings):
            return gaussian_epsilon(math.sqrt(sum(n / sigma**2 for (_, sigma), n in settings.items())), delta)
        if delta < SMALLEST_PLD_DELTA or _takes_too_long(settings, delta):
            return math.inf
        if self._grid is not None:
            return pld_epsilon(pld_of_settings(settings, self._grid), delta)
        coarse = pld_epsilon(pld_of_settings(settings, COARSE), delta)
        if coarse >= FINE_BELOW or min(sigma for _, sigma in settings) < FINE_FROM:
            return coarse
        return min(coarse, pld_epsilon(pld_of_settings(settings, FINE), delta))


@dataclass(frozen=True)
class Reading:
    """Both bounds for one accountant and the one that counts.

    ``epsilon`` is what the budget gate and every display use. ``adaptive``: later settings may have been chosen after
    seeing earlier models, so it is the Rényi bound at the order fixed before. ``if_fixed_in_advance`` is the smaller of
    ``rdp`` (best order) and ``pld`` anyway.
    """

    epsilon: float
    rdp: float
    pld: float
    if_fixed_in_advance: float
    adaptive: bool


class ScopeAccountant(Accountant):
    """The accountant of record of a scope.

    ``order`` None: everything was planned before the first release; the smaller of both bounds. Else it was not, and the
    Rényi bound at this one order counts, which was fixed before the first release.
    Source: Lécuyer 2021 (filters, one fixed order); Smith and Thakurta 2022: without sampling the exact Gaussian bound
    holds for adaptive settings too.
    """

    def __init__(
        self, events: Iterable[PrivacyEvent] = (), order: float | None = None, *, alone: bool = False
    ) -> None:
        self._order = order
        self._rdp = RdpAccountant(alone=alone)
        self._pld = PldAccountant(alone=alone)
        super().__init__(events, alone=alone)

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

    def _sub_epsilon(self, sub_scope: str, delta: float) -> float:
        """By the rule of the gate."""
        steps = self.steps(sub_scope)
        if self._order is None:
            return min(self._rdp._sub_epsilon(sub_scope, delta), self._pld._sub_epsilon(sub_scope, delta))
        if all(rate == 1.0 for rate, _ in steps):
            return self._pld._sub_epsilon(sub_scope, delta)
        return _rdp_epsilon(tuple(steps.items()), delta, self._order)

    def reading(self, delta: float) -> Reading:
        """Both bounds over all sub-scopes, the one that counts, and why."""
        _check_delta(delta)
        pairs = [(self._rdp.sub_epsilon(s, delta), self._pld.sub_epsilon(s, delta)) for s in self._steps]
        return Reading(
            epsilon=self.epsilon(delta),
            rdp=max((rdp for rdp, _ in pairs), default=0.0),
            pld=max((pld for _, pld in pairs), default=0.0),
            if_fixed_in_advance=max((min(pair) for pair in pairs), default=0.0),
            adaptive=self._order is not None,
        )


def _takes_too_long(settings: Mapping[Setting, int], delta: float) -> bool:
    """Whether the distribution of these steps has too many points, or is composed too often."""
    if len(settings) > MAX_PLD_SETTINGS or sum(settings.values()) > MAX_PLD_STEPS:
        return True
    if min(sigma for _, sigma in settings) < MIN_PLD_NOISE:
        return True
    bound = RdpAccountant(PrivacyEvent(sigma, rate, steps) for (rate, sigma), steps in settings.items())
    return bound.epsilon(delta) > MAX_PLD_EPSILON


def _rdp_epsilon(steps: Iterable[tuple[Setting, int]], delta: float, order: float) -> float:
    total = _rdp_of_side(steps, (order,))
    return epsilon_of_divergences([order], total, delta)


def _rdp_of_side(steps: Iterable[tuple[Setting, int]], orders: tuple[float, ...]) -> NDArray[np.float64]:
    parts = [n * rdp_of_step(*setting, orders)[1] for setting, n in steps]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


def choose_order(planned: Iterable[PrivacyEvent], delta: float, limit: float) -> float:
    """The Rényi order at which most runs like this one fit under the limit: to be fixed before the first release.

    From public numbers only; any order would be sound, a bad one is expensive.
    """
    accountant = ScopeAccountant(planned)
    orders = np.array(rdp_of_step(1.0, 1.0, ())[0])
    price = np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)  # epsilon of nothing at all
    worst = np.full(len(orders), 1e-300)
    for side in accountant.sub_scopes:
        worst = np.maximum(worst, _rdp_of_side(accountant.steps(side).items(), ()))
    runs = np.where(price < limit, limit - price, 0.0) / worst
    if not runs.max() > 0:  # no order fits even nothing below the limit: the one that is cheapest by itself
        return float(orders[np.argmin(price)])
    return float(orders[np.argmax(runs)])


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


def epsilon_of(events: Iterable[PrivacyEvent], delta: float, order: float | None = None) -> float:
    """What ``ScopeAccountant`` reports for these events, remembered: equal sites cost one computation."""
    return _epsilon_of(Losses.of(events), delta, order, alone=False)


def epsilon_alone(events: Iterable[PrivacyEvent], delta: float, order: float | None = None) -> float:
    """The same against everybody, other sites' noise left out; without quorum noise it is the same figure."""
    losses = Losses.of(events)
    return _epsilon_of(losses, delta, order, alone=losses.colluders is not None)


def warm_up() -> None:
    """Import what accounting needs now, by computing next to nothing."""
    epsilon_of((PrivacyEvent(1.0, 1.0, 1),), 1e-5)


@lru_cache(maxsize=1024)
def _epsilon_of(losses: Losses, delta: float, order: float | None, *, alone: bool) -> float:
    return ScopeAccountant(losses, order, alone=alone).epsilon(delta)


def epsilon_everywhere(sites: Sequence[tuple[Losses, float | None]], delta: float) -> float:
    """Epsilon of a consumer who is known at every one of these sites, whoever holds him out.

    ``sites``: what each has lost, with the fixed order of one whose runs were not all planned before its first release.
    Each site draws its own hold-out, so a consumer may be trained on here and held out there: at every site the worse
    side counts. Rényi: the worse side of each site at each order, or at the smallest fixed one. Privacy loss
    distribution: the worst choice of sides, for as many choices as ``_CHOICES``, where no order is fixed.

    In a quorum he moves *one* sum once for each of his sites, which no composition of that sum bounds; what each site's
    own noise allows does, and that is composed.
    """
    _check_delta(delta)
    discrete = Discrete()
    for losses, _ in sites:
        for event in (event for event in losses if event.in_quorum):
            discrete = discrete.with_sums(event.steps, event.noise_multiplier)
    slack, left = discrete.slack(delta)
    return _composed_everywhere(sites, left) + slack


def _composed_everywhere(sites: Sequence[tuple[Losses, float | None]], delta: float) -> float:
    sides = [_sides(losses) for losses, _ in sites if losses]
    if not sides:
        return 0.0
    fixed = min((order for _, order in sites if order is not None), default=None)
    rdp = _rdp_everywhere(sides, delta, () if fixed is None else (fixed,))
    groups = Counter(sides)
    choices = math.prod(math.comb(len(found) + many - 1, many) for found, many in groups.items())
    if fixed is not None or choices > _CHOICES:
        return rdp
    return min(rdp, max(_pld_at(choice, delta) for choice in _choices(groups)))


_Side = tuple[tuple[Setting, int], ...]  # steps of each setting


def _sides(losses: Losses) -> tuple[_Side, ...]:
    """What each side of a site has lost; a side whose every step the other has taken too need not be looked at."""
    steps = RdpAccountant(losses, alone=True)
    found = {tuple(sorted(steps.steps(sub_scope).items())) for sub_scope in steps.sub_scopes}
    return tuple(sorted(side for side in found if not any(_is_part(side, other) for other in found - {side})))


def _is_part(side: _Side, other: _Side) -> bool:
    more = dict(other)
    return all(more.get(setting, 0) >= steps for setting, steps in side)


def _rdp_everywhere(sites: Sequence[tuple[_Side, ...]], delta: float, wanted: tuple[float, ...]) -> float:
    orders, _ = rdp_of_step(*sites[0][0][0][0], wanted)
    total = np.zeros(len(orders))
    for sides in sites:
        total += np.max([_rdp_of_side(side, wanted) for side in sides], axis=0)
    return epsilon_of_divergences(orders, total, delta)


def _choices(groups: Mapping[tuple[_Side, ...], int]) -> Iterator[tuple[_Side, ...]]:
    """One side of each site; of equal sites it only matters how many take which."""
    for parts in product(*(combinations_with_replacement(sides, many) for sides, many in groups.items())):
        yield tuple(side for part in parts for side in part)


def _pld_at(choice: Sequence[_Side], delta: float) -> float:
    accountant = PldAccountant()
    for side in choice:
        for (rate, sigma), steps in side:
            accountant.add(PrivacyEvent(sigma, rate, steps))
    return accountant.epsilon(delta)


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(
            f"delta must be between 0 and 1, got {delta}", hint="use 1e-5 or smaller than 1 / consumers"
        )
