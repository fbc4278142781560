"""``fedcart evaluate`` and ``fedcart explain --top``: table, file and picture tell the same."""

from __future__ import annotations

import json
import stat
import xml.dom.minidom

import polars as pl
import pytest

from cli import main as front
from tests.scoring_samples import config_of, market, original_name, write_events, write_model_folder

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate")
    write_model_folder(path / "model", config_of(), market().catalogue)
    return str(path / "model"), str(write_events(market().log, path / "shop.csv"))


@pytest.fixture(autouse=True)
def _own_state(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path_factory.getbasetemp() / "state"))


def test_table_file_and_picture_tell_the_same_and_say_whose_figures_they_are(places, tmp_path, capsys):
    assert front.main(["evaluate", *places, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["label"] == "your site's own" and set(said["next"]) == {"event", "category"}
    out, plot = tmp_path / "pairs.csv", tmp_path / "pairs.svg"
    assert front.main(["evaluate", *places, "--what", "event", "--out", str(out), "--plot", str(plot)]) == 0
    shown = capsys.readouterr().out
    event = said["next"]["event"]
    assert (
        f"{event['accuracy']:.1%}" in shown
        and f"{event['macro']['f1']:.3f}" in shown
        and "your own consumers" in shown
    )
    assert pl.read_csv(out)["count"].sum() == event["asked"]
    assert "predicted" in xml.dom.minidom.parse(str(plot)).toxml()
    assert front.main(["evaluate", *places, "--plot", str(tmp_path / "both.svg")]) == 2
    assert "a picture shows one confusion" in capsys.readouterr().err


def test_the_most_probable_items_are_explained_side_by_side(places, tmp_path, capsys):
    who = original_name(int(market().log.consumers[3]))
    out = tmp_path / "why.svg"
    words = ["explain", who, *places, "--about", "item"]
    assert front.main([*words, "--top", "3", "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    names = [one["choice"] for one in said["choices"]]
    assert len(set(names)) == 3
    shares = [one["probability"] for one in said["choices"]]
    assert shares == sorted(shares, reverse=True)
    assert front.main([*words, "--choice", names[1], "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    beside = [line["contributions"][names[1]] for line in said["events"]]
    assert beside == pytest.approx([line["contribution"] for line in alone["events"]])
    drawn = xml.dom.minidom.parse(str(out)).toxml()
    assert all(name in drawn for name in names) and stat.S_IMODE(out.stat().st_mode) == 0o600
    assert front.main([*words, "--top", "3"]) == 0
    assert names[2] in capsys.readouterr().out
    assert front.main([*words, "--top", "3", "--choice", names[0]]) == 2
    assert front.main(["explain", who, *places, "--about", "intent", "--top", "3"]) == 2
    assert "has no choices to compare" in capsys.readouterr().err
