"""Where a scope stands: what is spent, what is left, and in which runs its site has paused."""

from __future__ import annotations

from dataclasses import dataclass

from client.guard.failures import paused_in, unfinished_in
from client.guard.policy import SitePolicy
from common.privacy import Reading, Replay, ScopeAccountant, epsilon_alone, epsilon_of, round_up


@dataclass(frozen=True)
class GuardStatus:
    """Where a scope stands. ``epsilon`` counts open reservations; ``left`` is limit minus epsilon, at least 0.

    ``paused``: runs in which this site takes no further part after failures of its own. ``unfinished``: (run, how many
    of its answers were given back because their process was ended). ``alone``: epsilon if no other site is honest, where the
    scope has shared the noise of sums, and its limit. ``open_since``: time (UTC) of the oldest open reservation.
    """

    site: str
    scope: str
    epsilon: float
    limit: float
    left: float
    delta: float
    reading: Reading
    entries: int
    committed: int
    open: int
    void: int
    forfeit: int = 0
    paused: tuple[str, ...] = ()
    unfinished: tuple[tuple[str, int], ...] = ()
    alone: float | None = None
    alone_limit: float = 0.0
    open_since: str = ""


def status_of(state: Replay, site: str, policy: SitePolicy, by: str = "") -> GuardStatus:
    """The status of an opened ledger under a site's policy; ``by``: the site's public key, where kits share it."""
    header = state.header
    assert header is not None
    states, order = [r.state for r in state.reservations.values()], state.adaptive_order
    epsilon = round_up(epsilon_of(state.spent, header.delta, order))
    return GuardStatus(
        site=site,
        scope=header.scope,
        epsilon=epsilon,
        limit=policy.epsilon_max,
        left=max(0.0, policy.epsilon_max - epsilon),
        delta=header.delta,
        reading=ScopeAccountant(state.spent, order).reading(header.delta),
        entries=state.entries,
        committed=states.count("committed"),
        open=states.count("open"),
        void=states.count("void"),
        forfeit=states.count("forfeit"),
        paused=tuple(run for run in state.runs(by) if paused_in(state, run, policy.failures_max, by)),
        alone=round_up(epsilon_alone(state.spent, header.delta, order))
        if state.spent.colluders is not None
        else None,
        alone_limit=policy.epsilon_alone_max,
        open_since=min((r.time for r in state.open_reservations()), default=""),
        unfinished=tuple((run, ended) for run in state.runs(by) if (ended := unfinished_in(state, run, by))),
    )
