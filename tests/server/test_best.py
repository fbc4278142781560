"""The best model by released metric: kept only where it beats the last by more than the noise of choosing explains."""

from __future__ import annotations

import numpy as np
import pytest

from common.run import RoundRecord, RunFolder, RunPlan, SiteRound, build_config
from server.best import better_than_last, deciding_metric, kept, noise_bar, note_measured
from tests.tiny_federation import run_tiny

SITES = (("a", 5_000), ("b", 5_000), ("c", 5_000))


def plan_of(*settings: str, noise: float = 2.0) -> RunPlan:
    config = build_config({}, ["model.heads={'next-item'=1.0}", *settings])
    return RunPlan("run", config.public_json(), SITES, "{}", 4, 1.0, noise)


def record(number: int, recall: float, kind: str = "train", held: float = 3_000.0, **more) -> RoundRecord:
    answered = {name: SiteRound("ok") for name, _ in SITES}
    released = {"recall@20": recall, "loss": 5.0, "mrr@20": 0.1}
    return RoundRecord(number, kind, released, {"held_out": held}, sites=answered, **more)


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def vector(value: float) -> np.ndarray:
    return np.full(4, value, dtype=np.float32)


def follow(folder: RunFolder, plan: RunPlan, *recalls: float) -> None:
    for number, recall in enumerate(recalls, start=1):
        line = record(number, recall)
        note_measured(folder, plan, line, vector(number))
        folder.append_round(line)


def test_a_model_that_is_clearly_better_than_the_last_is_kept_with_the_round_that_made_it(folder):
    plan = plan_of()
    follow(folder, plan, 0.9, 0.40, 0.70, 0.30)  # round 1 measures the untrained model: it is never the best
    best = better_than_last(folder, plan, record(5, 0.35, "evaluate"))
    assert best is not None
    assert (best.rounds, best.value, best.vector[0]) == (2, 0.70, 3.0)


def test_what_chance_explains_is_not_called_better(folder):
    plan, bar = plan_of(), 0.0
    bar = noise_bar(plan, record(2, 0.5), "recall@20")
    follow(folder, plan, 0.1, 0.5, 0.5 + 1.5 * bar, 0.5)
    assert better_than_last(folder, plan, record(5, 0.5, "evaluate")) is None


@pytest.mark.parametrize(("runs", "at_most"), [(20, 3), pytest.param(60, 8, marks=pytest.mark.full)])
def test_by_chance_the_best_of_many_equal_models_is_rarely_called_better(tmp_path, runs, at_most):
    plan, rng, wrong = plan_of(), np.random.default_rng(0), 0
    bar = noise_bar(plan, record(2, 0.5), "recall@20")
    for run in range(runs):
        folder = RunFolder.create(tmp_path / str(run))
        follow(folder, plan, *(0.5 + bar * rng.normal(size=12)))
        wrong += better_than_last(folder, plan, record(13, 0.5 + bar * rng.normal(), "evaluate")) is not None
    assert wrong <= at_most


def test_the_bar_is_the_spread_of_the_noised_mean():
    plan, rng = plan_of(), np.random.default_rng(1)
    from common.tasks import metric_sensitivity

    spread = 2.0 * metric_sensitivity(["next-item"]) * 3**0.5
    noised = (0.4 * 3_000 + spread * rng.normal(size=20_000)) / (3_000 + spread * rng.normal(size=20_000))
    assert noise_bar(plan, record(2, 0.4), "recall@20") == pytest.approx(noised.std(), rel=0.05)


def test_of_too_few_consumers_nothing_is_told(folder):
    plan = plan_of()
    assert noise_bar(plan, record(2, 0.4, held=1.0), "recall@20") == float("inf")
    assert noise_bar(plan_of(noise=0.0), record(2, 0.4), "recall@20") == 0.0


def test_a_task_whose_figures_have_no_bars_has_no_best_model():
    assert deciding_metric(plan_of()) == "recall@20"
    assert deciding_metric(plan_of("task=sales", "model.heads={sales=1.0}")) == ""
    assert deciding_metric(plan_of("task=purchase-intent", "model.heads={'purchase-intent'=1.0}")) == "loss"


def test_a_damaged_file_of_the_best_is_as_if_there_were_none(folder):
    follow(folder, plan_of(), 0.1, 0.6)
    folder.best_file.write_bytes(b"no archive")
    assert kept(folder) is None


@pytest.mark.full
def test_a_run_leaves_both_models_where_the_last_rounds_spoil_it(tmp_path):
    out = tmp_path / "run"
    run_tiny(out, "data.consumers=900", "privacy.enabled=false", "training.rounds=5", "training.learning_rate=3.0",
             "training.local_steps=4")  # fmt: skip
    folder = RunFolder(out)
    records = folder.metrics()
    values = [r.released["recall@20"] for r in records[1:-1]]
    there = (folder.best_model / "model.json").is_file()
    assert there == (max(values) > records[-1].released["recall@20"])
