"""The budget gate: what the next release would bring the scope to, and whether the ledger allows it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from client.guard.policy import Proposal
from common.errors import BudgetExhaustedError, PolicyRefusedError
from common.privacy import (
    Losses,
    PrivacyEvent,
    Replay,
    ScopeAccountant,
    choose_order,
    epsilon_alone,
    epsilon_of,
    rounds_left,
    show_epsilon,
)


@dataclass(frozen=True)
class Projection:
    """Epsilon of a scope before and after a release, everything spent after it, and how it is added up.

    ``order``: the Rényi order fixed in this scope; ``adaptive``: it is the one that counts after the release.
    """

    before: float
    after: float
    totals: tuple[PrivacyEvent, ...]
    order: float
    adaptive: bool


def project(state: Replay, proposal: Proposal, delta: float, limit: float, *, again: bool = False) -> Projection:
    """What a proposal costs on top of what is spent; ``again``: it is reserved already, and counts once.

    Guarantee: neither number is below the truth.
    """
    events = Losses.of(proposal.events)
    spent = state.spent - events if again else state.spent
    order = state.order or choose_order(proposal.run_events or proposal.events, delta, limit)
    at = state.adaptive_order if again else state.order_with(proposal.config, order)
    after = spent + events
    before = epsilon_of(spent, delta, at if again else state.adaptive_order)
    return Projection(before, epsilon_of(after, delta, at), after.events, order, at is not None)


def gate(state: Replay, proposal: Proposal, delta: float, limit: float) -> Projection:
    """Return the projection if it stays within the limit.

    Raises: BudgetExhaustedError saying what is spent, what was asked, and how many such rounds fit.
    """
    projection = project(state, proposal, delta, limit)
    if projection.after <= limit:
        return projection
    accountant = ScopeAccountant(state.spent, projection.order if projection.adaptive else None)
    left = rounds_left(accountant, proposal.events, delta, limit)
    raise BudgetExhaustedError(
        f"privacy budget: this round would bring epsilon from {show_epsilon(projection.before)} to "
        f"{show_epsilon(projection.after)}, the limit is {limit} (delta {delta}); rounds left at these settings: {left}",
        hint="more noise or fewer steps fit longer; only the site can raise epsilon_max in its policy.toml",
    )


def gate_alone(state: Replay, proposal: Proposal, delta: float, limit: float) -> None:
    """Return if the scope stays within the limit also where no other site is honest. Raises: BudgetExhaustedError.

    ``limit`` 0: none is set, which the policy refuses where sites share their noise.
    """
    if not limit:
        return
    order = state.order or choose_order(proposal.run_events or proposal.events, delta, limit)
    after = state.spent + Losses.of(proposal.events)
    alone = epsilon_alone(after, delta, state.order_with(proposal.config, order))
    if alone > limit:
        raise BudgetExhaustedError(
            f"privacy budget: without the noise of other sites this would bring epsilon to {show_epsilon(alone)}, "
            f"epsilon_alone_max is {limit} (delta {delta})",
            hint="fewer honest sites counted on (privacy.honest) mean more noise of each; only the site can raise its limit",
        )


def check_split(state: Replay, proposal: Proposal) -> None:
    """Return if the proposal holds out the same consumers as everything this ledger has charged.

    Training and hold-out are charged apart, which is true only while no consumer changes sides.
    Raises: PolicyRefusedError (rule ``holdout``).
    """
    asked = (proposal.holdout, proposal.split_key, proposal.validation)
    if state.split in (None, asked):
        return
    assert state.split is not None
    fraction, key, validation = state.split
    reason = (
        f"the run asks {proposal.holdout:g} and {proposal.validation:g}"
        if key == proposal.split_key
        else "the site's key has changed since"
    )
    raise PolicyRefusedError(
        "holdout",
        f"policy rule holdout: a share of {fraction:g} was held out when this scope was first used, {validation:g} of it for "
        f"validation; {reason}",
        hint=f"propose privacy.holdout={fraction:g} and privacy.validation={validation:g}, or restore consumers.key; "
        "`fedcart site recover` begins anew at a higher charge",
    )


def rest_of_run(state: Replay, proposal: Proposal, by: str = "") -> Proposal:
    """A proposal whose events are all that its run may still be charged, by every kit of the run that uses this ledger."""
    planned = Losses.of(proposal.run_events or proposal.events)
    rest = (planned.beyond(state.charged_for(proposal.config, kit)) for kit in _kits(state, proposal, by))
    return replace(proposal, events=reduce(add, rest).events)


def _kits(state: Replay, proposal: Proposal, by: str) -> list[str]:
    """Public keys of this kit and of the others in the run that answer about the same consumers."""
    return [by, *(kit for kit in proposal.kits if kit in state.admitted and kit != by)]


def with_later_runs(
    state: Replay, proposal: Proposal, delta: float, limit: float, runs: int, by: str = ""
) -> float:
    """Epsilon once the rest of a proposal's run and so many more runs like it are charged.

    Those come after a release, so the order that is fixed in the scope counts. Guarantee: not below the truth.
    """
    events = Losses.of(proposal.run_events or proposal.events)
    order = state.order or choose_order(events, delta, limit)
    total = state.spent + Losses.of(rest_of_run(state, proposal, by).events)
    for _ in range(runs * len(_kits(state, proposal, by))):
        total += events
    return epsilon_of(total, delta, order if runs else state.order_with(proposal.config, order))


def check_run_total(state: Replay, proposal: Proposal, by: str = "") -> None:
    """Return if the run, this release included, stays within all that its plan says it may cost at this site.

    A run is known by the digest of its plan, which is what the operator has approved. Rounds that were aborted
    after their contribution left count, as they do in the budget. ``by``: this kit, in a shared ledger.
    Raises: PolicyRefusedError (rule ``run_total``).
    """
    if not proposal.run_events:
        return
    planned = Losses.of(proposal.run_events)
    asked = Losses.of(proposal.events) + state.charged_for(proposal.config, by)
    for more in asked.beyond(planned):
        noise, rate, side = more.noise_multiplier, more.sampling_rate, more.sub_scope
        allowed = sum(
            e.steps for e in planned if (e.noise_multiplier, e.sampling_rate, e.sub_scope) == (noise, rate, side)
        )
        raise PolicyRefusedError(
            "run_total",
            f"policy rule run_total: run {proposal.run} would take {allowed + more.steps} steps with noise {noise:g} "
            f"and sampling rate {rate:g} ({side}), its plan says {allowed} for all rounds together",
            hint="aborted rounds count too; a new run needs a new plan, and a new yes of the operator",
        )
