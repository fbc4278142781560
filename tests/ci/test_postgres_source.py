"""A site's events in a real PostgreSQL: a million of them, read only, read on, and the password nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from common.data import joined, load_events
from common.data.sources.opening import open_source
from common.data.store.logs import Tally
from common.data.store.source_log import SourceLog
from common.errors import BadInputError
from common.source_settings import SourceSettings
from tests.ci.postgres_server import PASSWORD, Server, postgres

pytestmark = pytest.mark.ci
SECRET = b"s" * 32
MILLION = 1_000_000
EVENTS = """
INSERT INTO events SELECT n, 'c' || (n::bigint * 7919 % 50000), '2024-01-01 00:00+00'::timestamptz + n * interval '7 s',
  (array['view','cart','purchase'])[1 + n % 3], n::bigint * 31 % 3000, 1 + (n % 400) / 4.0, 1 + n % 2, 's' || n % 5
FROM generate_series({first}, {last}) AS n
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as running:
        running.sql(
            "CREATE TABLE events (id bigint, consumer text, timestamp timestamptz, event text, item int, "
            "price numeric(10, 2), quantity int, site text)"
        )
        running.sql(EVENTS.format(first=1, last=MILLION))
        yield running


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDCART_SOURCE_SHOP", PASSWORD)


def settings(server: Server, **more: Any) -> SourceSettings:
    tree: dict[str, Any] = {"kind": "sql", "uri": server.uri, "password_env": "FEDCART_SOURCE_SHOP", "query":
                            "SELECT * FROM events"} | more  # fmt: skip
    return SourceSettings.model_validate(tree)


def log_of(folder: Path, told: SourceSettings) -> SourceLog:
    folder.mkdir(exist_ok=True)
    return SourceLog(
        open_source(told, folder),
        "fedcart",
        None,
        SECRET,
        folder,
        told.identity(folder),
        told.watermark,
        told.late,
    )


def test_a_million_events_are_those_of_the_same_lines_in_a_file(server: Server, tmp_path: Path) -> None:
    csv = tmp_path / "same.csv"
    csv.write_text(server.sql("SET timezone = 'UTC'; COPY events TO STDOUT (FORMAT csv, HEADER)"))
    expected, report = load_events(csv, "fedcart", secret=SECRET)
    tally = Tally()
    frame = joined(log_of(tmp_path / "kept", settings(server)).pieces(tally)).frame
    assert report.kept == tally.kept == MILLION
    assert frame.equals(expected.frame)


def test_a_site_reads_new_events_only(server: Server, tmp_path: Path) -> None:
    told = settings(server, watermark="timestamp", late=70)
    first = joined(log_of(tmp_path / "kept", told).pieces()).frame
    server.sql(EVENTS.format(first=MILLION + 1, last=MILLION + 500))
    try:
        tally = Tally()
        second = joined(log_of(tmp_path / "kept", told).pieces(tally)).frame
        assert tally.counted.lines == 500 + 11
        assert len(second) == len(first) + 500
        assert second.filter(pl.col("timestamp") <= first["timestamp"].max()).equals(first)
    finally:
        server.sql(f"DELETE FROM events WHERE id > {MILLION}")


@pytest.mark.parametrize(
    "query",
    ["DELETE FROM events", "WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone",
     "SELECT * FROM events); DELETE FROM events; --", "SELECT 1; DROP TABLE events", "SELECT pg_read_file('/etc/passwd')",
     "SELECT set_config('transaction_read_only', 'off', false), nextval('none')"],
)  # fmt: skip
def test_a_query_can_read_and_nothing_else(server: Server, tmp_path: Path, query: str) -> None:
    with pytest.raises(BadInputError, match="refuses the query") as caught:
        joined(log_of(tmp_path / "kept", settings(server, query=query)).pieces())
    assert PASSWORD not in f"{caught.value} {caught.value.hint}"
    assert server.sql("SELECT count(*) FROM events").strip() == str(MILLION)


def test_even_a_user_who_may_write_does_not(server: Server, tmp_path: Path) -> None:
    server.sql("GRANT ALL ON events TO reader; CREATE FUNCTION wipe() RETURNS int LANGUAGE sql SECURITY DEFINER AS "
               "'DELETE FROM events RETURNING 1'")  # fmt: skip
    with pytest.raises(BadInputError, match="read-only"):
        joined(log_of(tmp_path / "kept", settings(server, query="SELECT wipe() AS consumer")).pieces())
    assert server.sql("SELECT count(*) FROM events").strip() == str(MILLION)


def test_a_wrong_password_is_refused_and_not_shown(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDCART_SOURCE_SHOP", "wrong-word")
    with pytest.raises(BadInputError, match="cannot be opened") as caught:
        joined(log_of(tmp_path / "kept", settings(server)).pieces())
    assert "wrong-word" not in f"{caught.value} {caught.value.hint}"


def test_a_check_reads_as_many_lines_as_it_asks_for(server: Server, tmp_path: Path) -> None:
    frames = list(open_source(settings(server), tmp_path).batches(limit=1_000))
    assert sum(frame.height for frame in frames) == 1_000
    assert PASSWORD not in (server.folder / "log").read_text()
