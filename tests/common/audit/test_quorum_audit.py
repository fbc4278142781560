"""A run whose sites share the noise of its sums, under audit: what every sum held, and whom the figures hold against."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from cli.report.audit_view import _is_one_run, read_audit
from cli.request import _quorum_rows
from common.audit.budgets import SiteBudget
from common.audit.quorum import quorum_problems, quorum_rounds, quorum_words
from common.audit.statement import make_statement
from common.audit.verify import verify_path
from common.contribution import TRAIN
from common.deployment import SiteKit
from common.privacy import TRAIN_SIDE, PrivacyEvent, Quorum
from common.run import RunFolder
from common.run.files import round_file
from common.secagg.evidence import Evidence
from tests.tiny_federation import run_tiny

pytestmark = pytest.mark.full

QUORUM = (
    "privacy.trust=quorum",
    "training.local_steps=1",
    "training.optimizer=sgd",
    "training.learning_rate=1.0",
    "strategy.name=scalar-adam",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quorum") / "run"
    run_tiny(folder, *QUORUM)
    return RunFolder(folder)


@pytest.fixture(scope="module")
def plan(run):
    return run.plan()


@pytest.fixture
def found(run) -> Evidence:
    return Evidence.from_json(round_file(run.evidence, 1, "json").read_text())


def problems(plan, found: Evidence) -> str:
    return "; ".join(quorum_problems(plan, TRAIN, found))


def with_params(found: Evidence, **changes) -> Evidence:
    return dataclasses.replace(found, params=dataclasses.replace(found.params, **changes))


def with_block(found: Evidence, **changes) -> Evidence:
    first, *rest = found.params.blocks
    return with_params(found, blocks=(dataclasses.replace(first, **changes), *rest))


def test_an_honest_run_verifies_and_says_what_every_sum_held(run, plan, found):
    verdict = verify_path(run.path)
    assert verdict.ok, verdict.findings
    assert problems(plan, found) == ""
    assert "in 3 sums at least 3 have signed" in verdict.quorum
    assert str(plan.quorum) in verdict.quorum


def test_a_model_card_that_is_not_what_the_record_says_is_told_wherever_the_run_lies(run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run.path, moved)
    assert "model-card" not in " ".join(f"{note}" for note in verify_path(moved).notes)
    card = moved / "model-card.md"
    card.write_text(card.read_text().replace("1e-05", "1e-09", 1))
    told = [note for note in verify_path(moved).notes if "model-card" in f"{note}"]
    assert len(told) == 1
    assert "edited" in f"{told[0]}"


def test_what_each_round_shows_of_its_noise(plan, found):
    [shown] = quorum_rounds(plan, {1: TRAIN}, {1: (found, "")})
    assert (shown.round, shown.sites, shown.threshold, shown.signers) == (1, 3, 3, 3)
    assert 0.5 < shown.tightest <= 1
    assert quorum_words(plan, {}, {}) == ""


def test_a_lower_threshold_than_the_plans_is_named(plan, found):
    said = problems(plan, with_params(found, threshold=2))
    assert "opens with 2 signers, the noise counts on 3" in said
    assert "the noise of 3 honest sites is counted on, of 2 that sign 0 may collude" in said


def test_a_sum_that_too_few_have_signed_is_named(plan, found):
    fewer = dataclasses.replace(found, confirmations=found.confirmations[:2])
    assert problems(plan, fewer) == "was opened by 2 signers, 3 are needed"


def test_a_larger_cohort_than_the_threshold_holds_for_is_named(plan, found):
    cohort = found.params.cohort
    more = [
        dataclasses.replace(one, site=f"z{one.site}", public_key=bytes(32 - i) + b"\1" * i)
        for i, one in enumerate(cohort)
    ]
    said = problems(plan, with_params(found, cohort=(*cohort, *more), threshold=5))
    assert "opens with 5 signers, the noise counts on 3" in said
    assert "was opened by 3 signers, 5 are needed" in said


def test_a_block_with_less_noise_or_on_a_finer_grid_is_named(plan, found):
    block = found.params.blocks[0]
    for changed in ({"noise_bits": block.noise_bits - 1}, {"unit": block.unit / 2}):
        assert problems(plan, with_block(found, **changed)).startswith("block update: ")


def test_nothing_is_asked_of_a_run_with_local_noise(plan, found):
    class Local:
        quorum = None

    assert list(quorum_problems(Local(), TRAIN, with_params(found, threshold=2))) == []
    assert quorum_rounds(Local(), {1: TRAIN}, {1: (found, "")}) == []


@pytest.mark.parametrize("file", ["metrics.jsonl", "summary.json"])
def test_a_smaller_figure_for_the_own_noise_is_a_finding(run, tmp_path, file):
    forged = tmp_path / "forged"
    shutil.copytree(run.path, forged)
    *before, last = (
        (forged / file).read_text().splitlines(keepends=True)
        if file.endswith("l")
        else [(forged / file).read_text()]
    )
    whole = json.loads(last)
    whole["alone"] = {name: value / 2 for name, value in whole["alone"].items()}
    (forged / file).write_text("".join(before) + json.dumps(whole) + "\n")
    assert not verify_path(forged).ok


# whom the figures hold against

BUDGET = SiteBudget("a", "consumers", 1e-5, None, (PrivacyEvent(1.44 / 2, 0.2, 100, TRAIN_SIDE, 4, 2),), False)
SEVEN = Quorum(7, 6, 2, 4)
"""Two may collude; against three the noise of three is left; from five on two lists can be signed."""


def rows(**told) -> dict[str, float | None]:
    return {row.who: row.epsilon for row in make_statement([BUDGET], secure=True, **told).adversaries}


def test_between_the_promise_and_the_cliff_stands_what_fewer_honest_sites_leave():
    said = rows(quorum=SEVEN, one_run=True)
    assert said["the server"] == BUDGET.epsilon == pytest.approx(8.0308, abs=2e-3)
    assert said["the server together with 3 colluding sites"] == pytest.approx(10.0426, abs=2e-3)
    assert (
        BUDGET.epsilon
        < said["the server together with 3 colluding sites"]
        < said["the server together with 4 colluding sites"]
    )
    assert (
        said["the server together with 5 or more colluding sites"]
        == BUDGET.alone
        == pytest.approx(26.788, abs=6e-3)
    )


@pytest.mark.parametrize("told", [{"quorum": SEVEN}, {}, {"one_run": True}])
def test_nothing_is_said_in_between_where_more_than_one_run_was_charged_or_the_run_is_unknown(told):
    said = rows(**told)
    assert not [who for who in said if "3 colluding" in who or "4 colluding" in who]
    assert said["the server together with more colluding sites"] == BUDGET.alone


def test_a_run_of_its_own_is_told_from_an_account_that_holds_more(run):
    sites = read_audit(run.path).sites
    assert _is_one_run(sites)
    first, *rest = sites
    carried = dataclasses.replace(
        first.budget, events=(*first.budget.events, PrivacyEvent(0.7, 0.2, 1, TRAIN_SIDE, 3, 0))
    )
    other = tuple(dataclasses.replace(row, run="another") for row in first.rows)
    assert not _is_one_run([dataclasses.replace(first, budget=carried), *rest])
    assert not _is_one_run([dataclasses.replace(first, rows=other), *rest])


def test_an_operator_is_told_whose_noise_counts_by_name(plan, tmp_path):
    said = " ".join(text for _, text in _quorum_rows(SiteKit(tmp_path), plan))
    assert all(site in said for site in plan.sites)
    assert plan.quorum.against() in said
    assert f"from {plan.quorum.cliff} colluding sites on" in said
