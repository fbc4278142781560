"""What the operator of a site says yes to: every figure follows from the plan, none is the coordinator's word."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import cli.show as show
from common.errors import FedcartError
from common.privacy import HOLDOUT_SIDE, SUB_SCOPES, TRAIN_SIDE, VALIDATION_SIDE, round_up, show_epsilon

if TYPE_CHECKING:
    from client.runtime.approval import Request
    from common.deployment import SiteKit
    from common.run import RunPlan


def show_request(kit: SiteKit, request: Request) -> None:
    """Print a request: settings, cost and budget. Raises: BadInputError if it shows another plan than its digest names."""
    plan = request.read()
    config = plan.config
    training, heads = config.training, config.model.heads
    rows = [
        ("run", f"{request.run}: {request.status}"),
        ("plan", request.digest),
        ("task", f"{config.task}, {training.rounds} rounds of {training.local_steps} steps"),
        ("model", f"{plan.parameters:,} parameters"),
        ("heads", ", ".join(f"{name} (weight {weight:g})" for name, weight in heads.items())),
        ("sites", ", ".join(f"{name} ({declared} consumers)" for name, declared in plan.populations)),
        ("weights", config.aggregation.weights),
        ("aggregation", config.aggregation.mode),
        ("learning rate", f"{training.learning_rate:g}" if training.learning_rate else "the recipe's own"),
        ("features", _features(plan)),
        *_split_rows(plan),
        *plan.task.approval_rows(config),
        *_forecast_rows(kit, plan),
        *_privacy_rows(plan),
        *_quorum_rows(kit, plan),
        *_budget_rows(kit, plan),
    ]
    for name, text in rows:
        show.line(f"{name:<13} {text}")


def _split_rows(plan: RunPlan) -> list[tuple[str, str]]:
    """Who is held out, and what for; with dates, what is read of whom."""
    from common.contribution import EVALUATE, TRAIN

    privacy, training = plan.config.privacy, plan.config.training
    rounds, closing = plan.measured(TRAIN).share, plan.measured(EVALUATE).share
    what = f"{privacy.holdout:g} of the consumers, for evaluation"
    if privacy.holdout and privacy.validation:
        what += f": {rounds:g} in every round, to choose by; {closing:g} once, in the end, for the figure that is reported"
    rows = [("held out", what)]
    if training.dates_us is None:
        return rows
    dates = f"learnt is what comes before {training.validation_from}; rounds are measured from then to {training.test_from}"
    return [*rows, ("cut in time", f"{dates}, the end from then on (UTC)")]


def plain_request(kit: SiteKit, request: Request) -> dict[str, object]:
    """The same for machines. Raises: BadInputError."""
    plan = request.read()
    epsilons = _epsilons(plan)
    return {
        **asdict(request),
        "epsilon": round_up(max(epsilons.values())),
        "epsilon_trained_on": round_up(epsilons[TRAIN_SIDE]),
        "epsilon_held_out": round_up(max(epsilons[VALIDATION_SIDE], epsilons[HOLDOUT_SIDE])),
        "epsilon_of_sides": {side: round_up(epsilon) for side, epsilon in epsilons.items()},
        "epsilon_said": plan.config.privacy.epsilon,
        "exceeds": _exceeds(plan),
        "quorum": _plain_quorum(plan),
        "parameters": plan.parameters,
        "forecast": [text for _, text in _forecast_rows(kit, plan)],
        "budget": _budget(kit, plan),
    }


def _plain_quorum(plan: RunPlan) -> dict[str, Any] | None:
    from common.privacy import epsilon_alone

    if plan.quorum is None:
        return None
    alone = round_up(epsilon_alone(plan.total_events(), plan.config.privacy.delta))
    return {**asdict(plan.quorum), "epsilon_alone": alone}


def _forecast_rows(kit: SiteKit, plan: RunPlan) -> list[tuple[str, str]]:
    """What the run may bring, and what this site has without it, computed here from the plan and this program's own table."""
    own = ""
    with suppress(FedcartError):  # a kit that cannot be read is told of by what needs it
        own = kit.read().site.name
    lines = plan.task.forecast(plan, own)
    return [("expect" if not place else "", line) for place, line in enumerate(lines)]


def _budget(kit: SiteKit, plan: RunPlan) -> dict[str, Any] | None:
    """Epsilon spent, left before and after the run; None without privacy, or where no ledger can be read."""
    from client.session import budget_with
    from client.site import load_site

    if not plan.config.privacy.enabled:
        return None
    try:
        site = load_site(kit.path)
        limit = site.guard().policy.epsilon_max
        spent, after = budget_with(site, plan)
        in_the_end = budget_with(site, plan, _later(plan))[1]
    except FedcartError as error:
        return {"error": error.message}
    left = {"left": max(0.0, limit - spent), "left_after": max(0.0, limit - after)}
    roster = f"version {site.roster.version}: {site.roster.fingerprint}"
    costs = {"limit": limit, "spent": spent, "after": after, "after_schedule": in_the_end}
    return {**costs, **left, "fits": after <= limit, "roster": roster}


def _later(plan: RunPlan) -> int:
    """Runs of the plan's schedule that come behind it."""
    schedule = plan.config.schedule
    return schedule.periods - schedule.period if schedule.period else 0


