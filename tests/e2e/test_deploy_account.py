"""The account at real sites: killed, moved, shared, restored, fed with bad rows. No figure is ever below a ledger's."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from client.site import load_site
from common.audit.verify import verify_path
from common.deployment import SiteKit
from common.errors import BadInputError
from common.model.parameters import load_model
from common.privacy import epsilon_of, replay_lines, split_lines
from common.run import RunFolder, model_digest
from common.trust import Roster
from simulations.processes import LocalFederation
from tests.e2e.faults import VICTIM, answered, faulty_world, fedcart, plant, run_to_the_end
from tests.e2e.test_deploy_story import edit

pytest.importorskip("adbc_driver_sqlite", reason="the extra sql is not installed")
pytestmark = pytest.mark.e2e
SHARING = ("merchant-1", "merchant-3")
READS_SQL = "merchant-4"
BAD_ROWS: list[tuple[Any, ...]] = [
    ("soon", "z", "2026-01-01 10:00:00", "view", "i1"),
    (None, "z", "2026-01-01 10:00:00", "view", "i1"),
    (10**9, "z", b"\xff", "view", "i1"),
    (10**9, None, "2026-01-01 10:00:00", "view", "i1"),
    (10**9, "z", "2026-01-01 10:00:00", b"\x00", "i1"),
]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    with faulty_world(tmp_path_factory.mktemp("account")) as (made, _):
        yield made


@pytest.fixture(scope="module")
def first(local: LocalFederation) -> RunFolder:
    """A run in whose first round the kernel ends the process that has computed the victim's answer."""
    struck = plant(local.site(VICTIM), 1, "advertise", "after", "kill-self")
    code, folder, err = run_to_the_end(local, "first", "training.rounds=3")
    assert not struck.exists(), "the fault did not strike"
    assert code == 0, err
    return folder


def ledger_of(kit: SiteKit) -> Path:
    facts = kit.read().site
    return Path(facts.ledger) / "ledger.jsonl" if facts.ledger else kit.ledger


def spent(kit: SiteKit) -> float:
    """Epsilon by the lines themselves."""
    *_, (_, _, state) = replay_lines(split_lines(ledger_of(kit).read_bytes())[0])
    assert state.header is not None
    return epsilon_of(state.spent, state.header.delta, state.adaptive_order)


def told(*command: object) -> dict[str, Any]:
    program = fedcart(*command, "--json")
    out, err = program.communicate(timeout=120)
    assert program.returncode == 0, err
    return json.loads(out)


def restart(local: LocalFederation, *names: str) -> None:
    for name in names:
        local.start_site(name)
    local.wait_online(names, 180)


def test_a_site_whose_process_was_killed_says_so_comes_back_and_counts_it(local, first):
    kit = local.site(VICTIM)
    assert answered(first)[0] == 3 and answered(first)[2] == 4
    assert "SIGKILL" in kit.log.read_text() and "memory" in kit.log.read_text()
    status = told("site", "status", kit.path)
    assert status["killed"]["signal"] == "SIGKILL"
    assert status["budget"]["epsilon"] >= spent(kit) - 1e-6
    assert (status["budget"]["void"], status["budget"]["open"]) == (1, 0), (
        "it was complete, and provably had not left"
    )
    assert first.metrics()[-1].epsilon[VICTIM] >= spent(kit) - 1e-6
    assert verify_path(first.path, roster=Roster.load(local.coordinator.roster)).ok


def test_a_training_answer_waits_for_the_next_full_second_at_every_site(local, first):
    del first
    for name in ("merchant-1", VICTIM, "merchant-3", READS_SQL):
        lines = (local.site(name).state / "durations.txt").read_text().splitlines()
        waited = [float(line.split()[1]) for line in lines if line.startswith("advertise ")]
        assert len(waited) >= 2
        assert all(seconds - math.floor(seconds) < 0.3 and seconds >= 1 for seconds in waited), (name, waited)
        quick = [float(line.split()[1]) for line in lines if line.startswith("confirm ")]
        assert min(quick) < 1, "only the answer that trains waits"


def fill(kit: SiteKit) -> None:
    """The site's log in a database that holds a few rows that nobody can use, the worst of each kind."""
    events = kit.resolve(kit.read().site.events)
    frame = pl.read_csv(gzip.decompress(events.read_bytes()), infer_schema=False)
    base = sqlite3.connect(kit.path.parent / "shop.db")
    names = ("consumer", "timestamp", "event", "item")
    base.execute(f"CREATE TABLE events (number INTEGER, {', '.join(names)})")
    rows = [(number, *row) for number, row in enumerate(frame.select(names).iter_rows())]
    base.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", [*BAD_ROWS, *rows])
    base.execute("INSERT INTO events VALUES (7, 'z', '2026-01-01 10:00:00', 'view', CAST(X'FFFE41' AS TEXT))")
    base.commit()
    base.close()
    edit(kit.settings, r'(?m)^events = ".*"$', 'events = ""')
    text = kit.settings.read_text()
    uri = kit.path.parent / "shop.db"
    kit.settings.write_text(
        f'{text}\n[source]\nkind = "sql"\ndriver = "sqlite"\nuri = "{uri}"\n'
        'query = "SELECT * FROM events"\nwatermark = "number"\nlate = 0\n'
    )


