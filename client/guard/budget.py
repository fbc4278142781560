"""The budget gate: what the next release would bring the scope to, and whether the ledger allows it."""

from __future__ import annotations

from dataclasses import dataclass

from client.guard.policy import Proposal
from common.errors import BudgetExhaustedError, PolicyRefusedError
from common.privacy.accountant import ScopeAccountant, epsilon_of, show_epsilon
from common.privacy.calibration import rounds_left
from common.privacy.entries import Replay, Totals, as_events, count_events
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


def check_split(state: Replay, proposal: Proposal) -> None:
    """Return if the proposal holds out the same consumers as everything this ledger has charged.

    Training and hold-out are charged apart, which is true only while no consumer changes sides.
    **Raises** PolicyRefusedError (rule ``holdout``).
    """
    if state.split in (None, (proposal.holdout, proposal.split_key)):
        return
    assert state.split is not None
    fraction, _ = state.split
    found = (
        "the site's key has changed since" if fraction == proposal.holdout else f"the run asks {proposal.holdout}"
    )
    raise PolicyRefusedError(
        "holdout",
        f"policy rule holdout: a share of {fraction} was held out when this scope was first used, {found}",
        hint="propose the same share, or restore consumers.key; `fedcart site recover` begins anew at a higher charge",
    )


def check_run_total(state: Replay, proposal: Proposal) -> None:
    """Return if the run, this release included, stays within all that its plan says it may cost.

    A run is known by the digest of its plan, which is what the operator has approved. Rounds that were aborted
    after their contribution left count, as they do in the budget.
    **Raises** PolicyRefusedError (rule ``run_total``).
    """
    if not proposal.run_events:
        return
    planned, asked = count_events(proposal.run_events), count_events(proposal.events)
    for reservation in state.reservations.values():
        if reservation.body.config == proposal.config and reservation.state != "void":
            asked += count_events(reservation.body.events)
    for sub_scope, rate, sigma in asked - planned:
        key = (sub_scope, rate, sigma)
        raise PolicyRefusedError(
            "run_total",
            f"policy rule run_total: run {proposal.run} would take {asked[key]} steps with noise {sigma:g} and "
            f"sampling rate {rate:g} ({sub_scope}), its plan says {planned[key]} for all rounds together",
            hint="aborted rounds count too; a new run needs a new plan, and a new yes of the operator",
        )
