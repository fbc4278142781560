"""``fedcart segments``: table, audience and page tell the same, without ids unless they are asked for."""

from __future__ import annotations

import json
import re
import stat

import polars as pl
import pytest

from cli import main as front
from tests.scoring_samples import config_of, market, write_events, write_model_folder

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    path = tmp_path_factory.mktemp("segments")
    write_model_folder(path / "model", config_of(), market().catalogue)
    events = write_events(market().log, path / "shop.csv")
    frame = pl.read_csv(events, infer_schema=False)
    frame.with_columns(
        pl.when(pl.col("consumer").str.ends_with("1")).then(pl.lit("<b>mail")).alias("utm")
    ).write_csv(path / "utm.csv")
    return str(path / "model"), str(path / "utm.csv")


@pytest.fixture(autouse=True)
def _own_state(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path_factory.getbasetemp() / "state"))


def test_table_audience_and_page_tell_the_same(places, tmp_path, capsys):
    out, page = tmp_path / "audience.csv", tmp_path / "segments.html"
    words = ["segments", *places, "--k", "3", "--days", "10", "--campaign", "utm", "--page", str(page), "--json"]
    assert front.main([*words, "--audience", "2", "--out", str(out)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert sum(one["consumers"] for one in said["segments"]) == said["consumers"] == 160
    second = said["segments"][1]
    table = pl.read_csv(out, infer_schema=False)
    assert table.height == second["consumers"] and set(table["name"]) == {second["name"]}
    assert all(re.fullmatch("[0-9a-f]{16}", who) for who in table["consumer"])
    assert {one["campaign"] for one in said["campaigns"]} == {None, "<b>mail"}
    html = page.read_text()
    assert second["name"] in html and "t-SNE" in html and "PCA" in html
    assert "&lt;b&gt;mail" in html and "<b>mail" not in html
    assert "http" not in re.sub(r"Content-Security-Policy|http-equiv|http://www.w3.org/2000/svg", "", html)
    assert not any(who in html for who in table["consumer"])
    assert front.main(words) == 2  # the page is there already
    assert front.main([*words[:-3], "--audience", second["name"], "--with-ids", "--out", str(out), "--force"]) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert all(who.startswith("c") and len(who) == 17 for who in pl.read_csv(out)["consumer"])
    shown = capsys.readouterr()
    assert "bought since" in shown.out and "by campaign" in shown.out and "agreement" in shown.err


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--audience", "2"], "an audience needs a file"),
        (["--audience", "9", "--out", "x.csv"], "no segment '9'"),
        (["--campaign", "nothing"], "--campaign takes a column"),
        (["--days", "99999999999"], "days reach back"),
        (["--page", "x.svg"], "x.svg"),
        (["--days", "400"], "consumers have events before"),
    ],
)
def test_what_cannot_be_done_is_said_plainly(places, tmp_path, monkeypatch, capsys, extra, words):
    monkeypatch.chdir(tmp_path)
    assert front.main(["segments", *places, "--k", "3", *extra]) == 2
    said = capsys.readouterr().err
    assert words in said and "hint:" in said and "Traceback" not in said
