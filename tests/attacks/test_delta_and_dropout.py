"""Settings under which the promise says nothing: delta as large as one consumer's share, and dropout under privacy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cli.main import main
from cli.report.audit_view import read_audit
from client.guard import SitePolicy
from client.training.dpsgd.engine import TapeEngine
from common.audit.statement import SiteBudget, make_statement
from common.audit.verify import verify_path
from common.deployment import Kits
from common.errors import ConfigError, PolicyRefusedError
from common.privacy.attestation import SignedAttestation
from common.privacy.delta import delta_for, delta_remark
from common.privacy.mechanism import PrivacyEvent
from common.run import RunFacts, RunFolder, build_config
from server.kit_files import policy_toml
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
