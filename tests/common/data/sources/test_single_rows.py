"""One row of a source changes nothing but itself: not how other rows are read, not whether any is."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from common.data.sources.opening import open_source
from common.data.store.logs import Tally
from common.data.store.source_log import SourceLog
from common.source_settings import SourceSettings

pytest.importorskip("adbc_driver_sqlite", reason="the extra sql is not installed")
COLUMNS = ("number", "consumer", "timestamp", "event", "item", "price")
TYPED = "number INTEGER, consumer INTEGER, timestamp INTEGER, event TEXT, item INTEGER, price REAL"
Row = tuple[Any, ...]


def numbers(n: int) -> Row:
    return (n, n % 50, 1_767_348_000 + n, "view", None if n < 40 else n % 9, 1.5 + n % 7)


def words(n: int) -> Row:
    return (n, f"c{n % 50}", f"2026-01-{1 + n % 28:02d} 10:00:{n % 60:02d}", "view", f"i{n % 9}", f"{n % 7}.5")


LONE = [
    ("soon", "z", 1_767_348_000, "view", 1, 1.0),
    (None, "z", 1_767_348_000, "view", 1, 1.0),
    (1.5, "z", 1_767_348_000, "view", 1, 1.0),
    (901, 1.5, 1_767_348_000, "view", 1, 1.0),
    (901, b"\xff\x00", 1_767_348_000, "view", 1, 1.0),
    (901, None, 1_767_348_000, "view", 1, 1.0),
    (901, 7_000, b"\xff", "view", 1, 1.0),
    (901, 7_000, 0.5, "view", b"\xff", b"\x00"),
    (901, 7_000, "soon", 7, 2.5, "1,5"),
]


def read(log: SourceLog) -> tuple[dict[Any, list[Any]], Tally]:
    found: dict[Any, list[Any]] = {}
    tally = Tally()
    for piece in log.pieces(tally):
        for consumer, *rest in piece.frame.iter_rows():
            found.setdefault(consumer, []).append(rest)
    return found, tally


def opened(folder: Path, **settings: Any) -> SourceLog:
    told = SourceSettings.model_validate({"query": "SELECT * FROM events", "late": 0} | settings)
    kept = folder / "kept"
    kept.mkdir()
    identity = told.identity(folder)
    source = open_source(told, folder, kept)
    return SourceLog(source, "fedcart", None, b"k" * 32, kept, identity, told.watermark, told.late)


def database(folder: Path, rows: list[Row], columns: str, watermark: str, broken: bool = False) -> SourceLog:
    folder.mkdir()
    base = sqlite3.connect(folder / "shop.db")
    base.execute(f"CREATE TABLE events ({columns})")
    base.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
    if broken:  # text that is not UTF-8
        base.execute("UPDATE events SET item = CAST(X'FFFE41' AS TEXT) WHERE number = 901")
    base.commit()
    base.close()
    return opened(folder, kind="sql", driver="sqlite", uri=str(folder / "shop.db"), watermark=watermark)


def same_but_for_itself(before: dict[Any, Any], after: dict[Any, Any]) -> bool:
    return all(after[consumer] == rows for consumer, rows in before.items()) and len(after) <= len(before) + 1


@pytest.mark.parametrize("watermark", ["number", ""])
@pytest.mark.parametrize(("make", "columns"), [(numbers, TYPED), (words, ", ".join(COLUMNS))])
def test_a_row_of_sqlite(tmp_path: Path, make: Any, columns: str, watermark: str) -> None:
    """A watermark that was missing, or text, stopped the site; a BLOB as time left it without any event; text that is not
    UTF-8 ended its process."""
    rows = [make(n) for n in range(400)]
    before, _ = read(database(tmp_path / "before", rows, columns, watermark))
    assert len(before) == 50
    for count, lone in enumerate([*LONE, (901, "z", 1_767_348_000, "view", "broken", 1.0)]):
        for place in (0, 400):
            folder = tmp_path / f"{count}-{place}"
            log = database(
                folder, [*rows[:place], lone, *rows[place:]], columns, watermark, broken=count == len(LONE)
            )
            after, tally = read(log)
            assert same_but_for_itself(before, after), (lone, place)
            assert read(log)[0] == after, "and the next reading finds the same"
            if watermark and not isinstance(lone[0], int):
                assert tally.counted.malformed == 1


CSV = [
    "z,view,soon,x,1",
    "z,view",
    "z,view,1767348000,1,1,1,1",
    '"z,view,1767348000,1,1',
    "z,view,1767348000,\udcff,1",
    "é",
]
OBJECT = {"consumer": "z", "event": "view", "timestamp": 1_767_348_000, "item": 1, "price": 1}
JSON = [
    json.dumps({**OBJECT, "consumer": 5.5}),
    json.dumps({**OBJECT, "consumer": {"a": 1}}),
    json.dumps({**OBJECT, "price": [1], "item": "x", "timestamp": "soon"}),
    json.dumps({**OBJECT, "more": {"a": 1}}),
    json.dumps(OBJECT)[:20],
    "nonsense",
    "[1]",
    "[" * 5_000,
    '{"consumer": "\udcff", "event": "view", "timestamp": 1}',
]


@pytest.mark.full
@pytest.mark.parametrize("make", [numbers, words])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_line_of_a_file_that_is_read_by_sql(tmp_path: Path, suffix: str, make: Any) -> None:
    """Behind the first lines a value of another type stopped the site; among them it changed every consumer's id."""
    pytest.importorskip("duckdb", reason="the extra files is not installed")
    order = [1, 3, 2, 4, 5]
    rows = [[make(n)[place] for place in order] for n in range(30_000)]
    names = [COLUMNS[place] for place in order]
    head = ",".join(names) + "\n" if suffix == "csv" else ""
    lines = [
        ",".join("" if value is None else str(value) for value in row) if suffix == "csv"
        else json.dumps(dict(zip(names, row, strict=True)))
        for row in rows
    ]  # fmt: skip
    before, _ = read(_file(tmp_path / "before", suffix, head, lines))
    assert len(before) == 50
    for count, lone in enumerate(CSV if suffix == "csv" else JSON):
        for place in (0, len(lines)):
            log = _file(tmp_path / f"{count}-{place}", suffix, head, [*lines[:place], lone, *lines[place:]])
            after, _ = read(log)
            assert same_but_for_itself(before, after), (lone[:60], place)


def _file(folder: Path, suffix: str, head: str, lines: list[str]) -> SourceLog:
    folder.mkdir()
    path = folder / f"events.{suffix}"
    path.write_text(head + "".join(line + "\n" for line in lines), encoding="utf-8", errors="surrogateescape")
    return opened(folder, kind="files", files={"events": str(path)})
