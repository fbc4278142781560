"""Every bad file ends in one error with a hint, before any work."""

import gzip
import os
from pathlib import Path

import pytest

from common.data.events import load_events, pseudonym
from common.errors import BadInputError, ConfigError

GOOD = "consumer,timestamp,event,item\n" + "".join(f"c{i},2024-01-01 10:00:00,view,lamp\n" for i in range(2_000))


def refused(path: Path, format_name: str = "fedcart") -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        load_events(path, format_name, secret=b"secret")
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "nothing.csv").message


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path).message


@pytest.mark.parametrize("content", [b"", b"\n \n", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_empty(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_bytes(content)
    assert "is empty" in refused(path).message


def test_a_header_without_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "header.csv"
    path.write_text(GOOD.splitlines()[0] + "\n")
    assert "no lines" in refused(path).message


@pytest.mark.parametrize("magic", [b"", b"PAR1", b"\x1f\x8b"])
def test_binary_garbage_is_refused(magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / "garbage.csv"
    path.write_bytes(magic + bytes(range(256)) * 64)
    refused(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_half_a_gzip_is_refused_and_never_half_read(keep: float, tmp_path: Path) -> None:
    whole = gzip.compress(
        (GOOD + "".join(f"{os.urandom(8).hex()},2024-01-01,view,x\n" for _ in range(9_000))).encode()
    )
    path = tmp_path / "half.csv.gz"
    path.write_bytes(whole[: int(len(whole) * keep)])
    refused(path)


def test_half_a_parquet_is_refused(tmp_path: Path) -> None:
    import polars as pl

    path = tmp_path / "half.parquet"
    pl.DataFrame(
        {"consumer": ["a"] * 1000, "timestamp": ["2024-01-01"] * 1000, "event": ["view"] * 1000}
    ).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    refused(path)


def test_a_wrong_format_name_gets_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(GOOD)
    error = refused(path, "online_retial")
    assert "known: fedcart" in error.message
    assert "online-retail" in error.hint


def test_missing_columns_are_named_with_the_likely_format(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n")
    error = refused(path, "online-retail")
    for column in ("CustomerID", "InvoiceDate", "StockCode", "InvoiceNo"):
        assert column in error.message
    assert "retailrocket" in error.hint


def test_a_format_without_header_says_how_many_columns_it_has(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(GOOD)
    error = refused(path, "taobao")
    assert "5 columns" in error.message
    assert "fedcart" in error.hint


@pytest.mark.parametrize(
    "line",
    [
        "c1,2024-01-01,view,lamp,too,many",
        "c1,2024-01-01",
        'c1,2024-01-01,view,"never ends',
        '"c1,2024-01-01,view,lamp',
        'c1,2024-01-01,view,"a"b',
        "\x00" * 40,
        ",",
        "c1\x1f,2024-01-01,view",
    ],
)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_malformed_line_drops_itself_is_counted_and_changes_no_other(
    line: str, place: str, tmp_path: Path
) -> None:
    path, lines = tmp_path / "log.csv", GOOD.splitlines()
    path.write_text(GOOD)
    clean, _ = load_events(path, "fedcart", secret=b"secret")
    lines.insert({"first": 1, "middle": 700, "last": len(lines)}[place], line)
    path.write_text("\n".join(lines) + "\n")
    log, report = load_events(path, "fedcart", secret=b"secret")
    assert log.frame.equals(clean.frame)
    assert report.found("malformed") + report.found("no-time") + report.found("no-consumer") >= 1
    assert report.lines == 2_001 and report.dropped == 1


def test_quotes_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "consumer,timestamp,event,item,note\n"
        'a,2024-01-01,view,"lamp, small","say ""hi"""\r\n'
        'b,2024-01-01,view,12" vinyl,x\n'
        "c,2024-01-01,view,plain,\n"
    )
    log, report = load_events(path, "fedcart", secret=b"secret")
    assert set(log.frame["item"]) == {"lamp, small", '12" vinyl', "plain"}
    assert not report.found("malformed")


def test_a_stray_latin_1_description_does_not_stop_a_load(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"consumer,timestamp,event,item,note\na,2024-01-01,view,lamp,5\xa3\n")
    log, _ = load_events(path, "fedcart", secret=b"secret")
    assert len(log) == 1


def test_a_byte_order_mark_is_not_part_of_a_column_name(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("\ufeff" + GOOD, encoding="utf-8")
    assert len(load_events(path, "fedcart", secret=b"secret")[0]) == 2_000


@pytest.mark.parametrize("secret", [b"", bytes(65)])
def test_a_secret_of_impossible_length_is_refused(secret: bytes) -> None:
    with pytest.raises(ConfigError, match="secret"):
        pseudonym("ann", secret)
