"""Whatever shape a log comes in, it is read right; what cannot be read is refused with what was found; nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from common.data.cleaning import CleaningReport
from common.data.events import EventLog, load_events, opened_events
from common.data.formats import load_mapping
from common.errors import BadInputError
from tests.common.data.more_shapes import MORE_SHAPES
from tests.common.data.shapes import SHAPES as FIRST_SHAPES, rows, text

SECRET = b"secret"
SHAPES = FIRST_SHAPES | MORE_SHAPES


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    path = tmp_path_factory.mktemp("plain") / "log.csv"
    path.write_text(text(rows()))
    return load_events(path, "fedcart", secret=SECRET)[0]


Written = Callable[[str], tuple[Path, EventLog, CleaningReport]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A shape's file by its name, and what is read from it: once for all tests, which leave the file as it is."""
    folder = tmp_path_factory.mktemp("shapes")

    @cache
    def of(name: str) -> tuple[Path, EventLog, CleaningReport]:
        SHAPES[name].write(folder / name)
        return folder / name, *load_events(folder / name, "auto", secret=SECRET)

    return of


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_of_a_log_is_read_right(name: str, plain: EventLog, written: Written) -> None:
    shape, (_, log, report) = SHAPES[name], written(name)
    assert report.kept == len(log) == len(plain) - shape.lost
    assert report.lines == report.kept + sum(rule.dropped for rule in report.rules)
    assert report.dropped == shape.lost + shape.extra
    assert report.consumers == 40 and report.items == 61 and report.sites == 3
    assert report.notes
    by = ["timestamp", "item"]
    mine, theirs = log.frame.sort(by), plain.frame.sort(by)
    if shape.lost:
        theirs = theirs.join(mine.select("timestamp"), on="timestamp", how="semi", maintain_order="left")
    moved = mine["timestamp"] - timedelta(hours=shape.hours)
    assert moved.to_list() == theirs["timestamp"].to_list()
    assert mine["item"].to_list() == theirs["item"].to_list()
    assert mine["price"].to_list() == pytest.approx(theirs["price"].to_list())
    if name != "orders":
        assert mine["event"].to_list() == theirs["event"].to_list()
    if not shape.renamed:
        assert mine["consumer"].to_list() == theirs["consumer"].to_list()
    pairs = pl.DataFrame({"a": mine["consumer"], "b": theirs["consumer"]}).unique()
    assert len(pairs) == 40  # nobody became two, no two became one


@pytest.mark.parametrize("name", SHAPES)
def test_what_was_recognised_is_a_mapping_that_reads_the_same(name: str, written: Written, tmp_path: Path) -> None:
    mapping, (path, expected, _) = tmp_path / "my.toml", written(name)
    opened, _ = opened_events(path, "auto")
    mapping.write_text(opened.mapping.to_toml(), encoding="utf-8")
    assert load_mapping(mapping).columns == opened.mapping.columns
    assert load_events(path, str(mapping), secret=SECRET)[0].frame.equals(expected.frame)
    assert load_events(path, str(mapping), secret=SECRET, tolerant=True)[0].frame.equals(expected.frame)


@pytest.mark.parametrize(
    "name", [name for name in SHAPES if name.endswith((".csv", ".txt", ".tsv")) and name != "no_ending.csv"]
)
def test_every_physical_line_is_accounted_for(name: str, written: Written) -> None:
    path, _, report = written(name)
    code = {"utf-16.csv": "utf-16", "utf-16-le.csv": "utf-16-le", "utf-32.csv": "utf-32"}.get(name, "latin-1")
    content = path.read_bytes().decode(code).replace("\r\n", "\n").replace("\r", "\n")
    assert report.physical == content.count("\n") + (not content.endswith("\n"))
    assert report.physical == report.headers + report.blank + report.spanned + report.kept + report.dropped


def refused(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInputError) as caught:
        load_events(path, "auto", secret=SECRET)
    assert caught.value.hint
    return f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a;b;c\n1;2;3\n", ["semicolons", "'a'", "--map consumer="]),
        ("17,x,5\n18,y,6\n", ["no header", "17"]),
        ('{"a": 1, "b": {"c": 2}}\n', ["JSON", "b.c"]),
        ("user,date,action,sku\nu,03/04/2024,view,a\n", ["03/04/2024", "day", "month", "time_formats"]),
        ("user,date,action,sku\nu,25/04/2024,view,a\nu,04/25/2024,view,a\n", ["day comes first", "month"]),
        ("user,date,action,sku\nu,2024-03-01 10:00 IST,view,a\n", ["IST", "date"]),
        ("user,date,action,sku\nu,soon,view,a\n", ["soon"]),
        (b"PK\x03\x04garbage", ["ZIP"]),
        (b"SQLite format 3\0" + bytes(99), ["SQLite"]),
        ('[{"consumer": 1, "timestamp":', ["JSON"]),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_was_found(
    content: str | bytes, said: list[str], tmp_path: Path
) -> None:
    words = refused(tmp_path / "log", content)
    assert [word for word in said if word not in words] == []


