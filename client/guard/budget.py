"""The budget gate: what the next release would bring the scope to, and whether that is allowed."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import BudgetExhaustedError
from common.privacy.accountant import ScopeAccountant, epsilon_of, show_epsilon
from common.privacy.calibration import rounds_left
from common.privacy.entries import Totals, as_events, count_events
from common.privacy.mechanism import PrivacyEvent


@dataclass(frozen=True)
class Projection:
    """Epsilon of a scope before and after a release, and everything spent after it."""

    before: float
    after: float
    totals: tuple[PrivacyEvent, ...]


def project(spent: Totals, events: tuple[PrivacyEvent, ...], delta: float) -> Projection:
    """What ``events`` on top of ``spent`` cost. **Guarantee** neither number is below the truth."""
    totals = as_events(spent + count_events(events))
    return Projection(epsilon_of(as_events(spent), delta), epsilon_of(totals, delta), totals)


def gate(spent: Totals, events: tuple[PrivacyEvent, ...], delta: float, limit: float) -> Projection:
    """Return the projection if it stays within the limit.

    **Raises** BudgetExhaustedError saying what is spent, what was asked, and how many such rounds fit.
    """
    projection = project(spent, events, delta)
    if projection.after <= limit:
        return projection
    left = rounds_left(ScopeAccountant(as_events(spent)), events, delta, limit)
    raise BudgetExhaustedError(
        f"privacy budget: this round would bring epsilon from {show_epsilon(projection.before)} to "
        f"{show_epsilon(projection.after)}, the limit is {limit} (delta {delta}); rounds left at these settings: {left}",
        hint="more noise or fewer steps fit longer; only the site can raise epsilon_max in its policy.toml",
    )
