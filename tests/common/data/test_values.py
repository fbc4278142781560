"""What a single value means, as a table; and that a live stream reads it as a file does."""

from datetime import datetime

import polars as pl
import pytest

from common.data import one_id, one_number, one_time
from common.data.formats import Mapping
from common.data.typed import typed_lines
from common.data.values.numbers import numbers
from common.data.values.times import times
from common.errors import BadInputError

TEN = datetime(2024, 3, 1, 10)
TIMES = {
    "2024-03-01 10:00:00": TEN,
    "2024-03-01T10:00:00Z": TEN,
    "2024-03-01T10:00:00.000+00:00": TEN,
    "2024-03-01 18:00:00+08": TEN,
    "2024-03-01 18:00:00 +0800": TEN,
    "2024-03-01 11:00:00 CET": TEN,
    "2024-03-01 12:00 CEST": TEN,
    "2024-03-01T11:00:00+01:00[Europe/Berlin]": TEN,
    "01/Mar/2024:10:00:00 +0000": TEN,
    "Mar 1, 2024 10:00 AM": TEN,
    "March 1st, 2024 at 10:00 AM": TEN,
    "1 March 2024 10:00": TEN,
    "Fri, 01 Mar 2024 10:00:00 +0000": TEN,
    "2024-03-01 10:00:00,000": TEN,
    "2024/03/01 10:00": TEN,
    "1.3.2024 10:00": TEN,
    "20240301100000": TEN,
    "202403011000": TEN,
    "20240301T100000Z": TEN,
    "2024年3月1日 10:00": TEN,
    "1709287200": TEN,
    "1709287200.0": TEN,
    "1709287200000": TEN,
    "1709287200000000": TEN,
    "1709287200000000000": TEN,
    "2024-03-01 10:00 p.m.": datetime(2024, 3, 1, 22),
    "2024-03-01 12:00 AM": datetime(2024, 3, 1),
    "20240301": datetime(2024, 3, 1),
    "03/04/2024": None,
    "3/4/24 10:00": None,
    "2024-03-01 10:00:00 IST": None,
    "2024-03-01 10:00:00 CST": None,
    "2024-13-01": None,
    "2024-02-30 10:00:00": None,
    "10:00": None,
    "7": None,
    "": None,
}
NUMBERS = {
    "12.50": 12.5, "12,50": 12.5, "$12.50": 12.5, "12,50 €": 12.5, "USD 12.50": 12.5, "Rs. 500": 500.0, "￥1,000": 1000.0,
    "1,012.50": 1012.5, "1.012,50": 1012.5, "1 012,50 kr": 1012.5, "1'012.50": 1012.5, "1,00,000.50": 100_000.5,
    "1.234.567": 1_234_567.0, "1,012": 1012.0, "1.012": 1.012, "(3.00)": -3.0, "12.50-": -12.5, "-5": -5.0, "−5": -5.0,
    ",5": 0.5, "1e3": 1000.0, "1,2,3": None, "12.5.1": None, "x": None, "": None, "12 x 3": None, "5%": None, "(5": None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TIMES.items())
def test_a_time_of_any_form_that_tells_itself_is_read(text: str, expected: datetime | None) -> None:
    assert times(pl.Series([text, "2024-01-01"]))[0] == expected


def test_a_value_is_read_alone_whatever_stands_beside_it() -> None:
    assert times(pl.Series(list(TIMES))).to_list() == list(TIMES.values())
    assert numbers(pl.Series(list(NUMBERS)))[0].to_list() == list(NUMBERS.values())


@pytest.mark.parametrize(("text", "expected"), NUMBERS.items())
def test_a_number_in_any_notation_is_read(text: str, expected: float | None) -> None:
    assert numbers(pl.Series([text]))[0][0] == expected


def test_one_mark_before_three_digits_is_what_the_mapping_says() -> None:
    both = pl.Series(["1,012", "1.012", "12,5", "12.5"])
    assert numbers(both, ".")[0].to_list() == [1012.0, 1.012, 12.5, 12.5]
    assert numbers(both, ",")[0].to_list() == [1.012, 1012.0, 12.5, 12.5]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%d/%m/%Y %H:%M", "01/03/2024 10:00"),
        ("%m/%d/%y %I:%M %p", "3/1/24 10:00 AM"),
        ("%d-%m-%Y %H:%M:%S %z", "01-03-2024 12:00:00 +0200"),
        ("%d/%m/%Y %H:%M:%S %Z", "01/03/2024 11:00:00 CET"),
    ],
)
def test_a_named_form_is_read(form: str, text: str) -> None:
    assert times(pl.Series([text, "x"]), formats=(form,)).to_list() == [TEN, None]


def test_days_of_a_spreadsheet_and_numbers_of_orders() -> None:
    assert times(pl.Series([45_352.416_666_67]), unit="excel")[0] == TEN
    assert times(pl.Series(["7", "8"]), unit="order").is_sorted()


IDS = [
    "a",
    " a ",
    "1001",
    "1001.0",
    "1001.50",
    "NULL",
    "nan",
    "",
    " ",
    "-",
    "1.23457E+12",
    "b\ufffd",
    "Ünal",
    "a b",
    "\u200bx\ufeff",
]


@pytest.mark.parametrize("value", IDS)
def test_a_stream_reads_an_id_as_a_file_does(value: str) -> None:
    frame = pl.DataFrame({"consumer": [value], "timestamp": ["2024-03-01"], "event": ["view"]})
    typed = typed_lines(frame, Mapping(name="m", columns={n: n for n in frame.columns}))
    damaged = typed["unreadable"][0] or typed["rounded_id"][0]
    try:
        assert one_id(value, "consumer") == (typed["consumer"][0] or "") and not damaged
    except BadInputError:
        assert damaged


VALUES = [*TIMES, *NUMBERS]


@pytest.fixture(scope="module")
def in_a_file() -> dict[str, tuple[datetime | None, float | None]]:
    """Every value as it is read among all others."""
    column = pl.Series(VALUES)
    return dict(zip(VALUES, zip(times(column), numbers(column)[0], strict=True), strict=True))


@pytest.mark.parametrize("value", VALUES)
def test_a_stream_reads_times_and_numbers_as_a_file_does(value: str, in_a_file) -> None:
    for read, there in zip((one_time, lambda text: one_number(text, "price")), in_a_file[value], strict=True):
        try:
            assert read(value) == there
        except BadInputError:
            assert there is None


HALF = "\ud800"  # of a character of UTF-16: JSON can spell it, no file can hold it


@pytest.mark.parametrize(
    "read", [lambda: one_id(f"c{HALF}", "consumer"), lambda: one_time(HALF), lambda: one_number(HALF, "price")]
)
def test_half_a_character_is_a_bad_value_and_nothing_worse(read):
    with pytest.raises(BadInputError):
        read()


def test_a_whole_number_beyond_any_float_is_no_number():
    assert one_number(10**400, "price") is None
