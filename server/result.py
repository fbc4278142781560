"""What a run leaves at its end: model and summary, the same of a simulated and of a deployed run."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.contribution import TRAIN
from common.run import (
    BEST,
    FAILED,
    INTERRUPTED,
    RoundRecord,
    RunFolder,
    RunPlan,
    Summary,
    seal_run,
    sums_in,
    unattested_words,
    with_shortened,
    without_sum,
)
from common.trust import Identity
from server.best import better_than_last, deciding_metric
from server.rounds import Outcome

LAST = "last"


def summarise_run(
    folder: RunFolder, plan: RunPlan, outcome: Outcome, seconds: float, remarks: Sequence[str] = ()
) -> Summary:
    """The summary of a run from its folder and its outcome; ``remarks`` come after the run's own notes."""
    records = folder.metrics()
    last = records[-1] if records else RoundRecord(0)
    rounds, sums = sums_in(records)
    own = [outcome.reason, without_sum(records), with_shortened(records)]
    own += [f"site {site} stopped: {reason}" for site, reason in sorted(outcome.state.stopped.items())]
    own += unattested_words(records)
    return Summary(
        status=outcome.status,
        rounds=rounds,
        sums=sums,
        metrics={} if outcome.status == FAILED else last.metrics,
        epsilon=last.epsilon,
        alone=last.alone,
        aggregation=plan.config.aggregation.mode,
        private=plan.config.privacy.enabled,
        paths=folder.written(),
        seconds=round(seconds, 2),
        notes=tuple(note for note in (*own, *remarks) if note),
    )


def close_run(folder: RunFolder, summary: Summary, coordinator: Identity) -> None:
    """Write how a run ended, sign all of it if it is over, and put a card beside each model. Raises: WorkFailedError (disk).

    A card that cannot be made takes nothing from a run that is over: it is logged, and the run goes without.
    """
    from common.audit.papers.card import write_cards

    folder.write_summary(summary)
    if summary.status != INTERRUPTED:
        seal_run(folder, summary, coordinator)
    try:
        write_cards(folder)
    except Exception as error:
        logging.getLogger("fedcart").warning("no model card: %s", error)


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
    facts = {"rounds": outcome.state.round, "status": outcome.status, "private": private, "sites": sites}
    return facts | {"which": LAST, "finished": int(time.time())}


@dataclass(frozen=True)
class Result:
    """What a run leaves of its model: parameters ``float32[d]`` and facts of the last, and of the best if it is another."""

    last: NDArray[np.float32]
    facts: dict[str, Any]
    best: NDArray[np.float32] | None = None
    best_facts: dict[str, Any] = field(default_factory=dict)
    remark: str = ""


def result_of_run(folder: RunFolder, plan: RunPlan, outcome: Outcome) -> Result:
    """The last model, and beside it the best by released metric if it beats the last by more than chance."""
    facts, last = model_facts(folder, plan, outcome), outcome.state.average
    best, metric = better_than_last(folder, plan, outcome.evaluation), deciding_metric(plan)
    if best is None:
        return Result(last, facts)
    chosen = {"rounds": best.rounds, "which": BEST, "chosen_by": metric, "value": best.value, "bar": best.bar}
    remark = (
        f"the model after round {best.rounds} is better than the last by more than chance: {metric} "
        f"{best.value:.3f} ± {best.bar:.3f} where the run chooses; it lies in {folder.best_model.name}/"
    )
    return Result(last, facts, best.vector, facts | chosen, remark)
