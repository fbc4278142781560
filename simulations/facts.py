"""What a run says about itself: the facts before round 1, private diagnostics as oracle means, the summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.privacy import epsilon_alone, round_up, show_epsilon, show_exact
from common.run import RunConfig, RunFacts, RunPlan, SiteFacts
from server.affordable import epsilon_of_runs
from simulations.tasks.half import oracle_of


def run_facts(
    out: Path, config: RunConfig, plan: RunPlan, sites: Sequence[SiteFacts], data: dict[str, Any]
) -> RunFacts:
    """Everything that is known before round 1."""
    privacy, training = config.privacy, config.training
    signal, half = plan.task.signal(plan), oracle_of(plan.task.name)
    steps = training.rounds * training.local_steps
    return RunFacts(
        out=out,
        sites=tuple(sites),
        rounds=training.rounds,
        local_steps=training.local_steps,
        private=privacy.enabled,
        aggregation=config.aggregation.mode,
        noise_multiplier=plan.noise_in_sum,
        epsilon_target=privacy.epsilon,
        delta=privacy.delta,
        sampling_rate=plan.task.sampling_rate(config),
        expected_signal=signal,
        expectation=half.expectation(plan, signal, steps),
        parameters=plan.parameters,
        data=data,
        assumptions=(*assumptions(config), *of_schedule(plan)),
        budget=f"enforced: each site stops before epsilon {show_exact(privacy.epsilon)}"
        if privacy.enabled
        else "none: not private",
        trust=plan.quorum.against() if plan.quorum else "",
        alone=round_up(epsilon_alone(plan.total_events(), privacy.delta)) if plan.quorum else 0.0,
    )


def going_on(facts: RunFacts, earlier: float, with_run: float) -> RunFacts:
    """The facts of a run whose consumers have lost something before: every promise in them is the one of both runs."""
    if with_run <= facts.epsilon_target:
        return facts
    both, before = show_epsilon(with_run, 3), show_epsilon(earlier, 3)
    budget = f"enforced: each site stops before epsilon {both}, of which {before} was spent before this run"
    return replace(facts, epsilon_target=float(both), budget=budget)


def of_schedule(plan: RunPlan) -> tuple[str, ...]:
    """What all runs of a schedule cost together, said of one of them; empty without a schedule."""
    schedule = plan.config.schedule
    if not schedule.periods:
        return ()
    this = f"run {schedule.period} of {schedule.periods}" if schedule.period else f"one run of {schedule.periods}"
    cost = (
        f"epsilon {show_epsilon(epsilon_of_runs(plan, schedule.periods), 3)}"
        if plan.config.privacy.enabled
        else "no promise"
    )
    return (
        f"{this}, one a {schedule.every}: a consumer who is there in all of them is left with {cost}, from a new scope on",
    )


def assumptions(config: RunConfig) -> tuple[str, ...]:
    """What a reader must believe for the figures of a simulation to mean something."""
    stated = [
        "simulated: these budgets do not carry over to real sites",
        "declared populations are the true ones rounded up to a power of two; a real site declares its own",
        "consumers of different sites are different people unless stated otherwise",
    ]
    if (
        (config.data.events or config.data.source)
        and not config.data.catalogue
        and not config.features.item_buckets
    ):
        stated.append(
            "the catalogue was built from the event log: an uncharged release, declare one in a deployment"
        )
    stated += oracle_of(config.task).assumptions(config)
    if config.start_from:
        stated.append(
            "started from a model of other people, as who began this run says: what it cost them is in no epsilon here"
            if config.start_from_others
            else "started from an earlier model: what its run cost the same consumers is charged first, and is in every epsilon"
        )
    if not config.privacy.enabled:
        stated.append("NOT PRIVATE: no noise was added")
    if config.aggregation.mode == "plain":
        stated.append("aggregation is plain: the server sees each site's contribution")
    return tuple(stated)


def diagnostics(kits: Mapping[str, Path], round_number: int) -> dict[str, float]:
    """Means over sites of what they noted locally about a round: *oracle*, no server sees them."""
    columns: dict[str, list[float]] = {}
    for kit in kits.values():
        for facts in _last_notes(kit / "state" / "diagnostics.jsonl"):
            if facts.get("round") == round_number and facts.get("kind") == "train":
                for name in ("clip_fraction", "signal_to_noise"):
                    if facts.get(name) is not None:
                        columns.setdefault(name, []).append(facts[name])
                break
    return {name: sum(values) / len(values) for name, values in columns.items()}


def _last_notes(path: Path) -> list[dict[str, Any]]:
    """The last few lines of a site's diagnostics, newest first."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()[-6:][::-1]]