def _budget_rows(kit: SiteKit, plan: RunPlan) -> list[tuple[str, str]]:
    """What is left before and after: a yes spends it."""
    budget = _budget(kit, plan)
    if budget is None:
        return []
    if "error" in budget:
        return [("budget", f"cannot be read: {budget['error']}")]
    before = f"{show.epsilon(budget['spent'], 4)} of {show.exact(budget['limit'])} spent, {show.budget_left(budget['left'], 4)} left"
    after = f"with this run {show.epsilon(budget['after'], 4)}, {show.budget_left(budget['left_after'], 4)} left"
    rows = [("roster", str(budget["roster"])), ("budget", f"{before}; {after}")]
    unpaid = ("WARNING", "the whole run does not fit: this site would stop before its end")
    rows = rows if budget["fits"] else [*rows, unpaid]
    return [*rows, *_schedule_rows(plan, budget["after_schedule"], budget["limit"])]


def _schedule_rows(plan: RunPlan, in_the_end: float, limit: float) -> list[tuple[str, str]]:
    """What follows a run of a schedule, if the coordinator keeps to it; each of its runs asks anew."""
    schedule = plan.config.schedule
    if not schedule.period:
        return []
    which = f"run {schedule.period} of {schedule.periods}, one a {schedule.every} from {schedule.begins}"
    rows = [
        (
            "schedule",
            f"{which}, says the coordinator; with all that are left {show.epsilon(in_the_end, 4)} of {show.exact(limit)} spent",
        )
    ]
    unpaid = ("WARNING", "the whole schedule does not fit: this site would refuse one of its later runs")
    return rows if in_the_end <= limit else [*rows, unpaid]


def _features(plan: RunPlan) -> str:
    from json import loads

    spec = loads(plan.features)
    named = {key: spec[key] for key in ("catalogue_items", "item_buckets", "category_buckets") if spec.get(key)}
    words = [f"{value} {key.replace('_', ' ')}" for key, value in named.items()]
    return ", ".join([f"last {plan.config.features.max_events} events of a consumer", *words])


def _privacy_rows(plan: RunPlan) -> list[tuple[str, str]]:
    from common.errors import ConfigError
    from common.privacy import delta_remark

    privacy = plan.config.privacy
    if not privacy.enabled:
        return [("privacy", "NONE: the policy will refuse this run")]
    noise, rate = plan.task.evaluation_words(plan), plan.task.sampling_rate(plan.config)
    epsilons = _epsilons(plan)
    rows = [
        (
            "privacy",
            f"noise multiplier {plan.noise_in_sum:.4f}{' of the sum' if plan.quorum else ''}, "
            f"sampling rate {rate:g}, "
            f"clip {privacy.clip:g}; {noise}",
        ),
        (
            "epsilon",
            f"{show_epsilon(max(epsilons.values()))} for all rounds and the closing evaluation (delta {show.exact(privacy.delta)}), "
            f"computed here; the coordinator says {show.exact(privacy.epsilon)} at most",
        ),
        (
            "",
            _of_each_side(epsilons),
        ),
    ]
    if _exceeds(plan):
        rows.append(("WARNING", "the settings cost more than the coordinator says"))
    try:
        remark = delta_remark(privacy.delta, dict(plan.populations))
    except ConfigError as error:
        remark = f"{error.message}; the promise says nothing"
    return [*rows, ("WARNING", remark)] if remark else rows


def _quorum_rows(kit: SiteKit, plan: RunPlan) -> list[tuple[str, str]]:
    """Whose noise the epsilon counts on, by name: the operator says whom he knows; the rest counts as colluding."""
    from common.privacy import epsilon_alone

    quorum = plan.quorum
    if quorum is None:
        return []
    alone = show_epsilon(epsilon_alone(plan.total_events(), plan.config.privacy.delta))
    own = ""
    with suppress(FedcartError):
        own = kit.read().site.name
    others = ", ".join(name for name in plan.sites if name != own)
    return [
        ("quorum noise", f"this epsilon holds {quorum.against()}"),
        ("", f"{alone} if no other site is honest: this site adds a share of the noise only"),
        ("", f"from {quorum.cliff} colluding sites on nothing but that share may be left"),
        (
            "who they are",
            f"{others}: name those that you know, and know to be run apart; the rest counts as colluding, and is to be "
            f"{quorum.colluders} at most (colluders_max in policy.toml)",
        ),
    ]


def _of_each_side(epsilons: dict[str, float]) -> str:
    words = f"{show_epsilon(epsilons[TRAIN_SIDE])} for a consumer who is trained on"
    if not epsilons[VALIDATION_SIDE]:
        return f"{words}, {show_epsilon(epsilons[HOLDOUT_SIDE])} for one who is held out"
    chosen_by, reported = show_epsilon(epsilons[VALIDATION_SIDE]), show_epsilon(epsilons[HOLDOUT_SIDE])
    return f"{words}, {chosen_by} for one by whom the run chooses, {reported} for one on whom it reports"


def _epsilons(plan: RunPlan) -> dict[str, float]:
    """What the whole run can cost a consumer of each side: the guard lets it take no more."""
    from common.privacy import ScopeAccountant

    account, delta = ScopeAccountant(plan.total_events()), plan.config.privacy.delta
    return {side: account.sub_epsilon(side, delta) for side in SUB_SCOPES}


def _exceeds(plan: RunPlan) -> bool:
    return max(_epsilons(plan).values()) > plan.config.privacy.epsilon
