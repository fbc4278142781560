"""Settings under which the promise says nothing: delta as large as one consumer's share, and dropout under privacy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from cli.main import main
from cli.report.audit_view import read_audit
from client.guard import SitePolicy
from client.runtime.approval import require_approval
from client.runtime.check import check_site
from client.site import load_site
from client.training.dpsgd.engine import TapeEngine
from common.audit.budgets import SiteBudget
from common.audit.statement import make_statement
from common.audit.verify import verify_path
from common.data.features import feature_spec
from common.deployment import CoordinatorKit, Kits, SiteKit
from common.errors import ConfigError, PolicyRefusedError, RefusedError
from common.privacy.attestation import SignedAttestation
from common.privacy.delta import delta_for, delta_remark
from common.privacy.mechanism import PrivacyEvent
from common.run import RunFacts, RunFolder, RunPlan, build_config
from server.kit_files import policy_toml
from server.planning import deployed_settings, plan_of_run
from server.provision import provision
from server.run_setup import remark_on
from simulations.run import simulate
from tests.dpsgd_samples import batcher_of, model_of
from tests.guard_samples import proposal
from tests.tiny_federation import Recorder, tiny


@pytest.mark.parametrize(
    ("population", "delta"), [(1, 1e-5), (10_000, 1e-5), (10_001, 1e-6), (2_000_000, 1e-8), (10**9, 1e-10)]
)
def test_a_new_scope_gets_a_delta_that_its_consumers_allow(population: int, delta: float, tmp_path: Path) -> None:
    assert delta_for(population) == pytest.approx(delta, rel=1e-9)
    assert delta_remark(delta_for(population), {"shop": population}) == ""
    (tmp_path / "policy.toml").write_text(policy_toml("shop", population))
    assert SitePolicy.load(tmp_path / "policy.toml").delta == pytest.approx(delta, rel=1e-9)


def test_above_a_tenth_of_a_consumer_it_is_said_and_above_one_it_is_refused() -> None:
    assert "would be safe" in delta_remark(1e-5, {"small": 100, "large": 20_000})
    with pytest.raises(ConfigError, match="above 1 / 2,000,000, the declared consumers of large"):
        delta_remark(1e-5, {"small": 100, "large": 2_000_000})
    with pytest.raises(ConfigError):
        delta_remark(0.05, {"tiny": 128})


@pytest.mark.parametrize(("delta", "population"), [(0.05, 128), (1e-5, 2_000_000)])
def test_a_site_with_such_a_policy_answers_nothing(delta: float, population: int) -> None:
    policy = SitePolicy(delta=delta)
    with pytest.raises(PolicyRefusedError, match="declared consumers") as caught:
        policy.check_proposal(proposal(1, delta=delta, population=population))
    assert caught.value.rule == "delta"


def test_a_simulation_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    settings = [
        "data.sites=3",
        "data.consumers=120",
        "data.items=30",
        "data.min_population=1",
        "training.rounds=1",
        "privacy.delta=0.05",
    ]
    command = ["simulate", "--out", str(out), *(part for s in settings for part in ("--set", s))]
    assert main(command) == 2
    assert "above 1 /" in capsys.readouterr().err
    assert not out.exists()


def provisioned(folder: Path, population: int) -> Path:
    """Three sites, one with so many declared consumers; again and again into the same folder."""
    sites = [{"name": name, "population": 200} for name in ("south", "east")]
    tree = {
        "name": "f",
        "coordinator": {"address": "127.0.0.1:9"},
        "sites": [{"name": "north", "population": population}, *sites],
    }
    file = folder / "federation.toml"
    file.write_text(tomli_w.dumps(tree))
    return file


def test_a_policy_that_its_consumers_have_outgrown_is_told_or_refused_by_provisioning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said `delta 1e-08 in its policy` of a policy that still had 1e-5, for 20 / n."""
    command = ["provision", str(tmp_path / "federation.toml"), "--out", str(tmp_path / "kits")]
    provisioned(tmp_path, 5_000)
    assert main(command) == 0
    provisioned(tmp_path, 50_000)
    assert main(command) == 0
    assert "1e-06 would be safe" in " ".join(capsys.readouterr().err.split())
    provisioned(tmp_path, 2_000_000)
    before = (tmp_path / "kits/coordinator/coordinator.toml").read_bytes()
    assert main(command) == 2
    assert "above 1 / 2,000,000" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "kits/coordinator/coordinator.toml").read_bytes() == before


@pytest.mark.parametrize(("delta", "status"), [(1e-5, "ok"), (1e-3, "warning"), (6e-3, "failed")])
def test_a_check_warns_and_fails(tmp_path: Path, delta: float, status: str) -> None:
    provision(provisioned(tmp_path, 200), tmp_path / "kits")
    kit = SiteKit(tmp_path / "kits/sites/north")
    SitePolicy.load(kit.policy).model_copy(update={"delta": delta}).save(kit.policy)
    assert next(row.status for row in check_site(kit, timeout_s=0.1) if row.name == "delta") == status


