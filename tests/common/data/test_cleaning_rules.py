"""Every line is kept, or dropped and counted with its reason. Real files are compared with known facts."""

import csv
import gzip
import os
from pathlib import Path

import polars as pl
import pytest

from common.data.cleaning import CleaningReport
from common.data.events import EventLog, load_events
from common.errors import BadInputError

DATA = os.environ.get("FEDCART_DATA_DIR", "")
needs_data = pytest.mark.skipif(not DATA, reason="FEDCART_DATA_DIR is not set")
HEADER = "consumer,timestamp,event,item,category,price,quantity,site\n"


def load(folder: Path, *lines: str) -> tuple[EventLog, CleaningReport]:
    path = folder / "log.csv"
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return load_events(path, "fedcart", secret=b"secret")


GOOD = "ann,2024-01-01 10:00:00,purchase,lamp,light,5,1,north"


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (",2024-01-01,view,lamp,,,,north", "no-consumer"),
        ("   ,2024-01-01,view,lamp,,,,north", "no-consumer"),
        ("ann,yesterday,view,lamp,,,,north", "no-time"),
        ("ann,,view,lamp,,,,north", "no-time"),
        ("ann,1970-01-01,view,lamp,,,,north", "time-out-of-range"),
        ("ann,2107-01-01,view,lamp,,,,north", "time-out-of-range"),
        ("ann,2024-01-01,purchase,,,5,1,north", "no-item"),
        ("ann,2024-01-01,view,lamp,,-3,,north", "negative-price"),
        ("ann,2024-01-01,purchase,lamp,,5,0,north", "quantity-not-positive"),
        ("ann,2024-01-01,purchase,lamp,,5,-2,north", "quantity-not-positive"),
        (GOOD, "duplicate"),
    ],
)
def test_an_unusable_line_is_dropped_for_one_stated_reason(line: str, rule: str, tmp_path: Path) -> None:
    log, report = load(tmp_path, GOOD, line)
    assert len(log) == report.kept == 1
    assert {count.rule: count.dropped for count in report.rules if count.dropped} == {rule: 1}


@pytest.mark.parametrize(
    ("line", "rule", "column"),
    [
        ("ann,2024-01-02,view,lamp,,0,,north", "zero-price", "price"),
        ("ann,2024-01-02,view,lamp,,1e9,,north", "absurd-price", "price"),
        ("ann,2024-01-02,view,lamp,,inf,,north", "bad-price", "price"),
        ("ann,2024-01-02,view,lamp,,NaN,,north", "textual-null", "price"),
        ("ann,2024-01-02,view,lamp,,cheap,,north", "bad-price", "price"),
        ("ann,2024-01-02,purchase,lamp,,5,32623,north", "absurd-quantity", "quantity"),
        ("ann,2024-01-02,purchase,lamp,,5,many,north", "bad-quantity", "quantity"),
    ],
)
def test_an_unusable_value_is_removed_and_its_event_kept(
    line: str, rule: str, column: str, tmp_path: Path
) -> None:
    log, report = load(tmp_path, GOOD, line)
    assert report.found(rule) == 1
    assert len(log) == 2
    assert log.frame[column].to_list()[1] is None


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_repeated_line_is_dropped_wherever_it_stands(times: int, tmp_path: Path) -> None:
    a, b = (f"ann,2024-01-01 10:00:00,view,{item},,,,north" for item in "ab")
    later = "ann,2024-01-02 10:00:00,view,a,,,,north"
    other = "bob,2024-01-01 10:00:00,view,a,,,,north"
    log, report = load(tmp_path, a, b, *[a, b] * times, later, other, later)
    assert report.found("duplicate") == 2 * times + 1
    assert sorted(log.frame["item"]) == ["a", "a", "a", "b"]


def test_a_login_needs_no_item(tmp_path: Path) -> None:
    log, report = load(tmp_path, "ann,2024-01-01,login,,,,,north", "ann,2024-01-01,search,,light,,,north")
    assert len(log) == 2
    assert report.dropped == 0


