"""What a run leaves at its end: model and summary, the same of a simulated and of a deployed run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.contribution import TRAIN
from common.plan import RunPlan
from common.run import FAILED, RoundRecord, RunFolder, Summary, sums_in, without_sum
from common.trust import Identity
from server.rounds import Outcome


def summarise_run(
    folder: RunFolder, plan: RunPlan, outcome: Outcome, seconds: float, remarks: Sequence[str] = ()
) -> Summary:
    """The summary of a run from its folder and its outcome; ``remarks`` come after the run's own notes."""
    records = folder.metrics()
    last = records[-1] if records else RoundRecord(0)
    rounds, sums = sums_in(records)
    own = [outcome.reason, without_sum(records)]
    own += [f"site {site} stopped: {reason}" for site, reason in sorted(outcome.state.stopped.items())]
    return Summary(
        status=outcome.status,
        rounds=rounds,
        sums=sums,
        metrics={} if outcome.status == FAILED else last.metrics,
        epsilon=last.epsilon,
        aggregation=plan.config.aggregation.mode,
        private=plan.config.privacy.enabled,
        paths=folder.written(),
        seconds=round(seconds, 2),
        notes=tuple(note for note in (*own, *remarks) if note),
    )


def write_model(
    folder: Path, plan: RunPlan, vector: NDArray[np.float32], facts: Mapping[str, Any], coordinator: Identity
) -> None:
    """Write the model of a run into a folder: parameters ``float32[d]``, the plan and facts that explain them; signed."""
    from common.data import FeatureSpec
    from common.model import layout_of, save_model
    from common.model.run_model import run_model

    sizes = FeatureSpec.from_json(json.loads(plan.features)).sizes
    metadata = {"plan": json.loads(plan.to_json()), "sizes": sizes, **facts}
    save_model(folder, vector, layout_of(run_model(plan.config, plan.features)), metadata, coordinator)


def model_facts(folder: RunFolder, plan: RunPlan, outcome: Outcome) -> dict[str, Any]:
    """What the model's metadata say of the run that made it; ``sites``: those in its last sum."""
    sums = [record for record in folder.metrics() if record.kind == TRAIN and not record.aborted]
    sites = [site for site, did in sums[-1].sites.items() if did.status == "ok"] if sums else []
    private = plan.config.privacy.enabled
    return {"rounds": outcome.state.round, "status": outcome.status, "private": private, "sites": sites}
