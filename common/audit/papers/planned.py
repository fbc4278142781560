"""What the plan of a run says, for people: each line is public, and fixed before the first round."""

from __future__ import annotations

from common.audit.papers.paper import PLAN, Item, Reference
from common.privacy import show_exact
from common.run import PLAN_FILE, RunPlan

SITES_NAMED = 20


def planned(plan: RunPlan, name: str) -> tuple[Item, ...]:
    """Task, model, sites, aggregation and promise of a run; ``name``: of the folder that the plan lies in."""
    origin = (Reference(PLAN, name, PLAN_FILE, 0, plan.digest().hex()),)
    return tuple(Item(label, words, origin, "public") for label, words in (*_work(plan), *_promise(plan)))


def _work(plan: RunPlan) -> list[tuple[str, str]]:
    config = plan.config
    declared = ", ".join(f"{site} {number:,}" for site, number in plan.populations[:SITES_NAMED])
    left = len(plan.populations) - SITES_NAMED
    secure = config.aggregation.mode == "secure"
    seen = "the sum of a round, no single contribution" if secure else "each site's contribution alone"
    return [
        ("Task", plan.task.name),
        ("Model", f"{config.model.encoder}, {plan.parameters:,} parameters"),
        ("Rounds planned", f"{config.training.rounds}, {config.training.local_steps} local steps each"),
        ("Consumers declared", declared + (f" and {left} more sites" if left > 0 else "")),
        ("Read of a consumer", f"at most the last {config.features.max_events} events, held in one row"),
        ("Held out", f"{config.privacy.holdout:.0%} of the consumers, for evaluation only"),
        ("Aggregation", f"{config.aggregation.mode}: the coordinator sees {seen}"),
    ]


def _promise(plan: RunPlan) -> list[tuple[str, str]]:
    privacy, quorum = plan.config.privacy, plan.quorum
    if not privacy.enabled:
        return [("Privacy", "NOT PRIVATE: no noise")]
    target = f"ε {show_exact(privacy.epsilon)} at δ {show_exact(privacy.delta)}, per site and consumer"
    noise = f"{plan.noise_in_sum:.4g} times the clipping norm {privacy.clip:g}, sampling rate {privacy.sampling_rate:g}"
    trust = f"shared noise: {quorum}" if quorum else "local: each site's own noise is enough against everybody"
    return [("Privacy target of the run", target), ("Training noise", noise), ("Trust", trust)]
