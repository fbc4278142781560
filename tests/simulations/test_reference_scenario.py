"""The reference job: the workload that issue and documents name, and what it costs in privacy and bytes."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError
from common.model.network import ModelShape, build_model
from common.privacy.accountant import RdpAccountant, ScopeAccountant
from common.run import RunConfig, load_config
from server.run_setup import make_plan, noise_of
from simulations.plain_rows import RowsSpec, generate_rows
from simulations.prepare import deal_data, declared
from tests.tiny_federation import Recorder

SMALL = ("data.consumers=160", "data.items=60", "model.dim=8", "model.hidden=8", "data.min_population=1")


def reference(*overrides: str) -> RunConfig:
    return load_config(Path(str(resources.files("simulations") / "scenarios" / "reference.toml")), overrides)


def test_the_sites_hold_the_rows_that_the_job_names() -> None:
    config = reference()
    world = deal_data(config)
    assert [len(world.sequences[site]) for site in world.partition.names] == [1_000] * 8
    steps = np.concatenate([world.sequences[site].lengths for site in world.partition.names]) - 1
    assert (steps.min(), steps.max()) == (12, 50)
    assert abs(steps.mean() - 31) < 0.5
    items = np.concatenate([world.sequences[site].column("item") for site in world.partition.names])
    assert items.min() >= 1
    assert all(mask.sum() == 5_000 for mask in world.masks.values())
    assert len(declared(world)) == 8


def test_parameters_bytes_and_epsilon_are_those_of_the_job() -> None:
    config = reference()
    model = build_model(config.model, ModelShape({"item": 5_001, "event": 9, "hour": 25}), config.seed)
    count = sum(p.numel() for p in model.parameters())
    assert count == 678_409
    assert round(8 * 4 * count / 1e6, 1) == 21.7
    world = deal_data(reference(*SMALL))
    plan = make_plan(config, declared(world), world.spec, count)
    accountant = ScopeAccountant(plan.total_events())
    assert RdpAccountant(plan.total_events()).epsilon(1e-5) == pytest.approx(3.8515, abs=1e-3)
    assert accountant.reading(1e-5).pld < accountant.reading(1e-5).rdp <= config.privacy.epsilon


def test_rows_follow_from_the_seed_and_impossible_ones_are_refused() -> None:
    spec = RowsSpec(sites=3, consumers=50, items=40, lengths=(2, 9))
    one, two, other = (generate_rows(spec, seed)[0].frame for seed in (1, 1, 2))
    assert one.equals(two)
    assert not one.equals(other)
    for wrong in ((0, 4), (5, 4)):
        with pytest.raises(ConfigError, match="are not possible"):
            RowsSpec(3, 50, 40, wrong)
    with pytest.raises(ConfigError, match="2 consumers over 3 sites"):
        RowsSpec(3, 2, 40, (2, 9))


def test_an_evaluation_that_does_not_happen_is_not_calibrated() -> None:
    assert noise_of(reference()) == (1.0, 0.0)
    assert noise_of(reference("privacy.holdout=0.2"))[1] > 0
    assert noise_of(reference("privacy.enabled=false")) == (0.0, 0.0)


@pytest.mark.full
def test_the_reference_job_runs_to_its_end_within_its_epsilon(tmp_path: Path) -> None:
    from simulations.run import simulate

    watcher = Recorder()
    summary = simulate(reference(), tmp_path / "run", watcher)
    assert (summary.status, summary.rounds, summary.notes) == ("completed", 5, ())
    assert all(3.29 < spent <= 3.852 for spent in summary.epsilon.values())
    assert len(summary.epsilon) == 8
    for record in watcher.records:
        assert record.bytes_up == pytest.approx(21.7e6, rel=0.005)
        assert record.bytes_down == pytest.approx(21.7e6, rel=0.005)
        assert {s.status for s in record.sites.values()} == {"ok"}
    assert watcher.records[-1].oracle["clip_fraction"] >= 0
