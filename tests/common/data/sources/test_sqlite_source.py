"""Events of a database are the events of the same lines in a file; it is never written to, and read on from a watermark."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from common.data import joined, load_events
from common.data.formats import load_mapping
from common.data.sources.opening import open_source
from common.data.store.logs import Tally
from common.data.store.source_log import SourceLog, sample
from common.errors import BadInputError
from common.source_settings import SourceSettings

pytest.importorskip("adbc_driver_sqlite", reason="the extra sql is not installed")
SECRET = b"s" * 32
COLUMNS = ("number", "consumer", "timestamp", "event", "item", "price", "site")


def lines(count: int, first: int = 0) -> list[tuple[Any, ...]]:
    return [
        (i, f"c{i % 37}", f"2024-03-{1 + i % 28:02d} {i % 24:02d}:00:{i % 60:02d}", ["view", "purchase"][i % 2], f"i{i % 11}",
         1.5 + i % 3, f"s{i % 3}")
        for i in range(first, first + count)
    ]  # fmt: skip


def shop(folder: Path, rows: list[tuple[Any, ...]]) -> Path:
    path = folder / "shop.db"
    with sqlite3.connect(path) as base:
        base.execute(f"CREATE TABLE IF NOT EXISTS events ({', '.join(COLUMNS)})")
        base.executemany(f"INSERT INTO events VALUES ({', '.join('?' * len(COLUMNS))})", rows)
    base.close()
    return path


def settings(**more: Any) -> SourceSettings:
    tree = {"kind": "sql", "driver": "sqlite", "uri": "shop.db", "query": "SELECT * FROM events"} | more
    return SourceSettings.model_validate(tree)


def log_of(folder: Path, told: SourceSettings) -> SourceLog:
    kept = folder / "kept"
    kept.mkdir(exist_ok=True)
    source = open_source(told, folder)
    return SourceLog(source, "fedcart", None, SECRET, kept, told.identity(folder), told.watermark, told.late)


def frame_of(log: SourceLog, tally: Tally | None = None) -> pl.DataFrame:
    return joined(log.pieces(tally)).frame


def expected(folder: Path, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    path = folder / "same.csv"
    pl.DataFrame(rows, schema=list(COLUMNS), orient="row").write_csv(path)
    return load_events(path, "fedcart", secret=SECRET)[0].frame


def test_a_database_gives_the_events_of_the_same_lines_in_a_file(tmp_path: Path) -> None:
    shop(tmp_path, lines(900))
    tally = Tally()
    assert frame_of(log_of(tmp_path, settings()), tally).equals(expected(tmp_path, lines(900)))
    assert tally.kept == 900
    assert not list((tmp_path / "kept").iterdir())  # what was spilled is gone


def test_only_what_is_new_is_read_and_the_log_is_the_whole_one(tmp_path: Path) -> None:
    told = settings(watermark="number", late=5)
    shop(tmp_path, lines(400))
    assert frame_of(log_of(tmp_path, told)).equals(expected(tmp_path, lines(400)))
    shop(tmp_path, lines(300, 400))
    tally = Tally()
    assert frame_of(log_of(tmp_path, told), tally).equals(expected(tmp_path, lines(700)))
    assert tally.counted.lines == 300 + 5 + 1  # the new ones, and those not further behind than `late`
    assert frame_of(log_of(tmp_path, told)).equals(expected(tmp_path, lines(700)))


def test_a_line_that_changes_within_late_replaces_what_was_read(tmp_path: Path) -> None:
    told = settings(watermark="number", late=5)
    path = shop(tmp_path, lines(100))
    frame_of(log_of(tmp_path, told))
    with sqlite3.connect(path) as base:
        base.execute("UPDATE events SET item = 'changed' WHERE number = 97")
    base.close()
    frame = frame_of(log_of(tmp_path, told))
    assert len(frame) == 100 and (frame["item"] == "changed").sum() == 1


@pytest.mark.parametrize("change", [{"query": "SELECT * FROM events WHERE number < 50"}, {"watermark": ""}])
def test_another_question_is_read_from_the_beginning(tmp_path: Path, change: dict[str, str]) -> None:
    shop(tmp_path, lines(100))
    frame_of(log_of(tmp_path, settings(watermark="number")))
    wanted = lines(50) if "query" in change else lines(100)
    assert frame_of(log_of(tmp_path, settings(**({"watermark": "number"} | change)))).equals(
        expected(tmp_path, wanted)
    )


@pytest.mark.parametrize(
    "query",
    ["DELETE FROM events", "SELECT 1; DROP TABLE events", "SELECT * FROM events); DELETE FROM events; --",
     "SELECT * FROM events RETURNING *", "PRAGMA query_only = OFF"],
)  # fmt: skip
def test_a_query_that_would_write_is_refused_and_writes_nothing(tmp_path: Path, query: str) -> None:
    path = shop(tmp_path, lines(20))
    with pytest.raises(BadInputError, match="refuses the query") as caught:
        frame_of(log_of(tmp_path, settings(query=query)))
    assert caught.value.hint
    with sqlite3.connect(path) as base:
        assert base.execute("SELECT count(*) FROM events").fetchone() == (20,)
    base.close()


def test_the_file_is_opened_for_reading_only(tmp_path: Path) -> None:
    path = shop(tmp_path, lines(20))
    before = path.read_bytes()
    path.chmod(0o400)
    assert len(frame_of(log_of(tmp_path, settings()))) == 20
    assert path.read_bytes() == before
    with pytest.raises(BadInputError, match="no such database file"):
        frame_of(log_of(tmp_path, settings(uri="none.db")))


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    shop(tmp_path, lines(20))
    with pytest.raises(BadInputError, match=r"gives the columns number, timestamp, event; consumer is missing"):
        frame_of(log_of(tmp_path, settings(query="SELECT number, timestamp, event FROM events")))
    with pytest.raises(BadInputError, match="no column 'nothing', its watermark"):
        frame_of(log_of(tmp_path, settings(watermark="nothing")))


def test_a_sample_has_the_lines_that_were_asked_for_and_is_its_owners(tmp_path: Path) -> None:
    shop(tmp_path, lines(500))
    path = tmp_path / "sample.parquet"
    assert sample(open_source(settings(), tmp_path), path, 100) == 100
    assert path.stat().st_mode & 0o777 == 0o600
    log, report = load_events(path, "auto", secret=SECRET)
    assert len(log) == report.lines == 100


def test_damage_of_what_was_kept_is_named_and_a_lost_note_reads_anew(tmp_path: Path) -> None:
    told = settings(watermark="number")
    shop(tmp_path, lines(100))
    frame_of(log_of(tmp_path, told))
    part = next((tmp_path / "kept").glob("*.part"))
    (tmp_path / "kept" / "reading.json").write_text("{")
    assert len(frame_of(log_of(tmp_path, told))) == 100
    shop(tmp_path, lines(10, 100_000))
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(BadInputError, match="damaged"):
        frame_of(log_of(tmp_path, told))


def test_a_mapping_reads_a_query(tmp_path: Path) -> None:
    shop(tmp_path, lines(60))
    mapping = tmp_path / "my.toml"
    mapping.write_text('default_event = "view"\n[columns]\nconsumer = "who"\ntimestamp = "at"\n')
    told = settings(query="SELECT consumer AS who, timestamp AS at FROM events")
    log = SourceLog(
        open_source(told, tmp_path), "", load_mapping(mapping), SECRET, tmp_path, told.identity(tmp_path)
    )
    assert len(frame_of(log)) == 60
