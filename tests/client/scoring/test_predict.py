"""Opening a released model and predicting with it on a site's own log."""

import json
import stat
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

import common.extensions as extensions
from cli import main as front
from client.scoring.binary import best_threshold, binary_metrics
from client.scoring.consumers import load_local, local_key
from client.scoring.model import open_model
from client.scoring.predict import available, check_intent, intent_scores, predict_next, row_logits
from common.data.catalogue import catalogue_from_events, write_catalogue
from common.data.events import EventLog
from common.errors import BadInputError
from common.model.batch import Batcher
from common.model.heads import RowHead
from common.model.targets import INTENT, row_targets, whole_rows
from common.tasks import STEP_HEADS
from tests.guard_samples import sign_model_again
from tests.scoring_samples import config_of, market, original_name, write_events, write_model_folder

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue, market().log, steps=60)
    return path


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    return write_events(market().log, tmp_path_factory.mktemp("events") / "shop.csv")


@pytest.fixture(scope="module")
def shared(folder):
    return open_model(folder)


@pytest.fixture(autouse=True)
def _own_state(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path_factory.getbasetemp() / "state"))


def test_a_run_folder_and_either_model_file_open_the_same_model(folder):
    models = [open_model(folder / name) for name in ("", "model.safetensors", "model.json")]
    assert len({tuple(p.sum().item() for p in m.model.parameters()) for m in models}) == 1
    assert models[0].heads == ("next-category", "next-event", "next-item", "purchase-intent")
    assert not models[0].model.training


def test_predictions_are_the_models_softmax_behind_the_last_event(shared):
    sequences = shared.sequences(market().log)
    found = predict_next(shared, sequences, "item", 5)
    for row in (0, 7, 31):
        batch = Batcher(sequences, (), whole_rows(sequences)).packed(np.array([row]))
        with torch.no_grad():
            logits = shared.model.heads["next-item"].logits(shared.model.hidden_states(batch), batch)[-1]
        share, choice = torch.softmax(logits, 0).topk(5)
        np.testing.assert_array_equal(found.choices[row], choice.numpy())
        np.testing.assert_allclose(found.probabilities[row], share.numpy(), rtol=1e-4)


def test_a_trained_model_ranks_the_real_next_event_well_above_chance(shared):
    sequences = shared.sequences(market().log)
    lengths = sequences.lengths
    earlier = replace(whole_rows(sequences), lengths=np.maximum(lengths - 1, 0))
    item = sequences.column("item")[sequences.offsets[1:] - 1]
    asked = np.flatnonzero((item > 0) & (lengths > 3))
    hits = 0
    for row in asked:
        batch = Batcher(sequences, (), earlier).packed(np.array([row]))
        with torch.no_grad():
            logits = shared.model.heads["next-item"].logits(shared.model.hidden_states(batch), batch)[-1]
        hits += int(item[row] in logits.topk(5).indices.numpy())
    assert hits / len(asked) > 0.4  # chance is 5 / 40


def test_known_items_can_be_left_out_and_the_rest_sums_to_one(shared):
    sequences = shared.sequences(market().log)
    found = predict_next(shared, sequences, "item", 1_000, exclude_known=True)
    item = sequences.column("item")
    for row in range(len(sequences)):
        had = set(item[sequences.offsets[row] : sequences.offsets[row + 1]].tolist())
        assert not had & set(found.choices[row][found.probabilities[row] > 0].tolist())
        assert found.probabilities[row].sum() == pytest.approx(1, abs=1e-4)


def test_unseen_items_and_consumers_without_a_known_event_get_a_defined_prediction(shared):
    frame = (
        market().log.frame.head(6).with_columns(pl.lit("never sold").alias("item"), pl.lit(None).alias("category"))
    )
    found = predict_next(shared, shared.sequences(EventLog.from_frame(frame)), "item", 3)
    assert np.isfinite(found.probabilities).all()
    assert (found.choices > 0).all()