@pytest.mark.parametrize(("delta", "yes"), [(1e-5, True), (1e-3, True), (6e-3, False)])
def test_nobody_says_yes_to_a_promise_that_says_nothing(
    tmp_path: Path, delta: float, yes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was shown with a warning, and a yes was taken."""
    provision(provisioned(tmp_path, 200), tmp_path / "kits")
    kit = load_site(tmp_path / "kits/sites/north").kit
    config = build_config({"privacy": {"delta": delta}, "features": {"item_buckets": 40}})
    populations = (("north", 200), ("south", 200), ("east", 200))
    features = feature_spec(None, item_buckets=40).canonical()
    plan = RunPlan("run", config.public_json(), populations, features, 10, 2.0, 4.0)
    with pytest.raises(RefusedError):
        require_approval(kit, "ask", plan.run, plan.digest().hex(), plan.to_json())
    assert (main(["site", "approve", str(kit.path), "run"]) == 0) is yes
    assert main(["site", "approve", str(kit.path), "run", "--reject"]) == 0
    assert ("WARNING" in capsys.readouterr().out) is (delta > 1e-5)


@pytest.mark.parametrize(("delta", "words"), [(1e-3, "would be safe"), (6e-3, "above 1 /")])
def test_a_run_of_the_coordinator_is_remarked_on_or_refused(tmp_path: Path, delta: float, words: str) -> None:
    provision(provisioned(tmp_path, 200), tmp_path / "kits")
    (tmp_path / "run.toml").write_text(
        tomli_w.dumps({"privacy": {"delta": delta}, "features": {"item_buckets": 40}})
    )
    kit = CoordinatorKit(tmp_path / "kits/coordinator")
    config = deployed_settings(kit, tmp_path / "run.toml")
    if words == "would be safe":
        assert words in remark_on(plan_of_run(kit, config, base=tmp_path))
    else:
        with pytest.raises(ConfigError, match=words):
            plan_of_run(kit, config, base=tmp_path)


def test_the_statement_says_so() -> None:
    budget = SiteBudget("shop", "consumers", 1e-5, 8.0, (PrivacyEvent(4.0, 0.1, 10),), False, population=20_000)
    assert any("would be safe" in sentence for sentence in make_statement([budget], secure=True).warnings)
    absurd = dataclasses.replace(budget, population=2_000_000)
    assert any("says nothing" in sentence for sentence in make_statement([absurd], secure=True).warnings)


def test_dropout_is_refused_with_privacy_and_allowed_without() -> None:
    settings = {"model": {"dropout": 0.2, "layers": 2}}
    with pytest.raises(ConfigError, match="no proof under privacy"):
        build_config(settings)
    assert build_config(settings | {"privacy": {"enabled": False}}).model.dropout == 0.2


def test_why_one_consumer_more_would_move_the_others_too() -> None:
    """At equal seed, removing one consumer moves the clipped sum by many times C: the masks move with the batch."""
    import torch

    def total(rows: list[int]) -> np.ndarray:
        model = model_of(torch.float32, 1, layers=2, dropout=0.5)
        engine = TapeEngine(model, batcher_of([9] * 400, 2), 0.05)
        torch.manual_seed(7)
        summed: np.ndarray = engine.clipped_sum(np.array(rows))[0].double().numpy().copy()
        return summed

    assert np.linalg.norm(total(list(range(400))) - total(list(range(1, 400)))) > 2 * 0.05


class LargerDelta(Recorder):
    """Gives one site a scope with a larger delta than the run states, as where another site has a thousand times its consumers."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out
        self.site = ""

    def prepared(self, facts: RunFacts) -> None:
        super().prepared(facts)
        self.site = facts.sites[0].name
        kit = Kits(self._out).site(self.site)
        SitePolicy.load(kit.policy).model_copy(update={"delta": 1e-4}).save(kit.policy)


def test_a_site_with_a_larger_delta_takes_part_and_is_shown_at_the_runs(tmp_path: Path) -> None:
    """Its answers were charged and then turned away, in every round; and a figure has one delta."""
    out = tmp_path / "run"
    watcher = LargerDelta(out)
    assert simulate(tiny("privacy.delta=1e-6"), out, watcher).status == "completed"
    assert all(record.sites[watcher.site].status == "ok" for record in watcher.records)
    attested = SignedAttestation.from_json(watcher.records[-1].attestations[watcher.site]).attestation
    assert attested.delta == 1e-4
    shown = watcher.records[-1].epsilon
    assert shown[watcher.site] == pytest.approx(max(shown.values()), abs=1e-5)
    assert shown[watcher.site] > attested.epsilon_after + 0.5
    assert verify_path(out).ok
    statement = read_audit(out).statement
    assert statement.adversaries[0].epsilon == pytest.approx(max(shown.values()), abs=1e-5)

    plan, (site, population) = RunFolder.open(out).plan(), RunFolder.open(out).plan().populations[0]
    within = {1e-6: True, 1 / population: True, 1.01 / population: False, 0.9e-6: False, float("nan"): False}
    assert {delta: plan.accepts_delta(site, delta) for delta in within} == within
