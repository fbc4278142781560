"""``fedcart stock``: table, file and picture tell the same; logs that end in empty days; files that cannot be used."""

from __future__ import annotations

import json
import xml.dom.minidom
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from cli import main as front
from tests.sales_samples import DAYS, START, WEEK, lines, write_log, write_model


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return str(folder)


def test_a_steady_item_is_planned_exactly_and_table_file_and_picture_tell_the_same(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "shop.csv", lines())
    assert front.main(["stock", model, log, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (tea,) = said["items"]
    assert tea["forecast"] == pytest.approx(WEEK.sum(), rel=0.05)  # its own level and its category's, weighed
    assert said["site"] == pytest.approx(tea["forecast"])
    assert said["begins"] == "2024-04-22"
    (tmp_path / "hand.csv").write_text("item,stock\nt1,5\nspare,2\n")
    out, plot = tmp_path / "plan.csv", tmp_path / "plan.svg"
    words = ["stock", model, log, "--on-hand", str(tmp_path / "hand.csv"), "--out", str(out), "--plot", str(plot)]
    assert front.main(words) == 0
    assert "all items together: " in capsys.readouterr().out
    table = pl.read_csv(out)
    assert table["item"].to_list() == ["t1", "spare"]
    assert table["order"][0] == pytest.approx(2 * WEEK.sum() - 5, abs=4)
    assert table["last_sale"].to_list() == ["2024-04-21", "never"]
    drawn = xml.dom.minidom.parse(str(plot))
    assert "t1" in drawn.toxml() and not drawn.getElementsByTagName("script")
    assert front.main(words) == 2  # there already


def test_a_log_that_ends_in_empty_days_is_no_collapse_and_that_is_said(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = str(START + timedelta(days=DAYS + 20))
    log = write_log(tmp_path / "shop.csv", [*lines(), ("c1", later, "view", "t1", "tea", 2.5, 1)])
    for command in ("stock", "forecast"):
        assert front.main([command, model, log, "--json"]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["begins"] == "2024-04-22"
        assert "goes on for 21 days without a sale" in said.err and "not for a collapse" in said.err
        assert front.main([command, model, log, "--json", "--until", later[:10]]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["begins"] == "2024-05-13"
        assert "they count as days without sales" in said.err
    assert json.loads(said.out)["forecast"][0]["quantity"] < WEEK[0]


def test_names_that_act_on_a_terminal_or_a_page_are_spelt_out(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "shop.csv", [(*line[:3], "\x1b[31m<b>\u202e", *line[4:]) for line in lines()])
    assert front.main(["stock", model, log, "--plot", str(tmp_path / "plan.svg")]) == 0
    drawn = (tmp_path / "plan.svg").read_text()
    xml.dom.minidom.parseString(drawn)  # a control character is no XML
    assert "\x1b" not in capsys.readouterr().out + drawn and "\u202e" not in drawn and "<b>" not in drawn


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("item,pieces\nt1,5\n", "lacks the columns item and stock"),
        ("item,stock\nt1,many\n", "line 2: 't1' has a stock of 'many'"),
        ("item,stock\nt1,nan\n", "has a stock of 'nan'"),
        ("item,stock\nt1,5\nt1,6\n", "line 3: 't1' is there twice"),
        ("item,stock\n", "holds no item"),
        (None, "cannot read"),
    ],
)
def test_a_stock_file_that_cannot_be_used_is_refused_before_the_work(
    text: str | None, words: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "hand.csv").write_text(text)
    assert front.main(["stock", model, "nowhere.csv", "--on-hand", str(tmp_path / "hand.csv")]) == 2
    said = capsys.readouterr().err
    assert words in said and "hint:" in said
