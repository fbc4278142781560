"""A deployed run whose sites read a database, SQL over files and a plain file, and sell nothing in common."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import polars as pl
import pytest
import tomli_w

from common.audit.verify import verify_path
from common.data import read_catalogue
from common.privacy import replay_lines, split_lines
from common.trust import Roster
from simulations.processes import LocalFederation
from tests.e2e.test_deploy_story import fedcart, newest

pytest.importorskip("adbc_driver_sqlite", reason="the extra sql is not installed")
pytest.importorskip("duckdb", reason="the extra files is not installed")
pytestmark = pytest.mark.e2e
SECRET = "not-for-anybody-else"
NAMES = ("north", "south", "east")


def shop(name: str, consumers: int = 240, events: int = 8) -> pl.DataFrame:
    """Events on items that only this shop sells."""
    numbers = range(consumers * events)
    return pl.DataFrame({
        "customer": [f"{name}-{i % consumers}" for i in numbers],
        "moment": [f"2026-02-{1 + i // consumers:02d} {i % 24:02d}:{i % 60:02d}:00" for i in numbers],
        "sku": [f"{name}:{i * i % 37 % 12}" for i in numbers],
    })  # fmt: skip


def sources(folder: Path) -> list[dict[str, object]]:
    """The tables of federation.toml: north has a database behind a password, south files and SQL, east a file."""
    folder.mkdir()
    with sqlite3.connect(folder / "north.db") as base:
        base.execute("CREATE TABLE lines (customer, moment, sku)")
        base.executemany("INSERT INTO lines VALUES (?, ?, ?)", shop("north").iter_rows())
    base.close()
    for part, day in enumerate(shop("south").iter_slices(600)):
        day.write_parquet(folder / f"south-{part}.parquet")
    columns = {"customer": "consumer", "moment": "timestamp", "sku": "item"}
    shop("east").rename(columns).with_columns(event=pl.lit("purchase")).write_csv(folder / "east.csv")
    query = "SELECT customer AS consumer, moment AS timestamp, 'purchase' AS event, sku AS item FROM lines"
    sql = {"kind": "sql", "driver": "sqlite", "uri": str(folder / "north.db"), "query": query}
    files = {"kind": "files", "files": {"lines": str(folder / "south-*.parquet")}, "query": query}
    return [
        {"name": "north", "population": 250, "source": {**sql, "password_env": "FEDCART_SOURCE_NORTH"}},
        {"name": "south", "population": 250, "source": files},
        {"name": "east", "population": 250, "events": str(folder / "east.csv")},
    ]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("sources")
    sites = sources(folder / "data")
    stock = [(f"{name}:{number}", name) for name in NAMES for number in range(12)]
    pl.DataFrame(stock, schema=["item", "site"], orient="row").write_csv(folder / "catalogue.csv")
    run = {"name": "sources", "model": {"dim": 8, "hidden": 8}, "training": {"rounds": 1, "local_steps": 2},
           "privacy": {"epsilon": 3.0}}  # fmt: skip
    (folder / "run.toml").write_text(tomli_w.dumps(run))
    environment = {"OMP_NUM_THREADS": "1", "FEDCART_SOURCE_NORTH": SECRET}
    with LocalFederation(folder, environment) as local:
        made = local.provision(sites, more={"catalogue": "catalogue.csv"})
        assert "no item of north, south, east is sold at 3 sites" in made.stock_remark
        local.start_server()
        for name in NAMES:
            local.start_site(name)
        local.wait_online(NAMES)
        yield local


def test_sites_that_share_no_item_and_read_their_sources_run_to_an_intact_end(federation: LocalFederation) -> None:
    program = fedcart("server", "run", federation.coordinator.path, federation.folder / "run.toml", "--json")
    out, err = program.communicate(timeout=300)
    assert program.returncode == 0, err + "".join(federation.site(name).log.read_text()[-500:] for name in NAMES)
    assert json.loads(out)["status"] == "completed"
    assert "items are hashed into 1,000 buckets" in err
    folder = newest(federation)
    assert [record.answered for record in folder.metrics()] == [3, 3]
    assert "item_buckets" in folder.plan().features and not json.loads(folder.plan().features).get(
        "catalogue_digest"
    )
    assert not verify_path(folder.path, roster=Roster.load(federation.coordinator.roster)).findings
    for name in NAMES:
        kit = federation.site(name)
        assert read_catalogue(kit.catalogue)  # it lies there; the run did not read it
        lines, _ = split_lines((kit.state / "ledger.jsonl").read_bytes())
        spent = [state for _, _, state in replay_lines(lines)][-1].spent
        assert {event.sub_scope: event.steps for event in spent} == {"train": 2, "validation": 1, "holdout": 1}
        rows = next(kit.state.glob("consumers-*.rows"))
        assert rows.stat().st_size > 240 * 8 * 40  # events of all consumers, not an empty log


def test_what_was_delivered_answers_over_hashed_items_at_a_site(federation: LocalFederation) -> None:
    events = federation.folder / "data/east.csv"
    done = fedcart("predict", federation.site("east").path, events, "--json")
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    assert out


def test_the_password_is_in_no_file_of_the_federation(federation: LocalFederation) -> None:
    read = [path for path in federation.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(read) > 50
    assert not [path for path in read if SECRET.encode() in path.read_bytes()]


def test_a_wrong_variable_is_named_and_its_value_is_not(federation: LocalFederation) -> None:
    done = fedcart("site", "check", federation.site("north").path)  # this process has no such variable
    out, err = done.communicate(timeout=120)
    assert done.returncode != 0
    assert "FEDCART_SOURCE_NORTH is not set" in " ".join((out + err).split())
