"""The empirical audit: never above the truth more often than it says, and tight enough to be of use."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cli.main import main
from client import selftest
from client.selftest.one_run_audit import audit_scores, most_noise, refuted


@pytest.mark.parametrize(
    "noise", [pytest.param(0.5, marks=pytest.mark.full), 1.0, pytest.param(2.0, marks=pytest.mark.full)]
)
def test_the_bound_holds_for_the_gaussian_mechanism_itself(noise: float) -> None:
    rng, wrong, found = np.random.default_rng(5), 0, []
    for _ in range(40):
        included = rng.random(600) < 0.5
        audit = audit_scores(included + noise * rng.normal(size=600), included, upper=9.0, delta=1e-5)
        wrong += audit.noise < noise
        found.append(audit.noise)
    assert wrong <= 5  # 2 are expected at most
    assert np.median(found) < 3 * noise


def test_more_right_guesses_refute_more_noise() -> None:
    noises = [most_noise(1_000, 100, correct, 0.05) for correct in (55, 70, 85, 95, 100)]
    assert noises == sorted(noises, reverse=True)
    assert noises[-1] < 1.0
    assert not refuted(1_000, 100, 50, 1.0, 0.05)
    assert most_noise(1_000, 100, 50, 0.05) == float("inf")


def test_guesses_by_chance_prove_nothing() -> None:
    rng = np.random.default_rng(1)
    audit = audit_scores(rng.normal(size=2_000), rng.random(2_000) < 0.5, upper=1.0, delta=1e-5)
    assert audit.lower < 0.5 and audit.passed


@pytest.mark.full
def test_the_whole_self_test_passes_is_quick_and_says_what_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    result = selftest.run_selftest()
    assert result.passed
    assert len(result.checks) > 60
    assert main(["audit", "self-test", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["passed"] and shown["audit"]["lower"] < shown["audit"]["upper"]
