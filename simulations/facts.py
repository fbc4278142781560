"""What a run says about itself: the facts before round 1, private diagnostics as oracle means, the summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config import RunConfig
from common.plan import RunPlan
from common.run.facts import RunFacts, SiteFacts
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
        noise_multiplier=plan.noise_multiplier,
        epsilon_target=privacy.epsilon,
        delta=privacy.delta,
        sampling_rate=plan.task.sampling_rate(config),
        expected_signal=signal,
        expectation=half.expectation(plan, signal, steps),
        parameters=plan.parameters,
        data=data,
        assumptions=assumptions(config),
        budget=f"enforced: each site stops before epsilon {privacy.epsilon:g}"
        if privacy.enabled
        else "none: not private",
    )


def assumptions(config: RunConfig) -> tuple[str, ...]:
    """What a reader must believe for the figures of a simulation to mean something."""
    stated = [
        "simulated: these budgets do not carry over to real sites",
        "declared populations are the true ones rounded up to a power of two; a real site declares its own",
        "consumers of different sites are different people unless stated otherwise",
    ]
    if config.data.events and not config.data.catalogue and not config.features.item_buckets:
        stated.append(
            "the catalogue was built from the event log: an uncharged release, declare one in a deployment"
        )
    stated += oracle_of(config.task).assumptions(config)
    if config.start_from:
        stated.append(
            "started from an earlier model: what that run cost the same consumers adds up, and is not in these figures"
        )
    if not config.privacy.enabled:
        stated.append("NOT PRIVATE: no noise was added")
    if config.aggregation.mode == "plain":
        stated.append("aggregation is plain: the server sees each site's contribution")
    return tuple(stated)


def diagnostics(kits: Mapping[str, Path], round_number: int) -> dict[str, float]:
    """Means over sites of what they noted locally about a round: *oracle*, no server sees them."""
    found: dict[str, list[float]] = {}
    for kit in kits.values():
        for facts in _last_notes(kit / "state" / "diagnostics.jsonl"):
            if facts.get("round") == round_number and facts.get("kind") == "train":
                for name in ("clip_fraction", "signal_to_noise"):
                    if facts.get(name) is not None:
                        found.setdefault(name, []).append(facts[name])
                break
    return {name: sum(values) / len(values) for name, values in found.items()}


def _last_notes(path: Path) -> list[dict[str, Any]]:
    """The last few lines of a site's diagnostics, newest first."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()[-6:][::-1]]
