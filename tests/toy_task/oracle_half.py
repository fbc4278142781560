"""The oracle's half of basket size: as behaviour, compared with the most frequent bucket."""

from __future__ import annotations

import numpy as np
from client.tasks.basket import row_targets
from common.tasks.basket import BUCKETS, HEAD

from common.run import RunPlan
from simulations.tasks import behaviour
from simulations.tasks.behaviour import (  # noqa: F401 - the rest is as there
    NOISED_REFERENCE,
    assumptions,
    encoded,
    fill_in,
    hold_out_sums,
    remarks,
    store,
    train_alone,
)


def baselines(kits: list[str], plan: RunPlan) -> dict[str, dict[str, float]]:
    """Everybody buys as most do."""
    train, held = behaviour.joined_parts(kits, plan)
    known, asked = (row_targets(plan.config, rows).values[HEAD] for rows in (train, held))
    most = np.bincount(known[np.isfinite(known)].astype(int), minlength=BUCKETS).argmax()
    return {"majority": {plan.task.primary: float((asked[np.isfinite(asked)] == most).mean())}}


def expectation(_plan: RunPlan, signal: float, _steps: int) -> str:
    """What a signal brings was measured for other tasks."""
    return f"nothing was measured for this task (signal S = {signal:.0f})"
