"""A sales run between real processes: one release per site, training on it alone, and a site that comes back."""

import json
import os
import signal
from datetime import date
from pathlib import Path

import polars as pl
import pytest
import tomli_w

from common.audit.verify import verify_path
from common.data.catalogue import write_catalogue
from common.data.writing import write_frame
from common.run import build_config
from common.run.files import RunFolder
from common.trust.identity import Roster
from simulations.processes import LocalFederation
from simulations.synthetic import SyntheticSpec, generate
from tests.e2e.test_deploy_story import child, fedcart, ledgers_are_intact, newest, wait_until

pytestmark = pytest.mark.e2e
DAYS, SITES, ROUNDS = 90, 4, 8


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sales")
    sites = write_shops(folder / "data")
    with LocalFederation(folder, {"OMP_NUM_THREADS": "1"}) as local:
        local.provision(sites)
        local.start_server()
        for site in sites:
            local.start_site(site["name"])
        local.wait_online([site["name"] for site in sites])
        yield local


def write_shops(folder: Path) -> list[dict]:
    """One event log per shop, and a run's settings; every constant of the series is public and in the settings."""
    market = generate(SyntheticSpec(sites=SITES, consumers=1_600, items=50, days=DAYS, inequality=0.0), seed=2)
    log, sites, catalogue = market.log, [], folder / "catalogue.json"
    folder.mkdir()
    write_catalogue(market.catalogue, catalogue)
    for name in log.sites:
        events = folder / f"{name}.csv.gz"
        write_frame(log.at_site(name).frame.with_columns(pl.col("consumer").cast(pl.String)), events)
        sites.append({"name": name, "population": 500, "events": str(events), "catalogue": str(catalogue)})
    first: date = log.frame["timestamp"].min().date()
    sales = {"start": first.isoformat(), "periods": DAYS, "window": 14, "test": 14}
    run = {
        "name": "sales",
        "task": "sales",
        "data": {"catalogue": catalogue.name},
        "sales": sales,
        "model": {"hidden": 8},
        "training": {"rounds": ROUNDS, "local_steps": 2},
        "privacy": {"epsilon": 3.0},
        # what the killed site had taken and not answered is lost: a round must not wait for it for minutes
        "aggregation": {"deadline_s": 60.0, "exchange_deadline_s": 40.0},
    }
    build_config(run)
    (folder / "run.toml").write_text(tomli_w.dumps(run))
    return sites


def kinds(folder: RunFolder) -> list[tuple[int, str, int]]:
    return [(record.round, record.kind, record.answered) for record in folder.metrics()]


def released(federation: LocalFederation) -> bool:
    made = federation.coordinator.runs.glob("*/metrics.jsonl")
    return any(kinds(RunFolder(path.parent)) for path in made)


def test_a_sales_run_releases_once_survives_a_killed_site_and_its_model_forecasts_at_a_shop(federation, tmp_path):
    kit = federation.coordinator
    program = fedcart("server", "run", kit.path, federation.folder / "data/run.toml", "--json")
    wait_until(lambda: program.poll() is not None or released(federation), "no release")
    assert program.poll() is None, program.communicate()
    assert kinds(newest(federation)) == [(0, "statistics", SITES)]
    os.kill(child(federation.site_process("merchant-2").pid), signal.SIGKILL)  # after its release; it starts again
    out, err = program.communicate(timeout=400)
    assert program.returncode == 0, err
    summary, folder = json.loads(out), newest(federation)
    assert (summary["status"], summary["rounds"], summary["aggregation"]) == ("completed", ROUNDS, "secure")
    records = kinds(folder)
    assert [kind for _, kind, _ in records] == ["statistics", *["train"] * ROUNDS, "evaluate"]
    assert records[-2][2] == SITES  # merchant-2 is back, with the release that it kept
    assert len(set(summary["epsilon"].values())) == 1
    assert 2.9 < max(summary["epsilon"].values()) <= 3.0
    assert not verify_path(folder.path, roster=Roster.load(kit.roster)).findings
    for entries in ledgers_are_intact(federation).values():
        charged = [e for e in entries if e["body"]["kind"] == "reserve" and e["body"]["events"]]
        assert len(charged) == 1, "only the release is charged"
    market = json.loads((folder.path / "market.json").read_text())
    assert market["kind"] == "released"
    shop = federation.folder / "data/merchant-1.csv.gz"
    forecast = fedcart("forecast", folder.path, shop, "--state", tmp_path, "--json")
    said, err = forecast.communicate(timeout=120)
    assert forecast.returncode == 0, err
    assert json.loads(said)["forecast"]
