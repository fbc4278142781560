"""The tasks' scenarios: they parse, and a private multi-task run serves every local command."""

import json
from importlib import resources

import polars as pl
import pytest

from cli import main as front
from common.data.writing import write_frame
from common.run import load_config
from simulations.run import simulate
from simulations.synthetic import SyntheticSpec, generate


def test_every_shipped_scenario_is_valid_and_private():
    for entry in resources.files("simulations.scenarios").iterdir():
        if entry.name.endswith(".toml"):
            config = load_config(entry)
            assert config.privacy.enabled
            assert config.name == entry.name.removesuffix(".toml")


@pytest.mark.full
def test_a_private_multi_task_run_serves_every_local_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))
    scenario = resources.files("simulations.scenarios") / "multi-task.toml"
    sizes = ["data.consumers=300", "data.items=60", "data.sites=3", "training.rounds=2", "training.local_steps=2"]
    config = load_config(scenario, [*sizes, "performance.workers=1"])
    summary = simulate(config, tmp_path / "run")
    assert summary.status == "completed"
    assert max(summary.epsilon.values()) <= config.privacy.epsilon
    assert {"recall@20", "intent_auc"} <= set(summary.metrics["released"])
    assert {"boosted-trees", "markov", "majority"} <= set(summary.baselines)
    log = generate(SyntheticSpec(sites=3, consumers=300, items=60), config.seed).log
    ids = [f"c{consumer:016x}" for consumer in log.frame["consumer"]]
    events = tmp_path / "shop.csv"
    write_frame(log.frame.with_columns(pl.Series("consumer", ids)).head(2_000), events)
    model, shop = str(tmp_path / "run"), str(events)
    for command in (
        ["predict", model, shop],
        ["predict", model, shop, "--task", "intent"],
        ["detect", model, shop],
        ["explain", ids[0], model, shop],
        ["export", model, str(tmp_path / "small")],
    ):
        capsys.readouterr()
        assert front.main([*command, "--json"]) == 0, command
        json.loads(capsys.readouterr().out)
    other = load_config(None, [*sizes, "task=purchase-intent", "performance.workers=1", "data.sites=3"])
    begun = other.model_copy(update={"start_from": model, "name": "second"})
    assert simulate(begun, tmp_path / "second").status == "completed"
