"""What the other kind of trust would bring: the references, and the advice, know which one a run has."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import simulations.reference_runs as references
from common.run import RunPlan, build_config
from server.run_setup import settled
from simulations.advice import changes


def plan_of(trust: str, sites: int, *more: str) -> RunPlan:
    config = settled(build_config({"privacy": {"trust": trust}}, more), sites)
    populations = tuple((f"site-{i}", 1_000) for i in range(sites))
    return RunPlan("run", config.public_json(), populations, "{}", 10, 2.0, 2.0)


class _Pool:
    """Takes jobs, and answers each with the noise that it was given."""

    def __init__(self) -> None:
        self.noise: list[float] = []

    def submit(self, _job: Any, _group: Any, _plan: str, sigma: float) -> int:
        self.noise.append(sigma)
        return len(self.noise) - 1

    def collect(self, _seconds: float) -> list[Any]:
        return [SimpleNamespace(job=i, unwrap=lambda: [1.0]) for i in range(len(self.noise))]


@pytest.mark.parametrize(
    ("trust", "name", "factor"), [("quorum", "local-noise", 2.0), ("local", "quorum-noise", 0.5)]
)
def test_the_reference_of_the_other_trust_has_its_noise(
    monkeypatch: pytest.MonkeyPatch, trust: str, name: str, factor: float
) -> None:
    pool, plan = _Pool(), plan_of(trust, 8)
    monkeypatch.setattr(RunPlan, "summarise", lambda _self, total: {"n": float(total[0])})
    kits: Any = {site: site for site in plan.sites}
    found = references.reference_runs(pool, kits, plan, names=(references.CENTRAL_DP,))  # type: ignore[arg-type]
    assert set(found) == {"central-dp", name}
    assert pool.noise == [2.0 * math.sqrt(8), pytest.approx(2.0 * math.sqrt(8) * factor)]


@pytest.mark.parametrize(("sites", "honest"), [(2, 0), (3, 3), (4, 2), (8, 4)])
def test_sites_that_cannot_share_are_not_told_to(sites: int, honest: int) -> None:
    plan = plan_of("local", sites)
    assert plan.could_share == honest
    assert any("quorum" in words for words in changes(plan)) is bool(honest)
    assert replace(plan, settings=build_config({}, ["privacy.enabled=false"]).public_json()).could_share == 0
