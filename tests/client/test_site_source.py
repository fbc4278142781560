"""A site whose events are in a database: the same log as from a file, kept in its state, read once for a plan."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import tomli_w

from client.runtime.check import OK, WARNING, check_site
from client.site import Site, load_site
from common.deployment import SiteKit
from common.errors import FedcartError
from common.kit_files import require_known_files
from server.provision import provision

pytest.importorskip("adbc_driver_sqlite", reason="the extra sql is not installed")
TABLE = '[source]\nkind = "sql"\ndriver = "sqlite"\nuri = "{}"\nquery = "SELECT * FROM events"\nwatermark = "number"\nlate = 0\n'


def fill(path: Path, first: int, last: int) -> None:
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE IF NOT EXISTS events (number INTEGER, consumer, timestamp, event, item)")
        rows = [
            (n, f"c{n % 150}", f"2026-01-{1 + n % 28:02d} 10:00:{n % 60:02d}", "view", f"i{n % 9}")
            for n in range(first, last)
        ]
        base.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
    base.close()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    fill(path, 0, 900)
    return path


@pytest.fixture
def kit(tmp_path: Path, base: Path) -> SiteKit:
    sites = [{"name": name, "population": 200} for name in ("north", "south", "east")]
    file = tmp_path / "federation.toml"
    file.write_text(tomli_w.dumps({"name": "t", "coordinator": {"address": "127.0.0.1:9"}, "sites": sites}))
    provision(file, tmp_path / "kits")
    made = SiteKit(tmp_path / "kits/sites/north")
    text = made.settings.read_text().replace('events = "events.csv"', 'events = ""')
    made.settings.write_text(text + TABLE.format(base))
    return made


def site_of(kit: SiteKit) -> Site:
    return load_site(kit.path)


def test_a_site_reads_a_database_and_then_what_is_new(kit: SiteKit, base: Path) -> None:
    site = site_of(kit)
    stamp = site.source_stamp()
    assert len(site.event_log()) == 900
    fill(base, 900, 1_000)
    assert len(site.event_log()) == 1_000
    assert site.source_stamp() == stamp  # a plan's consumers do not change while it runs
    require_known_files(kit)
    kept = list((kit.state / "events").iterdir())
    assert kept and all(path.stat().st_mode & 0o077 == 0 for path in kept)
    assert not any(b"c149" in path.read_bytes() for path in kept)  # under pseudonyms


def test_another_query_is_another_stamp(kit: SiteKit) -> None:
    stamp = site_of(kit).source_stamp()
    kit.settings.write_text(kit.settings.read_text().replace("FROM events", "FROM events WHERE number > 5"))
    assert site_of(kit).source_stamp() != stamp
    assert len(site_of(kit).event_log()) == 894


def test_a_check_reads_the_source(kit: SiteKit) -> None:
    rows = {row.name: row for row in check_site(kit, timeout_s=0.2)}
    assert rows["data"].status in (OK, WARNING) and "900 of 900 lines" in str(rows["data"])


def test_events_and_a_source_contradict_each_other(kit: SiteKit) -> None:
    kit.settings.write_text(kit.settings.read_text().replace('events = ""', 'events = "events.csv"'))
    with pytest.raises(FedcartError, match="give either"):
        site_of(kit)
