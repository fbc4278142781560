"""What a run that goes on from an earlier model owes: the earlier run's ledgers, charged before the first round."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

from client.guard.ledger import Ledger
from common.errors import BadInputError, VerificationError
from common.privacy import Charge, Losses, Replay, choose_order, epsilon_of, replay_lines, round_up, split_lines
from common.run import RunConfig, RunFolder, RunPlan
from common.trust import Identity


@dataclass(frozen=True)
class Carried:
    """What the consumers of one site had lost before this run, and the order fixed in their ledger."""

    losses: Losses
    order: float
    run: str
    adaptive: bool

    def epsilon(self, delta: float) -> float:
        """Epsilon of what was lost before, by the rule of its ledger."""
        return round_up(epsilon_of(self.losses, delta, self.order if self.adaptive else None))

    def epsilon_with(self, plan: RunPlan) -> float:
        """Epsilon of both, this run's plan taken as a whole."""
        total = self.losses + Losses.of(plan.total_events())
        return round_up(epsilon_of(total, plan.config.privacy.delta, self.order))


def carried_from(config: RunConfig, plan: RunPlan) -> dict[str, Carried]:
    """What each site of a new run begins with; empty if it begins anew, or costs nothing.

    A site of the same name goes on with its own ledger. Where the sites are others, a consumer may have been at any of
    them, so each is charged the largest of everything. Where the hold-out is drawn anew (another seed or share), every old
    event counts on both sides. Synthetic consumers of other data or another seed are other people.
    Raises: BadInputError if the earlier run's ledgers cannot be read.
    """
    if not config.start_from or not config.privacy.enabled or not RunFolder.is_one(Path(config.start_from)):
        return {}
    folder = RunFolder.open(Path(config.start_from))
    before = folder.settings()
    if not config.data.events and (before.data, before.seed) != (config.data, config.seed):
        return {}
    known = {site: state for site in folder.plan().sites if (state := _replayed(folder.ledger(site))) is not None}
    if not known:
        return {}
    same_sites = set(plan.sites) <= set(known)
    same_split = (before.seed, before.privacy.holdout) == (config.seed, config.privacy.holdout) and same_sites
    worst = reduce(or_, (state.spent for state in known.values()))
    limit, delta = config.privacy.epsilon, config.privacy.delta
    found, run = {}, folder.plan().run
    for site in plan.sites:
        losses = known[site].spent if same_sites else worst
        losses = losses if same_split else losses.on_both_sides()
        late = any(state.adaptive_order is not None for state in known.values())
        order = known[site].order if same_sites else next(iter(known.values())).order
        found[site] = Carried(losses, order or choose_order(losses, delta, limit), run, not same_split or late)
    return found


def begin_ledger(ledger: Path, identity: Identity, scope: str, delta: float, carried: Carried) -> None:
    """Make a simulated site's ledger with the charge of what its consumers have lost before."""
    made = Ledger(ledger, identity)
    made.open(scope=scope, delta=delta, simulated=True)
    with made.transaction():
        made.append(
            Charge(
                events=carried.losses.events,
                reason=f"run {carried.run}"[:200],
                order=carried.order,
                adaptive=carried.adaptive,
            )
        )
        made.renew_anchor()


def _replayed(ledger: Path) -> Replay | None:
    if not ledger.is_file():
        return None
    try:
        states = [state for _, _, state in replay_lines(split_lines(ledger.read_bytes())[0])]
    except (VerificationError, OSError) as error:
        raise BadInputError(
            f"the ledger {ledger} of the earlier run cannot be read: {error}",
            hint="what its consumers have lost is not known: begin anew, or restore it",
        ) from error
    return states[-1] if states and states[-1].spent else None
