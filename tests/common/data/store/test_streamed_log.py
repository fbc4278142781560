"""A log that is read in batches and settled in pieces is the log that is read whole, bit for bit."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import common.data.reading.encoding as encoding
import common.data.reading.tables as tables
import common.data.store.intake as intake
from common.data import EventLog, Split, build_sequences, feature_spec, holdout_mask, joined, load_events, parts_of
from common.data.formats import Mapping
from common.data.reading import Lines, choose_mapping
from common.data.store.logs import FileLog, Tally
from common.data.store.rows import open_rows, write_rows
from common.data.store.streaming import file_batches
from common.errors import BadInputError

SECRET = b"s" * 32


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """So small that a log of some hundred lines has many chunks, parts and pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "CHUNK_BYTES", 4_000)
        patch.setattr(tables, "CHUNK_ROWS", 77)
        patch.setattr(intake, "PART_LINES", 150)
        patch.setattr(intake, "PIECE_LINES", 90)
        yield


@pytest.fixture(scope="module")
def pieces(small: None, tmp_path_factory: pytest.TempPathFactory) -> list[EventLog]:
    """The dirty log, streamed once for all that start from its pieces."""
    folder = tmp_path_factory.mktemp("pieces")
    return streamed(dirty_csv(folder), folder)[0]


def dirty_csv(folder: Path) -> Path:
    """Every rule of cleaning has something to find, and ties, repeats and disorder are far apart."""
    rng = np.random.default_rng(4)
    lines = ["consumer,timestamp,event,item,category,price,quantity,site"]
    for i in range(700):
        day, hour = rng.integers(1, 28), rng.integers(0, 24)
        word = rng.choice(["view", "purchase", "cart", "login", "dance", "cancel"])
        item = rng.choice(["", "a", "b", "ü-7", '"x, y"'], p=[0.1, 0.3, 0.3, 0.2, 0.1])
        price = rng.choice(["1.5", "0", "-2", "x", "1e9", ""])
        quantity = rng.choice(["1", "0", "-3", "1e8", "", "2"])
        who = rng.choice(["", f"c{i % 61}", f"c{rng.integers(0, 61)}", " c3 "], p=[0.05, 0.45, 0.45, 0.05])
        when = rng.choice([f"2024-03-{day:02d} {hour:02d}:00:00", "then", "1890-01-01"], p=[0.94, 0.03, 0.03])
        lines.append(f"{who},{when},{word},{item},k{i % 5},{price},{quantity},{rng.choice(['n', 's', ''])}")
        if i % 7 == 0:
            lines.append(lines[int(rng.integers(1, len(lines)))])
        if i % 50 == 0:
            lines += ["c1,2024-01-01", 'c2,"2024,view,a,,,,', "", "   "]
    lines.append("lost,never,view,a,,,,west")
    path = folder / "shop.csv"
    path.write_text("\r\n".join(lines))  # the last line has no end
    return path


def streamed(path: Path, folder: Path, site_column: str = "", fmt: str = "fedcart") -> tuple[list, Tally]:
    tally = Tally()
    log = FileLog(path, fmt, None, SECRET, folder, site_column)
    return list(log.pieces(tally)), tally


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_pieces_are_the_log_in_memory_bit_for_bit(kind: str, tmp_path: Path) -> None:
    path = dirty_csv(tmp_path)
    if kind == "csv.gz":
        packed = tmp_path / "shop.csv.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    if kind == "parquet":
        whole = pl.read_csv(
            path, infer_schema=False, truncate_ragged_lines=True, quote_char=None, encoding="utf8-lossy"
        )
        path = tmp_path / "shop.parquet"
        whole.write_parquet(path, row_group_size=100)
    expected, report = load_events(path, secret=SECRET)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    pieces, tally = streamed(path, scratch)
    assert len(pieces) > 5
    whole = joined(pieces).frame
    assert whole.equals(expected.frame, null_equal=True)
    assert whole.schema == expected.frame.schema
    assert tally.report(path.name, "fedcart") == report
    assert not list(scratch.iterdir())  # nothing is left of the spill


