"""Explanations: contributions add up, agree with leaving events out by hand, and become pictures."""

import json
import stat
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from cli import main as front
from client.anomalies.likelihood import surprise
from client.scoring.explain import GRADIENTS, OCCLUSION, explain
from client.scoring.model import open_model
from client.scoring.picture import AttributionBar, svg
from client.scoring.predict import intent_scores, predict_next
from common.data.events import EventLog
from common.errors import BadInputError
from common.pages.drawing import html_page
from tests.scoring_samples import config_of, market, original_name, write_events, write_model_folder

ATTENTIVE = {"pooling": "attention", "dim": 10, "hidden": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue, market().log, steps=60)
    return path


@pytest.fixture(scope="module")
def shared(folder):
    return open_model(folder)


def _one(shared, row=4):
    return shared.sequences(market().log).take(np.array([row]))


@pytest.mark.parametrize("about", ["item", "category", "event", "intent"])
def test_integrated_gradients_add_up_to_what_the_events_change(shared, about):
    found = explain(shared, _one(shared), about)
    assert found.contributions.sum() == pytest.approx(found.total - found.empty, abs=0.02)
    if about == "intent":
        score = intent_scores(shared, _one(shared))[0]
        assert found.probability == pytest.approx(score, rel=1e-4)
        assert 1 / (1 + np.exp(-found.total)) == pytest.approx(score, rel=1e-4)
    else:
        best = predict_next(shared, _one(shared), about, 1)
        assert found.probability == pytest.approx(float(best.probabilities[0, 0]), rel=1e-4)
        assert np.exp(found.total) == pytest.approx(found.probability, rel=1e-3)


def test_occlusion_is_the_change_when_an_event_is_missing(shared):
    sequences = _one(shared)
    found = explain(shared, sequences, "intent", method=OCCLUSION)
    for missing in (0, 3, int(sequences.lengths[0]) - 1):
        keep = np.arange(int(sequences.lengths[0])) != missing
        fewer = replace(
            sequences,
            offsets=np.array([0, keep.sum()]),
            integers=sequences.integers[keep],
            numeric=sequences.numeric[keep],
            timestamps=sequences.timestamps[keep],
        )
        score = intent_scores(shared, fewer)[0]
        assert found.contributions[missing] == pytest.approx(found.total - np.log(score / (1 - score)), abs=1e-3)


def test_occlusion_sees_the_copy_path_and_gradients_do_not(shared):
    sequences = _one(shared)
    item = sequences.column("item")
    once = [i for i in set(item.tolist()) - {0} if (item == i).sum() == 1]
    name = shared.item_name(once[0])
    place = int(np.flatnonzero(item == once[0])[0])
    found = explain(shared, sequences, "item", name, OCCLUSION)
    assert found.choice == name
    assert found.contributions[place] > 0.5  # without the event there is no bonus of 3


def test_an_alarm_is_explained_by_the_surprise_of_its_events(shared):
    found = explain(shared, _one(shared), "alarm", method=GRADIENTS)
    nats = np.nansum(surprise(shared, _one(shared)).nats, axis=1)
    np.testing.assert_allclose(found.contributions, nats, rtol=1e-5)
    assert found.total == pytest.approx(nats[1:].mean(), rel=1e-5)


def test_attention_shares_are_shown_where_the_model_has_them(tmp_path, shared):
    heads = {"next-item": 1.0, "purchase-intent": 1.0}
    write_model_folder(tmp_path, config_of(model={**ATTENTIVE, "heads": heads}), market().catalogue)
    attentive = open_model(tmp_path)
    found = explain(attentive, _one(attentive), "intent")
    assert found.attention.sum() == pytest.approx(1, abs=1e-5)
    assert found.contributions.sum() == pytest.approx(found.total - found.empty, abs=0.02)
    assert explain(shared, _one(shared), "intent").attention is None


def test_what_cannot_be_explained_is_refused(shared):
    with pytest.raises(BadInputError, match="fewer than two events"):
        explain(shared, shared.sequences(EventLog(market().log.frame.head(1))), "item")
    with pytest.raises(BadInputError, match="knows no item"):
        explain(shared, _one(shared), "item", "never sold")
    with pytest.raises(BadInputError, match="nothing known about"):
        explain(shared, _one(shared), "weather")


def test_a_picture_is_valid_escaped_and_without_outside_references():
    bars = [
        AttributionBar("<b>&item", 0.5, 0.25),
        AttributionBar("x" * 90, -1.0),
        AttributionBar("nothing", float("nan")),
    ]
    picture = svg("why <this> & that", "in nats", bars)
    root = ElementTree.fromstring(picture)
    texts = "".join(root.itertext())
    assert "<b>&item" in texts
    assert "+0.500" in texts
    assert "-1.000" in texts
    assert "attention 25%" in texts
    assert picture.count("http") == 1  # the name space only
    assert "<script" not in html_page("t", picture)


def test_explain_prints_a_table_and_writes_private_pictures(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))
    events = write_events(EventLog(market().log.frame.head(500)), tmp_path / "shop.csv")
    name = original_name(int(market().log.consumers[4]))
    command = ["explain", name, str(folder), str(events)]
    assert front.main(command) == 0
    out = capsys.readouterr().out
    assert "contribution" in out
    assert name not in out
    for suffix in ("svg", "html"):
        picture = tmp_path / f"why.{suffix}"
        assert front.main([*command, "--about", "alarm", "--out", str(picture)]) == 0
        assert stat.S_IMODE(picture.stat().st_mode) == 0o600
        assert name not in picture.read_text()
    capsys.readouterr()
    assert front.main([*command, "--about", "intent", "--method", "occlusion", "--json", "--with-ids"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["consumer"] == name
    assert len(shown["events"]) == 40  # the last ones, as many as the model was trained on
    assert front.main(["explain", "nobody", str(folder), str(events)]) == 2
    assert front.main([*command, "--out", str(tmp_path / "why.png")]) == 2
    assert front.main([*command, "--choice", "never sold"]) == 2
