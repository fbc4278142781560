"""A schedule whose federation changes: a site joins after the first month, another leaves after the second."""

from __future__ import annotations

import json
import tomllib
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import cli.schedule
from cli.main import main
from common.audit.verify import verify_path
from common.model.parameters import load_model
from common.privacy import epsilon_of, replay_lines, split_lines
from common.run import model_digest, read_toml
from common.run.files import RunFolder
from common.trust.identity import Roster
from server.provision import provision
from simulations.demo import DemoFiles, write_demo
from simulations.processes import LocalFederation

pytestmark = pytest.mark.e2e
FIRST, JOINS, LEAVES = ("merchant-1", "merchant-2", "merchant-3"), "merchant-4", "merchant-1"
MONTHS = (date(2026, 1, 5), date(2026, 2, 28), date(2026, 3, 1))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    files = write_demo(tmp_path_factory.mktemp("data"), sites=4, consumers=800, rounds=1)
    tree = read_toml(files.run)
    tree["privacy"]["epsilon"] = 1.5
    tree["schedule"] = {"every": "month", "periods": 3, "begins": date(2026, 1, 1)}
    files.run.write_text(tomli_w.dumps(tree))
    return files


def with_sites(local: LocalFederation, files: DemoFiles, names: tuple[str, ...]) -> None:
    """Everything stops, the federation is provisioned with these sites into the same folder, everything starts."""
    local.stop()
    file = local.folder / "federation.toml"
    tree = tomllib.loads(file.read_text())
    tree["sites"] = [dict(site) for site in files.sites if site["name"] in names]
    file.write_text(tomli_w.dumps(tree))
    provision(file, local.kits.folder, approve="auto")
    start(local, names)


def start(local: LocalFederation, names: tuple[str, ...]) -> None:
    local.start_server()
    for name in names:
        local.start_site(name)
    local.wait_online(names, 180)


def spent(local: LocalFederation, site: str) -> float:
    lines = split_lines(local.site(site).ledger.read_bytes())[0]
    *_, (_, _, state) = replay_lines(lines)
    assert state.header is not None
    return epsilon_of(state.spent, state.header.delta, state.adaptive_order)


def schedule(local: LocalFederation, run_file: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["server", "schedule", str(local.coordinator.path), str(run_file), "--once", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_account_goes_on_whoever_joins_or_leaves(
    tmp_path: Path, files: DemoFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalFederation(tmp_path / "federation", {"OMP_NUM_THREADS": "1"}) as local:
        local.provision([site for site in files.sites if site["name"] in FIRST])
        start(local, FIRST)
        told: list[dict[str, Any]] = []
        for month, names in zip(MONTHS, (FIRST, (*FIRST, JOINS), (*FIRST[1:], JOINS)), strict=True):
            if month is not MONTHS[0]:
                with_sites(local, files, names)
            monkeypatch.setattr(cli.schedule, "today", lambda month=month: month)
            told.append(schedule(local, files.run, capsys))
        runs = RunFolder.all_in(local.coordinator.runs)
        assert [run.settings().name[-10:] for run in runs] == ["2026-01-01", "2026-02-01", "2026-03-01"]
        assert [run.plan().sites for run in runs] == [FIRST, (*FIRST, JOINS), (*FIRST[1:], JOINS)]
        for before, after in pairwise(runs):
            trained, _, _ = load_model(before.path)
            assert after.metrics()[0].model == model_digest(trained).hex(), "from the last month's model"
        everybody = (*FIRST, JOINS)
        truth = {site: spent(local, site) for site in everybody}
        shown = [run.summary().epsilon for run in runs]
        assert set(shown[2]) == {*FIRST[1:], JOINS}
        assert all(shown[2][site] >= truth[site] - 1e-6 for site in shown[2])
        assert shown[1][LEAVES] >= truth[LEAVES] - 1e-6, "who left is shown with all that they lost"
        assert truth["merchant-2"] > truth[JOINS] > 0, "who came later has lost less"
        assert [row["state"] for row in told[2]["periods"]] == ["completed"] * 3
        for number, row in enumerate(told[2]["periods"]):
            assert row["epsilon"] >= max(shown[number].values()) - 1e-6
        for earlier in told[:2]:  # what was promised for the end before holds
            assert earlier["periods"][2]["epsilon"] >= max(truth[site] for site in shown[2]) - 1e-3
        roster = Roster.load(local.coordinator.roster)
        assert not verify_path(runs[2].path, roster=roster).findings
        assert all(verify_path(local.site(site).path, every_round=True).ok for site in everybody)
        capsys.readouterr()
        assert main(["audit", "show", *(str(run.path) for run in runs), "--json"]) == 0
        account = json.loads(capsys.readouterr().out)
        by_scope = {scope["scope"]: scope["epsilon"] for scope in account["scopes"]}
        assert all(by_scope[site] >= truth[site] - 1e-6 for site in everybody)
