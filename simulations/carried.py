"""What a run that goes on from an earlier model owes: the earlier run's ledgers, charged before the first round."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import reduce
from operator import or_
from pathlib import Path

from client.guard.ledger import Ledger
from common.errors import BadInputError, FedcartError, VerificationError
from common.privacy import (
    Charge,
    Losses,
    PrivacyEvent,
    Replay,
    choose_order,
    epsilon_of,
    replay_lines,
    round_up,
    split_lines,
)
from common.run import METADATA_FILE, RunConfig, RunFolder, RunPlan
from common.trust import Identity

_DEALT_BY = ("events", "format", "map", "catalogue", "split_by", "min_population", "small_sites")
"""Settings of the data that say who is where and how it is read, not which people a synthetic market has."""
_NAMES_NO_COLUMN = ("site", "consumers", "items")  # "site" is dealt at random where a log has no such column
_READ_BY = ("format", "map", "split_by", "small_sites", "min_population")
LOG_DIGEST = "log_digest"
_MERGED = "rest"
SPENT_BEFORE = "spent_before"
OTHERS_HINT = "if its consumers were other people than these, say so: --set start_from_others=true"


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


def carried_from(config: RunConfig, plan: RunPlan, log: str = "") -> dict[str, Carried]:
    """What each site of a new run begins with; empty if it begins anew, or costs nothing.

    A site that holds the same consumers goes on with its own ledger. Where consumers may have been at any of the sites,
    each is charged the largest of everything. Where the split is drawn anew (another seed or share), every old event
    counts on every side. Synthetic consumers of another market or another seed are other people.
    ``log``: digest of the events that are dealt now, empty for synthetic ones: a log that has grown by one consumer is dealt
    to sites in another way.
    Raises: BadInputError if the earlier run made no promise to these consumers, or its ledgers cannot be read.
    """
    if not config.start_from or not config.privacy.enabled:
        return {}
    found = _run_behind(Path(config.start_from))
    if found is None:
        return {} if config.start_from_others else _of_model_alone(Path(config.start_from), config, plan)
    if not _same_people(found.settings(), config):
        return {}
    if config.start_from_others:
        _require_others(found.settings())
        return {}
    folder, before, earlier = found, found.settings(), found.plan()
    _require_promise(folder, before)
    known = {site: state for site in earlier.sites if (state := _replayed(folder.ledger(site))) is not None}
    if not known:
        _require_unspent(folder)
        return {}
    same_log = log == _log_digest(folder)
    same_sites = set(plan.sites) <= set(known) and _dealt_alike(
        before, config, {*plan.sites, *earlier.sites}, same_log=same_log
    )
    same_split = (before.seed, *_shares(earlier.config)) == (config.seed, *_shares(config)) and same_sites
    worst = reduce(or_, (state.spent for state in known.values()))
    limit, delta = config.privacy.epsilon, config.privacy.delta
    late = any(state.adaptive_order is not None for state in known.values())
    owed = {}
    for site in plan.sites:
        losses = known[site].spent if same_sites else worst
        losses = losses if same_split else losses.on_every_side()
        order = known[site].order if same_sites else next(iter(known.values())).order
        chosen = order or choose_order(losses, delta, limit)
        owed[site] = Carried(losses, chosen, earlier.run, not same_split or late)
    return owed


def _shares(config: RunConfig) -> tuple[float, float]:
    """An earlier run's are those of its plan: the settings of an older program name no validation part, and there was none."""
    return config.privacy.holdout, config.privacy.validation


def _of_model_alone(folder: Path, config: RunConfig, plan: RunPlan) -> dict[str, Carried]:
    """A model without its run: who its consumers were, and on which side, nobody knows. All that its plan may have cost,
    and what its header says was spent before, counts for everybody."""
    try:
        header = json.loads((folder / METADATA_FILE).read_text())["metadata"]
        made = RunPlan.from_json(json.dumps(header["plan"], allow_nan=False))
        before = Losses.of(PrivacyEvent(**event) for event in header.get(SPENT_BEFORE, ()))
    except (OSError, ValueError, KeyError, TypeError, FedcartError) as error:
        raise BadInputError(
            f"start_from: the model in {folder} does not say what it cost: {type(error).__name__}",
            hint=OTHERS_HINT,
        ) from None
    if not made.config.privacy.enabled:
        raise BadInputError(
            f"start_from: the model in {folder} was not made privately, so what it cost has no bound",
            hint=OTHERS_HINT,
        )
    losses = (before + Losses.of(made.total_events())).on_every_side()
    order = choose_order(losses, config.privacy.delta, config.privacy.epsilon)
    return dict.fromkeys(plan.sites, Carried(losses, order, made.run, adaptive=True))


def spent_before(folder: RunFolder, plan: RunPlan) -> dict[str, list[dict[str, object]]]:
    """For the header of a model: what the consumers of its run had lost before it, the largest of all sites."""
    states = [state for site in plan.sites if (state := _replayed(folder.ledger(site))) is not None]
    carried = reduce(or_, (state.carried for state in states), Losses())
    return {SPENT_BEFORE: [asdict(event) for event in carried]} if carried else {}


def _require_others(before: RunConfig) -> None:
    if not _is_log(before):
        raise BadInputError(
            "start_from_others: these synthetic consumers are those of the earlier run",
            hint="another seed makes other people",
        )


def _run_behind(start: Path) -> RunFolder | None:
    """The run that left this model: its folder, or the one that a model of it (its best one) lies in."""
    for folder in (start, start.resolve().parent):
        if RunFolder.is_one(folder):
            return RunFolder.open(folder)
    return None


def _same_people(before: RunConfig, config: RunConfig) -> bool:
    """Whether the consumers may be the same: of two logs they may always be, of two synthetic markets if both are one."""
    if _is_log(before) or _is_log(config):
        return _is_log(before) and _is_log(config)
    market = set(type(config.data).model_fields) - set(_DEALT_BY)
    return before.seed == config.seed and all(getattr(before.data, f) == getattr(config.data, f) for f in market)


def _is_log(config: RunConfig) -> bool:
    return bool(config.data.events or config.data.source)


def _log_digest(folder: RunFolder) -> str:
    facts = folder.facts()
    return str(facts.data.get(LOG_DIGEST, "")) if facts is not None else ""


def _dealt_alike(before: RunConfig, config: RunConfig, sites: set[str], *, same_log: bool) -> bool:
    """Whether a consumer of a site was at the site of the same name before: the same events were dealt as before, or by a
    named column of the log, and no site was merged."""
    if (before.data, before.seed) == (config.data, config.seed) and same_log:
        return True
    rules = [[getattr(one.data, name) for name in _READ_BY] for one in (before, config)]
    named = _is_log(config) and config.data.split_by not in _NAMES_NO_COLUMN
    return bool(named and rules[0] == rules[1] and not any(site.startswith(_MERGED) for site in sites))


def _require_promise(folder: RunFolder, before: RunConfig) -> None:
    if before.privacy.enabled:
        return
    raise BadInputError(
        f"start_from: the run in {folder.path} was not private, so what these consumers lost in it has no bound",
        hint=f"begin anew, or with --no-privacy; {OTHERS_HINT}",
    )


def _require_unspent(folder: RunFolder) -> None:
    if any(record.attestations for record in folder.metrics()):
        raise BadInputError(
            f"start_from: the ledgers of the run in {folder.path} are gone",
            hint="what its consumers have lost is not known: begin anew, or restore them",
        )


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
