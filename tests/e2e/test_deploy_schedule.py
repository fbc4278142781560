"""A schedule over real processes: two monthly runs, one month missed between them, one account over all of it."""

import json
from datetime import date
from pathlib import Path

import pytest
import tomli_w

import cli.schedule
from cli.main import main
from common.audit.verify import verify_path
from common.model.parameters import load_model
from common.run import model_digest, read_toml
from common.run.files import RunFolder
from common.trust.identity import Roster
from simulations.demo import site_names, write_demo
from simulations.processes import LocalFederation
from tests.e2e.test_deploy_story import ledgers_are_intact

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schedule")
    files = write_demo(folder / "data", sites=3, consumers=600, rounds=1)
    tree = read_toml(files.run)
    tree["privacy"]["epsilon"] = 2.0
    tree["schedule"] = {"every": "month", "periods": 3, "begins": date(2026, 1, 1)}
    files.run.write_text(tomli_w.dumps(tree))
    with LocalFederation(folder, {"OMP_NUM_THREADS": "1"}) as local:
        local.provision(files.sites)
        local.start_server()
        for name in site_names(files):
            local.start_site(name)
        local.wait_online(site_names(files))
        yield local


def schedule(federation: LocalFederation, *words: str) -> int:
    run_file = federation.folder / "data/run.toml"
    try:
        return main(["server", "schedule", str(federation.coordinator.path), str(run_file), "--once", *words])
    except SystemExit as end:
        return int(end.code or 0)


def test_each_month_goes_on_from_the_last_model_and_all_of_it_is_one_account(federation, monkeypatch, capsys):
    kit = federation.coordinator
    monkeypatch.setattr(cli.schedule, "today", lambda: date(2026, 1, 5))
    assert schedule(federation) == 0
    monkeypatch.setattr(cli.schedule, "today", lambda: date(2026, 3, 1))
    capsys.readouterr()
    assert schedule(federation, "--json") == 0
    said = capsys.readouterr()
    plain = json.loads(said.out)
    assert [row["state"] for row in plain["periods"]] == ["completed", "missed", "completed"]
    assert "period 2026-02-01 was missed; it is not made up for" in said.err

    first, third = RunFolder.all_in(kit.runs)
    assert [run.settings().name for run in (first, third)] == ["demo-2026-01-01", "demo-2026-03-01"]
    trained, _, _ = load_model(first.path)
    assert third.metrics()[0].model == model_digest(trained).hex(), "the third month begins with the first's model"
    roster = Roster.load(kit.roster)
    assert not [finding for run in (first, third) for finding in verify_path(run.path, roster=roster).findings]

    for site, entries in ledgers_are_intact(federation).items():
        runs = {e["body"]["run"][:15] for e in entries if e["body"]["kind"] == "reserve"}
        assert runs == {"demo-2026-01-01", "demo-2026-03-01"}, site
    before, after = (max(run.summary().epsilon.values()) for run in (first, third))
    assert 1.9 < before <= 2.0 < after == pytest.approx(plain["periods"][2]["epsilon"])
    capsys.readouterr()
    assert main(["audit", "show", str(first.path), str(third.path), "--json"]) == 0
    account = json.loads(capsys.readouterr().out)
    assert account["epsilon"] == pytest.approx(after)
    assert [len(scope["accounts"]) for scope in account["scopes"]] == [1, 1, 1]
    assert schedule(federation) == 0, "nothing is left to do"
    assert len(RunFolder.all_in(Path(kit.runs))) == 2