def test_events_out_of_order_are_counted_and_sorted(tmp_path: Path) -> None:
    log, report = load(
        tmp_path,
        "ann,2024-01-03,view,c,,,,north",
        "bob,2024-01-01,view,x,,,,north",
        "ann,2024-01-01,view,a,,,,north",
        "ann,2024-01-02,view,b,,,,north",
    )
    assert report.found("out-of-order") == 1
    mine = log.frame.filter(pl.col("item") != "x")
    assert mine["item"].to_list() == ["a", "b", "c"]


def test_events_of_the_same_moment_keep_the_order_of_the_file(tmp_path: Path) -> None:
    log, report = load(tmp_path, *(f"ann,2024-01-01,view,{item},,,,north" for item in "qweasdzxc"))
    assert "".join(log.frame["item"]) == "qweasdzxc"
    assert report.found("out-of-order") == 0


def test_lines_and_counts_always_add_up(tmp_path: Path) -> None:
    _, report = load(
        tmp_path, GOOD, GOOD, ",x,view,lamp,,-1,,n", "ann,x,purchase,,,-1,0,n", "bob,2024-01-01,view,a,,,,n"
    )
    assert report.lines == report.kept + sum(count.dropped for count in report.rules) == 5
    assert report.found("negative-price") == 2  # found by a later rule too, but dropped by the first


def test_a_site_without_usable_lines_is_named(tmp_path: Path) -> None:
    _, report = load(tmp_path, GOOD, ",2024-01-01,view,lamp,,,,south")
    assert report.sites_lost == ("south",)


def test_a_file_without_a_usable_line_is_an_error_with_reasons(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="2 no-time"):
        load(tmp_path, "ann,?,view,lamp,,,,n", "bob,?,view,lamp,,,,n")


@pytest.fixture(scope="module")
def retail() -> tuple[EventLog, CleaningReport]:
    return load_events(Path(DATA) / "online_retail/online_retail.csv.gz", "online-retail", secret=b"secret")


@needs_data
def test_online_retail_gives_the_known_counts(retail: tuple[EventLog, CleaningReport]) -> None:
    log, report = retail
    assert report.lines == 541_909
    assert report.found("no-consumer") == 135_080
    assert report.found("cancellation") == 9_288
    assert report.found("quantity-not-positive") == 10_624
    assert report.found("negative-price") + report.found("zero-price") == 2_517
    assert report.consumers == len(log.consumers) == 4_372
    assert report.sites + len(report.sites_lost) == 38
    assert (report.first[:10], report.last[:10]) == ("2010-12-01", "2011-12-09")
    assert report.status == "warn"


@needs_data
@pytest.mark.full
def test_online_retail_duplicates_agree_with_a_plain_loop(retail: tuple[EventLog, CleaningReport]) -> None:
    seen = set()
    lines = 0
    with gzip.open(Path(DATA) / "online_retail/online_retail.csv.gz", "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["CustomerID"]:
                lines += 1
                cancelled = row["InvoiceNo"].startswith("C")
                names = ("CustomerID", "InvoiceDate", "StockCode", "UnitPrice", "Quantity", "Country")
                seen.add((cancelled, *(row[name] for name in names)))
    assert retail[1].found("duplicate") == lines - len(seen)
    assert len(retail[0]) == len(seen)


@needs_data
def test_complete_journey_gives_the_known_counts() -> None:
    path = Path(DATA) / "complete_journey/transactions_sample.csv.gz"
    log, report = load_events(path, "complete-journey", secret=b"secret", site_column="store")
    assert report.lines == 75_000
    assert report.sites + len(report.sites_lost) == 293
    assert report.consumers == 2_373  # of 2,377; four only have lines with a quantity of zero
    assert log.frame["category"].null_count() < 0.01 * len(log)
    assert report.found("absurd-quantity") == 383
