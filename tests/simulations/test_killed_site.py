"""A site whose process is killed while it computes: it says nothing, and still nobody is told less than was charged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fedcart
from cli.main import main
from cli.report.audit_view import read_audit
from client.site import load_site
from common.audit.history import accounts_in
from common.audit.records import find_records
from common.audit.verify import verify_path
from common.run import RunFolder, Summary
from tests.tiny_federation import TINY

ROOT = Path(__file__).resolve().parents[2]
VICTIM = "merchant-1"
SETTINGS = (*TINY, "data.sites=4", "training.rounds=5", "aggregation.min_sites=3")


def run_with_deaths(out: Path, rounds: str) -> tuple[RunFolder, str]:
    path = os.pathsep.join([str(Path(__file__).parent / "mortal"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "simulate", "--out", str(out), *(x for s in SETTINGS for x in ("--set", s))],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "MORTAL_SITE": VICTIM, "MORTAL_ROUNDS": rounds},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert verify_path(out).ok
    return RunFolder.open(out), done.stdout + done.stderr


def spent_in_ledger(run: RunFolder) -> float:
    site = load_site(
        run.path / "sites" / VICTIM, simulated=True, ledger_path=run.path / "ledgers" / f"{VICTIM}.jsonl"
    )
    return site.guard().status().epsilon


@pytest.fixture(scope="module")
def dies_later(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    return run_with_deaths(tmp_path_factory.mktemp("killed") / "run", "3 4 5")


@pytest.mark.full
def test_what_nobody_attested_counts_as_charged_in_every_place(dies_later: tuple[RunFolder, str]) -> None:
    run, said = dies_later
    records, summary = run.metrics(), run.summary()
    assert summary is not None
    truth = spent_in_ledger(run)
    assert records[1].epsilon[VICTIM] < records[2].epsilon[VICTIM] <= records[3].epsilon[VICTIM]
    assert VICTIM not in records[2].attestations
    assert summary.epsilon[VICTIM] >= truth > records[1].epsilon[VICTIM]
    assert fedcart.open_run(run.path).epsilon[VICTIM][-1] >= truth
    assert f"site {VICTIM} did not attest round 3, 4, 5: counted as charged" in said
    assert "not attested in round 3, 4, 5" in (run.path / "report.html").read_text()


@pytest.mark.full
def test_a_site_that_is_killed_every_round_pauses(dies_later: tuple[RunFolder, str]) -> None:
    run, _ = dies_later
    last = run.metrics()[-1]
    assert (last.kind, last.sites[VICTIM].status) == ("evaluate", "paused")


@pytest.mark.full
def test_a_site_of_which_nothing_is_known_is_listed_as_such(tmp_path: Path, capsys) -> None:
    run, said = run_with_deaths(tmp_path / "run", "")
    summary = run.summary()
    assert isinstance(summary, Summary)
    assert VICTIM not in summary.epsilon
    assert "at each of 3 sites that attested" in said
    assert any(VICTIM in note and "never attested" in note for note in summary.notes)
    assert fedcart.open_run(run.path).epsilon[VICTIM].to_list() == [None] * len(run.metrics())
    assert fedcart.compare(run.path, run.path).unknown == ((VICTIM,), (VICTIM,))
    main(["compare", str(run.path), str(run.path)])
    assert "never attested" in capsys.readouterr().out


@pytest.mark.full
def test_an_account_without_the_ledgers_counts_what_was_asked(
    dies_later: tuple[RunFolder, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the records of a deployment: the ledgers stay at the sites."""
    run, _ = dies_later
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("sites", "ledgers"))
    truth = spent_in_ledger(run)
    [found] = [site for site in read_audit(copy).sites if site.budget.site == VICTIM]
    assert found.budget.epsilon >= truth
    assert [row.state for row in found.rows] == ["attested"] * 2 + ["not attested"] * 3
    [account] = [one for one in accounts_in(find_records(copy)) if VICTIM in one.sites]
    assert account.epsilon >= truth
    main(["audit", "show", str(copy)])
    assert "Not attested" in capsys.readouterr().out
