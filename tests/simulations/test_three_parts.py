"""A whole run by whose validation part is chosen and on whose other held-out consumers is reported; charged apart, and cut in time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from client.models import measured_of
from client.site import load_site
from common.audit.verify import verify_path
from common.contribution import EVALUATE, TRAIN
from common.data import parts_of
from common.privacy import replay_lines, split_lines
from common.run import RunFolder
from tests.tiny_federation import run_tiny

ROUNDS, STEPS = 3, 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("parts") / "run"
    run_tiny(out, f"training.rounds={ROUNDS}", f"training.local_steps={STEPS}", "privacy.epsilon=5")
    return RunFolder.open(out)


def kits(run: RunFolder) -> list[Path]:
    return sorted((run.path / "sites").iterdir())


def test_who_is_asked_in_a_round_is_neither_learnt_from_nor_asked_in_the_end(run: RunFolder) -> None:
    plan = run.plan()
    for kit in kits(run):
        site = load_site(kit, simulated=True)
        parts = [set(part.consumers.tolist()) for part in parts_of(site.prepared(plan).sides)]
        assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        nothing = np.zeros(plan.parameters, dtype=np.float32)
        asked = {kind: measured_of(site, plan, nothing, kind)[1] for kind in (TRAIN, EVALUATE)}
        assert [len(asked[TRAIN]), len(asked[EVALUATE])] == [len(parts[1]), len(parts[2])]


def test_each_part_is_charged_for_what_reads_it_and_the_records_are_true(run: RunFolder) -> None:
    for kit in kits(run):
        lines, _ = split_lines(run.ledger(kit.name).read_bytes())
        spent = [state for _, _, state in replay_lines(lines)][-1].spent
        assert {event.sub_scope: event.steps for event in spent} == {
            "train": ROUNDS * STEPS, "validation": ROUNDS, "holdout": 1
        }  # fmt: skip
    assert verify_path(run.path).ok


def test_the_figure_that_is_reported_has_less_noise_than_those_of_the_rounds(run: RunFolder) -> None:
    plan = run.plan()
    assert 1.0 <= plan.closing_noise < plan.evaluation_noise
    assert json.loads(plan.settings)["privacy"]["closing_noise"] == plan.closing_noise


def test_a_run_that_stops_early_reports_on_consumers_by_whom_it_has_not_stopped(tmp_path: Path) -> None:
    settings = ("training.rounds=6", "training.early_stopping=1", "training.learning_rate=0.000001")
    _, watcher = run_tiny(tmp_path / "run", *settings)
    kinds = [record.kind for record in watcher.records]
    assert kinds[-1] == EVALUATE and len(kinds) < 7
    charged = {
        record.kind: {event.sub_scope for event in RunFolder.open(tmp_path / "run").plan().events(record.kind)}
        for record in watcher.records
    }
    assert charged == {TRAIN: {"train", "validation"}, EVALUATE: {"holdout"}}
    assert verify_path(tmp_path / "run").ok


def test_a_run_cut_in_time_says_where_and_learns_nothing_from_then_on(tmp_path: Path) -> None:
    _, watcher = run_tiny(tmp_path / "run", "training.split=time", "privacy.epsilon=5")
    folder = RunFolder.open(tmp_path / "run")
    plan = folder.plan()
    training = plan.config.training
    said = [
        note
        for note in (*watcher.notes, *(watcher.facts.data["notes"] if watcher.facts else ()))
        if "cut in time" in note
    ]
    assert said and training.validation_from in said[0] and training.test_from in said[0]
    first, then = training.dates_us
    for kit in kits(folder):
        train, validation, holdout = parts_of(load_site(kit, simulated=True).prepared(plan).sides)
        assert train.timestamps.max() < first <= validation.timestamps.max() < then <= holdout.timestamps.max()
    assert verify_path(tmp_path / "run").ok
