"""Whatever is in a file, loading ends in a log whose counts add up, or in one BadInputError with a hint."""

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings, strategies as st

from common.data.cleaning import CleaningReport
from common.data.events import EventLog, load_events
from common.data.features import feature_spec
from common.data.presets import PRESETS
from common.data.sequences import build_sequences
from common.errors import BadInputError

HEADER = "consumer,timestamp,event,item,category,price,quantity,site\n"
CELL = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters=',"\r\n\0'), max_size=8),
    st.sampled_from(
        ["ann", "view", "purchase", "2024-01-01", "2024-01-01T10:00:00+02:00", "nan", "inf", "-1", "1e400"]
    ),
    st.floats().map(str),
    st.integers().map(str),
)
USUAL = ("ann", "2024-01-01 10:00:00", "view", "lamp", "light", "5.5", "2", "north")
LINES = st.lists(
    st.tuples(*(st.one_of(st.just(usual), st.just(usual), CELL) for usual in USUAL)).map(",".join),
    min_size=1,
    max_size=12,
)


def load(content: bytes, format_name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events.csv"
        path.write_bytes(content)
        try:
            log, report = load_events(path, format_name, secret=b"secret")
        except BadInputError as refused:
            hint = refused.hint
        else:
            check(log, report)
            return
        assert hint


def check(log: EventLog, report: CleaningReport) -> None:
    """Counts add up and every index is inside of its table."""
    assert report.lines == report.kept + sum(rule.dropped for rule in report.rules)
    assert report.kept == len(log) > 0
    rows = build_sequences(log, feature_spec(None, item_buckets=8, category_buckets=4))
    sizes = feature_spec(None, item_buckets=8, category_buckets=4).sizes
    for name in rows.integer_names:
        assert 0 <= rows.column(name).min() <= rows.column(name).max() < sizes[name]
    assert abs(rows.numeric).max() < 1e3


@given(LINES)
@settings(deadline=None, max_examples=15, derandomize=True)
def test_lines_of_any_cells_are_counted_or_refused(lines: list[str]) -> None:
    load((HEADER + "\n".join(lines) + "\n").encode(), "fedcart")


@given(LINES, st.sampled_from(sorted(PRESETS)))
@settings(deadline=None, max_examples=20, derandomize=True)
def test_any_text_under_any_format_is_counted_or_refused(lines: list[str], name: str) -> None:
    load("\n".join(lines).encode(), name)


@given(st.binary(max_size=400), st.booleans())
@settings(deadline=None, max_examples=20, derandomize=True)
def test_any_bytes_are_counted_or_refused(data: bytes, packed: bool) -> None:
    load(gzip.compress(data) if packed else data, "fedcart")
    load(HEADER.encode() + data, "fedcart")


@pytest.mark.full
@given(LINES, st.binary(max_size=400), st.booleans())
@settings(deadline=None, max_examples=300, derandomize=True)
def test_many_lines_and_bytes_are_counted_or_refused(lines: list[str], data: bytes, packed: bool) -> None:
    load((HEADER + "\n".join(lines) + "\n").encode(), "fedcart")
    load(gzip.compress(data) if packed else data, "fedcart")
    load(HEADER.encode() + data, "fedcart")


@pytest.mark.full
@given(LINES, st.sampled_from(sorted(PRESETS)), st.integers(0, 300), st.integers(0, 255))
@settings(deadline=None, max_examples=300, derandomize=True)
def test_a_flipped_byte_never_ends_in_a_traceback(lines: list[str], name: str, at: int, value: int) -> None:
    content = bytearray((HEADER + "\n".join(lines) + "\n").encode())
    content[at % len(content)] = value
    load(bytes(content), name)
    packed = bytearray(gzip.compress(bytes(content)))
    packed[at % len(packed)] = value
    load(bytes(packed), name)