def test_items_that_no_site_trained_are_never_predicted(tmp_path):
    catalogue = market().catalogue
    write_model_folder(tmp_path, config_of(), catalogue)
    mask = np.zeros(len(catalogue.items) + 1, dtype=bool)
    mask[1:11] = True
    np.savez(tmp_path / "masks.npz", **{"merchant-1": mask})
    shared = open_model(tmp_path)
    found = predict_next(shared, shared.sequences(market().log), "item", 99)
    names = {shared.item_name(int(i)) for i in found.choices.ravel() if i}
    assert names <= set(catalogue.items[:10])
    assert open_model(tmp_path, site="merchant-1").rows.rows.tolist() == shared.rows.rows.tolist()
    with pytest.raises(BadInputError, match="no declared stock"):
        open_model(tmp_path, site="elsewhere")


def test_a_model_of_another_version_catalogue_or_task_is_refused(folder, tmp_path):
    with pytest.raises(BadInputError, match="no such model"):
        open_model(tmp_path / "nothing")
    other = tmp_path / "other.json"
    write_catalogue(catalogue_from_events(market().log, max_items=7), other)
    with pytest.raises(BadInputError, match="not the model's catalogue"):
        open_model(folder, catalogue=other)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("model.safetensors", "model.json"):
        (copy / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(BadInputError, match="catalogue is not at"):
        open_model(copy)
    document = json.loads((copy / "model.json").read_text())
    del document["metadata"]["plan"]["features"]
    sign_model_again(copy / "model.json", document)
    with pytest.raises(BadInputError, match="another version"):
        open_model(copy, catalogue=folder / "catalogue.json")
    (copy / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BadInputError, match="digest"):
        open_model(copy, catalogue=folder / "catalogue.json")
    plain = config_of(task="next-behaviour", model={"dim": 12, "hidden": 12, "heads": {"next-item": 1.0}})
    write_model_folder(tmp_path / "plain", plain, market().catalogue)
    with pytest.raises(BadInputError, match="no head 'purchase-intent'"):
        intent_scores(open_model(tmp_path / "plain"), open_model(folder).sequences(market().log))
    assert available(open_model(tmp_path / "plain")) == ("item",)


def test_intent_reads_the_same_part_of_a_row_as_training(shared):
    sequences = shared.sequences(market().log)
    targets = row_targets(shared.plan.config, sequences)
    scores = intent_scores(shared, sequences, targets)
    blind = replace(sequences, integers=sequences.integers.copy())
    for row, length in enumerate(targets.lengths):  # destroy what must not be read
        blind.integers[sequences.offsets[row] + length : sequences.offsets[row + 1]] = 0
    np.testing.assert_array_equal(scores, intent_scores(shared, blind, targets))


def test_the_threshold_is_chosen_on_one_half_and_measured_on_the_other(shared):
    sequences = shared.sequences(market().log)
    targets = row_targets(shared.plan.config, sequences)
    check = check_intent(shared, sequences, targets, KEY)
    assert check.validation + check.test == np.isfinite(targets.values[INTENT]).sum()
    assert 0 <= check.metrics["f1"] <= 1
    assert set(check.metrics) == set(check.trees)
    single = replace(targets, values={INTENT: np.where(np.isfinite(targets.values[INTENT]), 1.0, np.nan)})
    assert check_intent(shared, sequences, single, KEY).note.startswith("threshold 0.5: all answers are the same")


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(2)
    scores = rng.random(200).round(1)
    labels = (rng.random(200) < scores).astype(float)
    best = best_threshold(scores, labels)
    reached = binary_metrics(scores, labels, best)["f1"]
    assert all(binary_metrics(scores, labels, t)["f1"] <= reached + 1e-12 for t in np.unique(scores))


def test_pseudonyms_stay_the_same_and_original_ids_appear_only_on_request(events, tmp_path):
    key = local_key(tmp_path / "state")
    assert key == local_key(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state" / "consumers.key").stat().st_mode) == 0o600
    plain, named = load_local(events, "", key), load_local(events, "", key, with_ids=True)
    first = int(plain.log.consumers[0])
    assert plain.shown(first) == f"{first:016x}"
    assert named.shown(first).startswith("c")
    assert plain.find(named.shown(first)) == plain.find(plain.shown(first)) == first
    assert set(plain.at(first).frame["consumer"]) == {first}
    with pytest.raises(BadInputError, match="no usable event"):
        plain.find("nobody")
    assert key.hex() not in repr(plain)


def test_predict_writes_csv_jsonl_and_parquet_and_protects_original_ids(folder, events, tmp_path, capsys):
    tables = []
    for suffix in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"next.{suffix}"
        assert front.main(["predict", str(folder), str(events), "--top", "3", "--out", str(out)]) == 0
        read = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[suffix]
        tables.append(read(out).height)
    assert len(set(tables)) == 1
    assert tables[0] == 9 * len(market().log.consumers)
    out = tmp_path / "ids.csv"
    assert (
        front.main(["predict", str(folder), str(events), "--with-ids", "--what", "item", "--out", str(out)]) == 0
    )
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert original_name(int(market().log.consumers[0])) in out.read_text()
    assert original_name(int(market().log.consumers[0])) not in (tmp_path / "next.csv").read_text()
    capsys.readouterr()
    name = original_name(int(market().log.consumers[3]))
    assert front.main(["predict", str(folder), str(events), "--consumer", name, "--json", "--top", "2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["predictions"]) == 6
    assert front.main(["predict", str(folder), str(events), "--task", "intent", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["predictions"]) == len(market().log.consumers)
    assert front.main(["predict", str(folder), str(events), "--task", "intent"]) == 0
    assert "threshold chosen on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--what", "weather"], "cannot predict"),
        (["--consumer", "nobody"], "no usable event"),
        (["--out", "x.txt"], "does not end in"),
        (["--format", "yoochoose"], "error:"),
        (["--site", "elsewhere"], "no declared stock"),
        (["--catalogue", "nowhere.json"], "catalogue is not at"),
    ],
)
def test_bad_input_of_predict_ends_with_exit_code_2(folder, events, capsys, arguments, said):
    assert front.main(["predict", str(folder), str(events), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_an_empty_log_is_refused(folder, tmp_path, capsys):
    empty = tmp_path / "empty.csv"
    empty.write_text("consumer,timestamp,event,item,category,price,quantity\n")
    assert front.main(["predict", str(folder), str(empty)]) == 2
    assert "no lines" in capsys.readouterr().err


@pytest.mark.parametrize(("feature", "first"), [("weekday", "Monday"), ("hour", "00:00"), ("price", "below 0.25")])
def test_a_head_that_a_program_brought_is_predicted_in_words(
    tmp_path, monkeypatch, events, capsys, feature, first
):
    monkeypatch.setattr(extensions, "_heads", {})
    monkeypatch.setitem(STEP_HEADS, f"next-{feature}", feature)
    heads = {"next-item": 1.0, f"next-{feature}": 0.5}
    write_model_folder(
        tmp_path, config_of(task="next-behaviour", model={"dim": 8, "heads": heads}), market().catalogue
    )
    asked = ["predict", str(tmp_path), str(events), "--task", f"next-{feature}", "--top", "99", "--json"]
    assert front.main(asked) == 0
    shown = json.loads(capsys.readouterr().out)
    who = shown["predictions"][0]["consumer"]
    mine = {p["choice"]: p["probability"] for p in shown["predictions"] if p["consumer"] == who}
    assert shown["what"] == [f"next-{feature}"]
    assert first in mine
    assert sum(mine.values()) == pytest.approx(1, abs=1e-4)


def test_a_row_head_is_asked_behind_the_last_event_of_each_row(shared):
    head = RowHead(shared.model.settings.dim, classes=3)
    yes = RowHead(shared.model.settings.dim)
    sequences = shared.sequences(market().log)
    batch = Batcher(sequences, (), whole_rows(sequences)).packed(np.array([3, 9]))
    with torch.no_grad():
        pooled = shared.model.pooled(shared.model.hidden_states(batch), batch)
        for asked, width in ((head, 4), (yes, 3)):
            asker = replace(shared, model=shared.model)
            asker.model.heads["asked"] = asked
            logits = row_logits(asker, batch, "asked")
            assert logits.shape == (2, width)
            assert torch.isneginf(logits[:, 0]).all()
            expected = asked.values(pooled)
            torch.testing.assert_close(logits[:, 1:] if width == 4 else logits[:, 2], expected)
            del asker.model.heads["asked"]


def test_a_task_that_nobody_knows_is_refused_before_the_log_is_read(folder, capsys):
    assert front.main(["predict", str(folder), "nowhere.csv", "--task", "weather"]) == 2
    assert "predicts 'weather'" in capsys.readouterr().err
    assert front.main(["predict", str(folder), "nowhere.csv", "--task", "intent", "--what", "item"]) == 2
    assert "belongs to --task next" in capsys.readouterr().err