@pytest.fixture(scope="module")
def second(local: LocalFederation, first: RunFolder) -> RunFolder:
    """Two sites keep one account from now on, one reads a database with bad rows; the run goes on from the first one's model."""
    for name in (*SHARING, READS_SQL):
        local.stop_site(name)
    for name in SHARING:
        moved = told("site", "move-ledger", local.site(name).path, local.folder / "account", "--scope", "shoppers")
        assert moved["epsilon"] >= first.metrics()[-1].epsilon[name] - 1e-3
    fill(local.site(READS_SQL))
    restart(local, *SHARING, READS_SQL)
    settings = ("training.rounds=2", f"start_from={first.path}")
    planned = told("server", "plan", local.coordinator.path, local.folder / "data/run.toml", *_set(settings))
    code, folder, err = run_to_the_end(local, "second", *settings)
    assert code == 0, err
    (local.folder / "planned.json").write_text(json.dumps(planned))
    return folder


def _set(settings: tuple[str, ...]) -> list[str]:
    return [word for one in ("privacy.holdout=0", *settings) for word in ("--set", one)]


def test_two_sites_of_one_run_train_on_one_account_after_a_move(local, first, second):
    assert answered(second) == [4, 4]
    account = local.folder / "account" / "ledger.jsonl"
    truth = spent(local.site(SHARING[0]))
    assert truth == spent(local.site(SHARING[1]))
    shown = second.metrics()[-1].epsilon
    planned = {one["site"]: one for one in json.loads((local.folder / "planned.json").read_text())["sites"]}
    for name in SHARING:
        assert shown[name] >= truth - 1e-6, "the record counts what the other site has spent as well"
        assert told("site", "status", local.site(name).path)["budget"]["epsilon"] >= truth - 1e-6
        assert planned[name]["spent"] >= first.metrics()[-1].epsilon[name] - 1e-6
    roster = Roster.load(local.coordinator.roster)
    for folder in (first, second):
        report = verify_path(folder.path, roster=roster, ledgers=[account], every_round=True)
        assert report.ok, report.findings
    for one in (*SHARING, VICTIM, READS_SQL):
        assert verify_path(local.site(one).path, every_round=True).ok


def test_a_run_from_an_earlier_model_carries_what_that_cost_everywhere(local, first, second, capsys):
    trained, _, _ = load_model(first.path)
    assert second.metrics()[0].model == model_digest(trained).hex()
    for name in (VICTIM, READS_SQL):
        assert second.metrics()[0].epsilon[name] > first.metrics()[-1].epsilon[name]
        assert second.metrics()[-1].epsilon[name] >= spent(local.site(name)) - 1e-6
    audit = told("audit", "show", first.path, second.path)
    assert audit["epsilon"] >= max(spent(local.site(name)) for name in (VICTIM, *SHARING)) - 1e-6
    status = told("server", "plan", local.coordinator.path, local.folder / "data/run.toml")
    assert all(one["spent"] >= spent(local.site(one["site"])) - 1e-6 for one in status["sites"])


def test_bad_rows_of_a_database_drop_themselves_and_the_sites_log_counts_them(local, second):
    log = local.site(READS_SQL).log.read_text()
    assert second.metrics()[0].sites[READS_SQL].status == "ok"
    [line] = [line for line in log.splitlines() if "lines usable; left out:" in line][-1:]
    assert "2 malformed" in line, line
    assert not any(quoted in line for quoted in ("soon", "FFFE"))


def test_a_state_that_came_back_from_a_backup_is_refused_until_it_is_recovered(local, second):
    kit, backup = local.site(VICTIM), local.folder / "backup"
    local.stop_site(VICTIM)
    shutil.copytree(kit.state, backup)
    restart(local, VICTIM)
    code, third, err = run_to_the_end(local, "third", "training.rounds=1")
    assert (code, answered(third)) == (0, [4]), err
    truth = spent(kit)
    local.stop_site(VICTIM)
    shutil.rmtree(kit.state)
    shutil.copytree(backup, kit.state)
    restart(local, VICTIM)
    code, fourth, err = run_to_the_end(local, "fourth", "training.rounds=1")
    assert (code, answered(fourth)) == (0, [3]), err
    assert "does not contain entry" in kit.log.read_text()
    assert fourth.metrics()[-1].epsilon[VICTIM] >= truth - 1e-6
    local.stop_site(VICTIM)
    told("server", "status", local.coordinator.path, "--attestations", local.folder / "said")
    recovered = told(
        "site", "recover", kit.path, "--attestation", local.folder / "said" / f"{VICTIM}.attestation.json"
    )
    assert recovered["epsilon"] >= truth - 1e-6
    restart(local, VICTIM)
    code, fifth, err = run_to_the_end(local, "fifth", "training.rounds=1")
    assert (code, answered(fifth)) == (0, [4]), err
    assert fifth.metrics()[-1].epsilon[VICTIM] >= spent(kit) - 1e-6 >= truth - 1e-6


def test_a_site_that_is_pointed_away_from_its_account_does_not_answer(local, second):
    del second
    kit = local.site(SHARING[1])
    local.stop_site(SHARING[1])
    edit(kit.settings, r"ledger = .*", f'ledger = "{local.folder / "elsewhere"}"')
    program = fedcart("site", "status", kit.path)
    _, err = program.communicate(timeout=60)
    assert program.returncode != 0 and "account" in err
    site = load_site(kit.path)
    with pytest.raises(BadInputError):
        site.guard()
