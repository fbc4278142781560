"""The best model of a run by what was released, beside the last: kept while the run goes on, with the bars of the noise.

Choosing among released figures is post-processing and costs nothing. But the largest of many noisy figures is large by
chance: a model is called better than the last one only if it is so by more than that.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from statistics import NormalDist
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from common.atomic import write_atomic
from common.run import RoundRecord, RunFolder, RunPlan
from common.tasks import COUNT, LOSS_BOUND, metric_named, metric_sensitivity

Vector = NDArray[np.float32]
HELD_OUT = "held_out"
CONFIDENCE = 0.95  # over all rounds together


@dataclass(frozen=True)
class Candidate:
    """Parameters ``float32[d]`` that were measured: rounds behind them, the released figure, its standard error."""

    vector: Vector
    rounds: int
    value: float
    bar: float


def deciding_metric(plan: RunPlan) -> str:
    """The released metric that decides between the models of a run; empty where its bars are not known.

    A mean over consumers has bars that follow from the public noise; the area under a curve has none as simple, so the
    loss decides there.
    """
    names = plan.metrics
    if COUNT not in names or plan.derived("train"):
        return ""
    return plan.task.primary if plan.task.primary in names else "loss"


def has_bar(plan: RunPlan, metric: str) -> bool:
    """Whether a released figure is a mean over held-out consumers, whose bar follows from the public noise."""
    return metric in plan.metrics and COUNT in plan.metrics and not plan.derived("train")


def counted(plan: RunPlan, sums: NDArray[np.float64] | None) -> dict[str, float]:
    """The released, noised number of held-out consumers of whom a round's figures are means; empty where none are."""
    if sums is None or plan.metrics[:1] != (COUNT,):
        return {}
    return {HELD_OUT: round(float(sums[0]), 3)}


def noise_bar(plan: RunPlan, record: RoundRecord, metric: str) -> float:
    """Standard error that the noise of the sums gives a released mean over consumers; 0 without noise.

    Public: from the noise multiplier, the sites in the sum, and the released number of consumers in it. It says nothing of
    which consumers happen to be held out.
    """
    answered = record.answered
    noise = plan.measured(record.kind).noise
    if not noise or not answered:
        return 0.0
    spread = noise * metric_sensitivity(list(plan.config.model.heads)) * math.sqrt(answered)
    held = record.public.get(HELD_OUT, 0.0)
    if held < spread:  # it is not known of how many consumers this is a mean
        return math.inf
    unit = LOSS_BOUND if metric == "loss" else 1.0
    value = record.released.get(metric, math.nan) / unit
    return unit * spread / held * math.sqrt(1 + value**2)


def bar_of(plan: RunPlan, record: RoundRecord, metric: str) -> float:
    """Standard error of a released mean beside one of another round.

    Where a run chooses by some held-out consumers and reports on others, that they are others counts too: of values within
    bounds the variance is at most (mean - lowest) * (highest - mean), over the released number of consumers.
    """
    noise, held = noise_bar(plan, record, metric), record.public.get(HELD_OUT, 0.0)
    if not plan.config.privacy.validation or not math.isfinite(noise):
        return noise
    highest = LOSS_BOUND if metric == "loss" else 1.0
    value = min(max(record.released.get(metric, math.nan), 0.0), highest)
    return math.hypot(noise, math.sqrt(value * (highest - value) / held)) if held > 0 else math.inf


def note_measured(folder: RunFolder, plan: RunPlan, record: RoundRecord, vector: Vector) -> None:
    """Keep the parameters ``float32[d]`` that a round has measured, if none before were better. Raises: WorkFailedError."""
    metric = deciding_metric(plan)
    value = record.released.get(metric, math.nan)
    if record.aborted or not math.isfinite(value) or record.round <= 1:  # round 1 measures the untrained model
        return
    known = kept(folder)
    if known is None or metric_named(metric).better(value, known.value):
        buffer = io.BytesIO()
        np.savez(buffer, vector=vector, facts=np.array([record.round - 1, value, bar_of(plan, record, metric)]))
        write_atomic(folder.best_file, buffer.getvalue())


def kept(folder: RunFolder) -> Candidate | None:
    """The best model so far; None if there is none, or its file is damaged: it is a by-product of the run."""
    try:
        with np.load(folder.best_file, allow_pickle=False) as stored:
            rounds, value, bar = map(float, stored["facts"])
            return Candidate(np.asarray(stored["vector"], dtype=np.float32), int(rounds), value, bar)
    except (OSError, ValueError, KeyError, BadZipFile):
        return None


def better_than_last(folder: RunFolder, plan: RunPlan, closing: RoundRecord | None) -> Candidate | None:
    """The best model, if it beats the closing evaluation's by more than chance: at 95 % over all rounds together."""
    metric, best = deciding_metric(plan), kept(folder)
    if best is None or closing is None or closing.aborted or best.vector.shape != (plan.parameters,):
        return None
    last, bar = closing.released.get(metric, math.nan), bar_of(plan, closing, metric)
    measured = sum(record.kind == closing.kind or not record.aborted for record in folder.metrics())
    needed = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / max(measured, 1)) * math.hypot(best.bar, bar)
    gain = best.value - last if metric_named(metric).higher_is_better else last - best.value
    return best if gain > needed else None
