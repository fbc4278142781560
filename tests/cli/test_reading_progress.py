"""Progress of reading: nothing for what is short, a line now and then for what is long, of a source too."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import cli.show as show
from cli.main import main
from common.data.store.logs import OpenedLog, Tally


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(show.time, "monotonic", lambda: now[0])
    return now


def test_short_work_says_nothing_and_long_work_says_how_far_it_is(clock, capsys) -> None:
    with show.reading("lines read") as step:
        for second, lines in ((1.0, 100), (1.9, 200), (2.5, 300), (5.0, 400), (13.0, 500)):
            clock[0] = second
            step(lines)
    said = capsys.readouterr().err
    assert "300 lines read" in said and "500 lines read" in said
    assert not any(f"{lines} lines" in said for lines in (100, 200, 400))


def test_every_line_of_every_file_is_stepped_over(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        lines = "".join(f"c{i},2024-01-0{1 + i % 9},view,i{i % 3}\n" for i in range(300))
        (tmp_path / name).write_text("consumer,timestamp,event,item\n" + lines)
    seen: list[int] = []
    log, tally = OpenedLog.of(tmp_path, "auto"), Tally()
    assert sum(len(piece) for piece in log.pieces(b"k" * 16, tally, seen.append)) == tally.kept
    assert seen == sorted(seen) and seen[-1] == 600 == log.report(tally).lines


def test_a_source_shows_how_far_it_is_read(tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("adbc_driver_sqlite", reason="the extra sql is not installed")
    with sqlite3.connect(tmp_path / "shop.db") as base:
        base.execute("CREATE TABLE lines (consumer, timestamp, event, item)")
        base.executemany(
            "INSERT INTO lines VALUES (?, '2024-01-01', 'view', 'a')", [(f"c{i}",) for i in range(50)]
        )
    base.close()
    source = tmp_path / "shop.toml"
    source.write_text(
        f'[source]\nkind = "sql"\ndriver = "sqlite"\nuri = "{tmp_path / "shop.db"}"\nquery = "SELECT * FROM lines"\n'
    )
    monkeypatch.setattr(show, "SHORT_S", -1.0)
    assert main(["data", "check", "--source", str(source), "--json"]) == 0
    assert "50 lines read" in capsys.readouterr().err
