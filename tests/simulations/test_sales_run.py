"""A sales run: one release, charged once; training that reads nothing else; sites that lost it stay out."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import answers, session
from client.site import Site, load_site
from client.tasks.series import (
    kept_release,
    noised_series,
    purchases_at,
    purchases_path,
    release_path,
)
from common import wire
from common.audit import verify
from common.contribution import EVALUATE, STATISTICS, TRAIN, Query
from common.errors import BadInputError, ConfigError, FedcartError, RemoteProtocolError, VerificationError
from common.privacy.accountant import epsilon_of
from common.privacy.mechanism import HOLDOUT_SIDE, TRAIN_SIDE, VALIDATION_SIDE
from common.run import PerformanceSettings, RunConfig, RunPlan, build_config, model_bytes, model_digest
from common.run.files import RunFolder
from common.tasks.sales_series import SalesSpec
from common.trust.identity import Identity
from common.trust.randomness import PrivateStream
from simulations.run import simulate
from tests.tiny_federation import TINY, Recorder, tiny

SALES = ("task=sales", "sales.window=14", "sales.test=14", "data.days=100", "privacy.epsilon=3")


def tiny_sales(*overrides: str) -> RunConfig:
    return build_config({}, [*TINY, *SALES, *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    out, watcher = tmp_path_factory.mktemp("sales") / "run", Recorder()
    simulate(tiny_sales(), out, watcher)
    return out, watcher


@pytest.fixture
def site(run: tuple[Path, Recorder], tmp_path: Path) -> tuple[Site, RunPlan]:
    """A copy of the first site, to be damaged."""
    plan = RunFolder.open(run[0]).plan()
    name = plan.sites[0]
    shutil.copytree(run[0] / "sites" / name, tmp_path / "kit")
    for path in (run[0] / "ledgers").glob(f"{name}.*"):
        shutil.copy(path, tmp_path / path.name)
    return load_site(tmp_path / "kit", simulated=True, ledger_path=tmp_path / f"{name}.jsonl"), plan


def question(plan: RunPlan, kind: str = TRAIN) -> answers.Question:
    model = np.zeros(plan.parameters, dtype=np.float32)
    return answers.Question(Query(kind, plan.run, 1, plan.to_json(), bytes(32)), plan, model)


def test_a_run_is_one_release_then_training_then_a_closing_evaluation(run: tuple[Path, Recorder]) -> None:
    out, watcher = run
    assert [(r.round, r.kind) for r in watcher.records] == [
        (0, STATISTICS),
        (1, TRAIN),
        (2, TRAIN),
        (3, EVALUATE),
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["status"], summary["private"]) == ("completed", True)
    assert {"wape", "mase", "rmse", "mean-of-four_wape"} <= summary["metrics"]["released"].keys()
    assert summary["baselines"].keys() == {"mean-of-four", "seasonal-naive"}
    market = json.loads((out / "market.json").read_text())
    assert market["kind"] == "released"
    assert len(market["series"]["quantity"]) == len(market["categories"])


def test_epsilon_is_spent_in_round_0_and_never_again_and_everything_verifies(run: tuple[Path, Recorder]) -> None:
    out, watcher = run
    plan = RunFolder.open(out).plan()
    shown = [set(record.epsilon.values()) for record in watcher.records]
    assert len(set(map(frozenset, shown))) == 1
    expected = epsilon_of(plan.events(STATISTICS), plan.config.privacy.delta)
    assert shown[0].pop() == pytest.approx(expected, abs=2e-6)
    assert 2.9 < expected <= 3.0
    for name in plan.sites:
        site = load_site(out / "sites" / name, simulated=True, ledger_path=out / "ledgers" / f"{name}.jsonl")
        assert [(e.sub_scope, e.steps) for e in site.guard().ledger.state.spent] == [
            (HOLDOUT_SIDE, 1),
            (TRAIN_SIDE, 1),
            (VALIDATION_SIDE, 1),
        ]
    assert verify.verify_path(out, every_round=True).ok


def test_what_the_site_keeps_is_what_the_server_summed(run: tuple[Path, Recorder]) -> None:
    out, _ = run
    plan = RunFolder.open(out).plan()
    total = sum(
        kept_release(
            load_site(out / "sites" / name, simulated=True, ledger_path=out / "ledgers" / f"{name}.jsonl"), plan
        )
        for name in plan.sites
    )
    market = json.loads((out / "market.json").read_text())["series"]
    bounds = SalesSpec.of(plan.config).bounds
    for channel, name in enumerate(("quantity", "revenue")):
        found = np.array([market[name][category] for category in plan.config.sales.categories])
        assert np.allclose(found, np.asarray(total)[channel] * bounds[channel], atol=2e-3)


def test_training_reads_the_release_and_nothing_else(site: tuple[Site, RunPlan]) -> None:
    at, plan = site
    before = answers.answer(at, question(plan)).vector
    purchases_path(at.kit.state, plan).unlink()
    assert not list(at.kit.state.glob("purchases-*"))
    assert not list(at.kit.state.glob("consumers-*"))
    with pytest.raises(BadInputError):
        purchases_at(at, plan)
    contribution = answers.answer(at, question(plan))
    assert np.array_equal(contribution.vector, before)
    assert contribution.events == ()


def test_training_on_another_release_than_the_charged_one_is_refused(site: tuple[Site, RunPlan]) -> None:
    at, plan = site
    path = release_path(at.kit.state, plan)
    kept = path.read_bytes()
    path.write_bytes(bytes([kept[0] ^ 1]) + kept[1:])
    with pytest.raises(VerificationError, match="not what the ledger has charged"):
        answers.answer(at, question(plan))
    path.unlink()
    with pytest.raises(ConfigError, match="no released series"):
        answers.answer(at, question(plan, EVALUATE))


def test_another_plan_finds_no_release(site: tuple[Site, RunPlan]) -> None:
    at, plan = site
    settings = json.loads(plan.settings)
    settings["training"]["local_steps"] += 1
    other = replace(plan, settings=json.dumps(settings))
    with pytest.raises(ConfigError, match="no released series"):
        answers.answer(at, question(other))


def test_the_noise_of_a_release_is_the_announced_one_and_fresh_each_time(site: tuple[Site, RunPlan]) -> None:
    at, plan = site
    purchases = purchases_at(at, plan)
    clean = purchases.series(SalesSpec.of(plan.config), plan.config.privacy.clip).reshape(-1)
    draws = [noised_series(purchases, plan, PrivateStream()).vector - clean for _ in range(2)]
    for noise in draws:
        spread = plan.noise_multiplier * plan.config.privacy.clip
        assert noise.std() == pytest.approx(spread, rel=6 / np.sqrt(2 * noise.size))
    assert abs(np.corrcoef(*draws)[0, 1]) < 6 / np.sqrt(draws[0].size)


@pytest.mark.parametrize(
    ("kind", "number", "task"),
    [
        (STATISTICS, 1, "sales"),
        (TRAIN, 0, "sales"),
        (EVALUATE, 0, "sales"),
        (STATISTICS, 0, "next-behaviour"),
    ],
)
def test_a_coordinator_cannot_ask_for_a_release_elsewhere_or_for_training_before_it(
    run: tuple[Path, Recorder], site: tuple[Site, RunPlan], kind: str, number: int, task: str
) -> None:
    at, plan = site
    if task != "sales":
        plan = dataclasses.replace(plan, settings=tiny("training.rounds=2").public_json())
    model = np.zeros(plan.parameters, dtype=np.float32)
    query = Query(kind, plan.run, number, plan.to_json(), model_digest(model))
    coordinator = Identity.load(at.roster.coordinator.name, run[0] / "coordinator" / "identity.key")
    request = {
        "query": wire.encode(query),
        "signature": coordinator.sign(query.digest()),
        "model": model_bytes(model),
    }
    with pytest.raises(RemoteProtocolError, match="is not one of the plan"):
        session.verified_question(at, request, PerformanceSettings())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("data.days=30",), "too short"),
        (("sales.start=2024-01-01", "sales.periods=20"), "too short"),
        (("model.heads.next-item=1.0",), "does not fit"),
        (("start_from=runs/earlier",), "seasonal mean"),
        (("privacy.epsilon=0.000001",), "cannot be met"),
    ],
)
def test_an_impossible_run_is_refused_before_anything_is_written(
    tmp_path: Path, overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(FedcartError, match=words):
        simulate(tiny_sales(*overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_the_shipped_scenario_completes_and_beats_the_trivial_forecasts_without_noise(tmp_path: Path) -> None:
    from importlib import resources

    from common.run import load_config

    scenario = Path(str(resources.files("simulations") / "scenarios" / "sales.toml"))
    found: dict[str, Any] = {}
    for name, extra in (("plain", ["privacy.enabled=false"]), ("private", [])):
        settings = ["data.consumers=6000", "data.days=200", "training.rounds=4", "performance.workers=2", *extra]
        found[name] = simulate(load_config(scenario, settings), tmp_path / name)
        assert found[name].status == "completed"
    trivial = found["plain"].baselines["mean-of-four"]["wape"]
    assert found["plain"].metrics["oracle"]["wape"] < trivial
    assert max(found["private"].epsilon.values()) <= 3.0


@pytest.mark.full
def test_weeks_and_a_lost_site_work_too(tmp_path: Path) -> None:
    settings = ("sales.granularity=week", "sales.window=8", "sales.test=4", "sales.horizon=2", "data.days=250")
    config = tiny_sales(*settings, "data.sites=5", "data.consumers=400", "drop=0.2")
    summary = simulate(config, tmp_path / "run")
    assert summary.rounds == 2
    assert verify.verify_path(tmp_path / "run").ok
