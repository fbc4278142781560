"""``--source``: what is checked, described and simulated is what the query gives, and nothing of it is left behind."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from pathlib import Path

import pytest

from cli.main import main
from common.errors import BadInputError
from common.run import build_config
from simulations.prepare import deal_data

pytest.importorskip("adbc_driver_sqlite", reason="the extra sql is not installed")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of a database of 300 consumers at four sites."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with sqlite3.connect(tmp_path / "shop.db") as base:
        base.execute("CREATE TABLE events (consumer, timestamp, event, item, site)")
        rows = [
            (
                f"c{i % 300}",
                f"2024-03-{1 + i % 28:02d} {i % 24:02d}:00:{i % 60:02d}",
                "view",
                f"i{i % 11}",
                f"s{i % 300 % 4}",
            )
            for i in range(3_000)
        ]
        base.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
    base.close()
    path = tmp_path / "shop.toml"
    path.write_text(
        '[source]\nkind = "sql"\ndriver = "sqlite"\nuri = "shop.db"\nquery = "SELECT * FROM events;"\n'
    )
    return path


def test_check_reads_as_many_lines_as_it_is_told(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--source", str(told), "--limit", "70", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lines"] == 70


def test_describe_reads_all_of_it_and_leaves_nothing(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "describe", "--source", str(told), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["events"] == 3_000
    assert not list((told.parent / "scratch").iterdir())


def test_a_simulation_deals_what_the_query_gives(told: Path) -> None:
    world = deal_data(build_config({"data": {"source": str(told)}}))
    assert world.partition.names == ("s0", "s1", "s2", "s3") and world.data["events"] == 3_000
    assert not world.config.data.events and not list((told.parent / "scratch").iterdir())


@pytest.mark.parametrize("words", [[], ["shop.csv", "--source", "shop.toml"]])
def test_neither_or_both_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", *words]) == 2
    assert "--source" in capsys.readouterr().err


def test_both_in_settings_are_refused(told: Path) -> None:
    with pytest.raises(BadInputError, match="both given"):
        deal_data(build_config({"data": {"source": str(told), "events": str(told)}}))


@pytest.mark.parametrize(("text", "words"), [("x = 1\n", "no table"), ('[source]\nkind = "sql"\n', "source")])
def test_a_table_that_is_missing_or_wrong_is_named(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    assert main(["data", "check", "--source", str(path)]) == 2
    assert words in capsys.readouterr().err
