"""What a run says about itself: the facts before round 1, private diagnostics as oracle means, the summary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config import RunConfig
from common.plan import RunPlan
from common.run.facts import RunFacts, SiteFacts
from common.run.records import RoundRecord
from common.tasks.heads import SALES
from simulations import sales

_NEXT_ITEM = "recall@20"


def run_facts(
    out: Path, config: RunConfig, plan: RunPlan, sites: Sequence[SiteFacts], data: dict[str, Any]
) -> RunFacts:
    """Everything that is known before round 1."""
    privacy, training = config.privacy, config.training
    signal = math.inf if plan.forecasts else plan.signal
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
        sampling_rate=1.0 if plan.forecasts else privacy.sampling_rate,
        expected_signal=signal,
        expectation=sales.noise_words(plan) if plan.forecasts else expectation(signal, steps),
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
    if config.task == SALES and (config.data.events or not config.data.catalogue):
        stated.append("dates and categories of the series follow the log: declare them in a deployment")
    if config.start_from:
        stated.append(
            "started from an earlier model: what that run cost the same consumers adds up, and is not in these figures"
        )
    if not config.privacy.enabled:
        stated.append("NOT PRIVATE: no noise was added")
    if config.aggregation.mode == "plain":
        stated.append("aggregation is plain: the server sees each site's contribution")
    return tuple(stated)


def expectation(signal: float, steps: int) -> str:
    """What to expect of a run at this signal.

    A rule of thumb, not a measurement: the steps follow the design's figures for the next item of eight sites
    with 100 private steps in all, and other data will differ.
    """
    if math.isinf(signal):
        return "no noise: quality is bounded by the data only"
    scaled = signal * math.sqrt(steps / 100)
    for limit, verdict in (
        (200, "very weak: little more than the model gives untrained, through its copy path"),
        (430, "weak: a small part of what training without noise would gain"),
        (1_000, "fair: about half of what training without noise would gain"),
        (2_000, "useful: most of what training without noise would gain"),
        (5_000, "good: close to training without noise"),
    ):
        if scaled < limit:
            return verdict
    return "very good: hardly to be told from training without noise"


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


def remarks(record: RoundRecord, baselines: dict[str, dict[str, float]]) -> list[str]:
    """What the oracle's comparison of the last record with the baselines asks to be said."""
    notes = list(sales.verdict(record.oracle, baselines))
    model = record.oracle.get(_NEXT_ITEM, math.nan)
    better = {n: m[_NEXT_ITEM] for n, m in baselines.items() if m.get(_NEXT_ITEM, -1.0) > model}
    if better:
        best = max(better, key=better.__getitem__)
        notes.append(
            f"the model ({_NEXT_ITEM} {model:.3f}) is below the trivial baseline {best} ({better[best]:.3f}): "
            "more consumers, a larger epsilon or more rounds are needed"
        )
    return notes