def test_every_consumer_is_whole_in_one_piece(pieces: list[EventLog]) -> None:
    seen: list[int] = []
    for piece in pieces:
        seen += piece.consumers.tolist()
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    "text", ["", "\n\n", "consumer,timestamp,event,item\n", "consumer,timestamp,event,item\n,,,\n"]
)
def test_a_log_without_a_usable_line_has_no_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    path.write_text(text)
    pieces, _ = streamed(path, tmp_path)
    assert len(joined(pieces)) == 0


def test_rows_on_disk_are_the_rows_in_memory_and_split_alike(pieces: list[EventLog], tmp_path: Path) -> None:
    path, spec = dirty_csv(tmp_path), feature_spec(None, item_buckets=16, category_buckets=4)
    whole = build_sequences(load_events(path, secret=SECRET)[0], spec, max_events=7)
    split = Split(SECRET, 0.3, 0.5)
    sides = split.of(whole)
    mask = np.arange(17) > 0
    encoded = (build_sequences(piece, spec, max_events=7) for piece in pieces)
    write_rows(tmp_path / "rows", map(split.of, encoded), mask)
    stored = open_rows(tmp_path / "rows")
    for mine, theirs in zip(parts_of(stored.sides), parts_of(sides), strict=True):
        for name in ("consumers", "offsets", "integers", "numeric", "timestamps"):
            assert getattr(mine, name).dtype == getattr(theirs, name).dtype
            assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name
    assert stored.mask.tolist() == mask.tolist()
    assert all(len(part) for part in parts_of(stored.sides))
    assert holdout_mask(stored.sides.holdout.consumers, SECRET, 0.3).all()
    assert holdout_mask(stored.sides.validation.consumers, SECRET, 0.15).all()
    assert os.stat(tmp_path / "rows").st_mode & 0o777 == 0o600


def test_rows_of_nobody_can_be_kept(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", [], np.zeros(3, dtype=np.bool_))
    assert [len(part) for part in parts_of(open_rows(tmp_path / "rows").sides)] == [0, 0, 0]


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "npz", "longer"])
def test_a_damaged_file_of_rows_is_refused(damage: str, pieces: list[EventLog], tmp_path: Path) -> None:
    path, spec = tmp_path / "rows", feature_spec(None, item_buckets=16)
    write_rows(path, (Split(SECRET, 0.2, 0.5).of(build_sequences(p, spec)) for p in pieces), np.ones(17, bool))
    data = path.read_bytes()
    spoilt = {"cut": data[: len(data) // 2], "empty": b"", "header": data[:16] + b"{}" + data[18:], "npz": b"PK" + data,
              "longer": data.replace(b'"mask": ["|b1", [17]', b'"mask": ["|b1", [97]')}[damage]  # fmt: skip
    path.write_bytes(spoilt)
    with pytest.raises(BadInputError, match="damaged"):
        open_rows(path)


def test_a_damaged_part_is_refused_and_never_read_short(tmp_path: Path) -> None:
    path = dirty_csv(tmp_path)
    mapping, _ = choose_mapping(path, (Mapping(name="f", columns={n: n for n in ("consumer", "timestamp", "event")}),))  # fmt: skip
    folder = tmp_path / "parts"
    folder.mkdir()
    taken = intake.take_in(file_batches(path, mapping), mapping, SECRET, folder)
    assert len(taken.parts) > 2 and all(part.ranges == 256 for part in taken.parts)
    part = folder / taken.parts[1].name
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(BadInputError, match="damaged"):
        list(taken.pieces())
    part.unlink()
    with pytest.raises(BadInputError, match="damaged"):
        list(taken.pieces())


def test_lines_that_were_read_again_later_do_not_count(tmp_path: Path) -> None:
    frame = pl.DataFrame({"consumer": ["a"] * 4, "timestamp": ["2024-01-01"] * 4, "event": ["login"] * 4,
                          "item": list("wxyz"), "mark": [1, 2, 3, 4]})  # fmt: skip
    mapping = Mapping(name="f", columns={n: n for n in ("consumer", "timestamp", "event", "item")})
    taken = intake.take_in([("", Lines(frame, 0))], mapping, SECRET, tmp_path)
    assert taken.marks == (1, 4)
    older = replace(taken, parts=tuple(replace(part, until=3) for part in taken.parts))
    assert [p.frame["item"].to_list() for p in older.pieces()] == [["w", "x"]]