def test_a_number_that_lost_its_digits_is_nobody(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text(rows()).replace("1007,", "1.23457E+12,").replace("1008,", "1.23457E+12,"))
    _, report = load_events(path, "fedcart", secret=SECRET)
    assert report.found("rounded-id") == 30 and report.consumers == 38 and report.status == "warn"


@pytest.mark.parametrize("word", ["NULL", "\\N", "nan", "None", "<NA>", "n/a", "(not set)", "undefined", "-"])
def test_a_word_for_nothing_is_no_consumer(word: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text(rows()).replace("\n1007,", f"\n{word},"))
    _, report = load_events(path, "fedcart", secret=SECRET)
    assert report.found("no-consumer") == report.found("textual-null") == 15 and report.consumers == 39


def test_two_ids_with_broken_bytes_never_become_one(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    lines = [
        f"{who},2024-01-0{n} 10:00:00,view,a" for n, who in enumerate(["ann", "b\udcfc", "b\udce4", "ü"], start=1)
    ]
    path.write_bytes("\n".join(["consumer,timestamp,event,item", *lines]).encode("utf-8", "surrogateescape"))
    _, report = load_events(path, "fedcart", secret=SECRET)
    assert report.found("unreadable") == 2 and report.consumers == 2 and report.status == "warn"


def test_two_equal_lines_of_one_day_are_two_purchases(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "consumer,timestamp,event,item\n"
        + "ann,2024-01-01,purchase,a\n" * 2
        + "ann,2024-01-01 09:00,purchase,a\n" * 2
    )
    log, report = load_events(path, "fedcart", secret=SECRET)
    assert len(log) == 3
    assert (report.found("repeated-on-a-day"), report.found("duplicate")) == (1, 1)


def test_times_are_on_the_clock_of_the_shop(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "user_id,ts,action,sku\na,2024-03-01T22:00:00Z,view,x\nb,1709330400,view,x\nc,2024-03-01 22:00:00,view,x\n"
    )
    log, _ = load_events(path, "auto", secret=SECRET, said={"time_zone": "Asia/Shanghai"})
    assert sorted(str(time) for time in log.frame["timestamp"]) == ["2024-03-01 22:00:00", "2024-03-02 06:00:00", "2024-03-02 06:00:00"]  # fmt: skip


@pytest.mark.parametrize("columns", [60, 200])
def test_a_wide_file_loses_no_role(columns: int, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    extra = [f"x{i}" for i in range(columns)]
    path.write_text(",".join(["user_id", *extra, "event_time", "action", "sku", "store"]) + "\n" + ",".join(["u", *extra, "2024-03-01 10:00:00", "view", "a", "s"]) + "\n")  # fmt: skip
    _, report = load_events(path, "auto", secret=SECRET)
    assert (report.consumers, report.items, report.sites) == (1, 1, 1)


def test_a_placeholder_date_is_no_time(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    ends = ("2099-12-31", "9999-12-31", "1900-01-01", "1970-01-01", "2038-01-19 03:14:07", "0001-01-01")
    path.write_text(text(rows()) + "".join(f"1000,{end},view,500,1,1,1,1\n" for end in ends))
    _, report = load_events(path, "fedcart", secret=SECRET)
    assert report.found("time-out-of-range") + report.found("no-time") == len(ends) and report.last < "2025"


BROKEN = ["{", "[", "x", "[1,", '{"consumer":', "\x00\x00\x00", "é" * 40, ";;;;;;;;", '"', "a|b|c|d|e"]


@pytest.mark.parametrize("line", BROKEN)
@pytest.mark.parametrize("kind", ["lines.jsonl", "no_header.csv"])
def test_a_broken_first_line_changes_nothing_but_itself_at_a_started_site(
    kind: str, line: str, plain: EventLog, tmp_path: Path
) -> None:
    path, mapping = tmp_path / kind, tmp_path / "my.toml"
    SHAPES[kind].write(path)
    mapping.write_text(opened_events(path, "auto")[0].mapping.to_toml(), encoding="utf-8")
    path.write_text(line + "\n" + path.read_text())
    log, report = load_events(path, str(mapping), secret=SECRET, tolerant=True)
    assert log.frame.equals(plain.frame)
    assert report.lines == report.kept + report.dropped == len(plain) + 1


def test_a_started_site_recognises_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text(rows()))
    with pytest.raises(BadInputError, match="must know"):
        load_events(path, "auto", secret=SECRET, tolerant=True)


def test_a_file_of_a_folder_that_is_no_event_by_its_columns_is_named_and_the_status_says_so(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "a.csv").write_text(text(rows()[:300]))
    (folder / "b.csv").write_text(text(rows()[300:], names=tuple("kxyzuvwo")))
    (folder / "notes.txt").write_text("made by hand\n")
    _, report = load_events(folder, "auto", secret=SECRET)
    assert (report.kept, report.passed_over, report.status) == (300, ("b.csv",), "warn")
    assert "passed over, not events: b.csv, notes.txt" in report.notes
    (folder / "b.csv").unlink()
    assert load_events(folder, "auto", secret=SECRET)[1].status == "ok"
