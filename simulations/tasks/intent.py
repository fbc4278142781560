"""The oracle's half of purchase intent: as behaviour, with baselines for the answer per row."""

from __future__ import annotations

import simulations.tasks.behaviour as behaviour
from client.tasks.intent import row_targets
from common.run import RunPlan
from common.tasks import INTENT
from simulations.tasks.behaviour import (
    NOISED_REFERENCE,
    assumptions,
    encoded,
    expectation,
    fill_in,
    hold_out_sums,
    remarks,
    store,
    train_alone,
)

__all__ = [
    "NOISED_REFERENCE",
    "assumptions",
    "baselines",
    "encoded",
    "expectation",
    "fill_in",
    "hold_out_sums",
    "remarks",
    "store",
    "train_alone",
]


def baselines(kits: list[str], plan: RunPlan) -> dict[str, dict[str, float]]:
    """Those of behaviour; and the share of buyers, the consumer's own rate, gradient-boosted trees."""
    from common.model.intent_baselines import evaluate_intent_baselines

    table = behaviour.baselines(kits, plan)
    train, held = behaviour.joined_parts(kits, plan)
    asked = row_targets(plan.config, train), row_targets(plan.config, held)
    if INTENT in plan.config.model.heads and asked[0] is not None and asked[1] is not None:
        for name, metrics in evaluate_intent_baselines((train, asked[0]), (held, asked[1])).items():
            table[name] = table.get(name, {}) | metrics
    return table
