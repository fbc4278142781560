"""Anomaly detection: likelihood profiles, windows, thresholds, feedback, quality on injected anomalies."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from cli import main as front
from client.anomalies.detection import Thresholding, detect, evaluate
from client.anomalies.detectors import Detector, per_consumer, profile_log
from client.anomalies.likelihood import surprise
from client.anomalies.windows import FEWEST, OWN, WINDOW, cut_windows, habits
from client.scoring.consumers import load_local
from client.scoring.model import open_model
from common.data.events import EventLog
from common.errors import BadInputError
from common.model.batch import Batcher
from common.model.targets import whole_rows
from tests.scoring_samples import config_of, market, original_name, write_events, write_model_folder

KEY = bytes(range(32))
ODD = 0.25


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue, market().log, steps=60)
    return path


@pytest.fixture(scope="module")
def shared(folder):
    return open_model(folder)


@pytest.fixture(scope="module")
def scored(shared):
    return profile_log(shared, market(ODD).log)


@pytest.fixture(scope="module")
def labels():
    return {int(c): str(k) for c, k in market(ODD).labels.select("consumer", "kind").iter_rows()}


@pytest.fixture(autouse=True)
def _own_state(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))


def test_the_surprise_of_an_event_is_the_models_loss_on_it(shared):
    sequences = shared.sequences(market().log)
    found = surprise(shared, sequences)
    for row in (2, 50):
        begin, end = sequences.offsets[row : row + 2]
        batch = Batcher(sequences, found.heads, whole_rows(sequences)).packed(np.array([row]))
        with torch.no_grad():
            hidden = shared.model.hidden_states(batch)
            for column, name in enumerate(found.heads):
                loss = shared.model.heads[name].step_losses(hidden, batch.targets[name], batch).numpy()[:-1]
                nats = found.nats[begin + 1 : end, column]
                np.testing.assert_allclose(np.nan_to_num(nats), loss, rtol=1e-4, atol=1e-4)
        assert np.isnan(found.nats[begin]).all()  # nothing came before the first event
        np.testing.assert_allclose(found.hidden[begin:end], hidden.numpy(), rtol=1e-4, atol=1e-5)


def test_windows_cover_every_event_and_the_newest_events_are_a_whole_window(scored):
    windows, offsets = scored.windows, scored.sequences.offsets
    covered = np.zeros(offsets[-1], dtype=bool)
    for begin, end in zip(windows.begin, windows.end, strict=True):
        covered[begin:end] = True
        assert FEWEST <= end - begin <= WINDOW
    long = np.diff(offsets) >= FEWEST
    assert covered.sum() == np.diff(offsets)[long].sum()
    for row in np.flatnonzero(long):
        mine = windows.row == row
        assert windows.end[mine].max() == offsets[row + 1]


def test_the_likeness_to_the_own_past_agrees_with_counting_by_hand(shared, scored):
    sequences, windows, common = scored.sequences, scored.windows, habits(scored.sequences)
    found = cut_windows(sequences, surprise(shared, sequences), common)
    column = found.names.index("unlike_own_category")
    values = sequences.column("category")
    for w in np.flatnonzero(windows.past > 10)[:5]:
        start, begin, end = sequences.offsets[windows.row[w]], windows.begin[w], windows.end[w]
        share = common.shares["category"]
        total = 0.0
        for value in values[begin:end]:
            own = ((values[start:begin] == value).sum() + 5 * share[value]) / (begin - start + 5)
            total += np.log(share[value]) - np.log(own)
        assert found.profile[w, column] == pytest.approx(total / (end - begin))
    first = windows.past == 0
    assert np.allclose(found.ratio[first], 0)  # without a past nobody is unlike themselves
    assert len(OWN) == 5


def test_injected_anomalies_are_found_and_the_profile_beats_the_hidden_state(shared, labels):
    found = detect(shared, market(ODD).log, Thresholding("fixed", at=0.5))
    quality = {row.kind: row for row in evaluate(found, labels)}
    kinds = [row for name, row in quality.items() if name in set(labels.values())]
    assert len(kinds) == 4
    ours = np.mean([row.auc["ours"] for row in kinds])
    assert ours >= 0.83
    assert ours > np.mean([row.auc["hidden+forest"] for row in kinds])
    assert ours > np.mean([row.auc["hidden+lof"] for row in kinds])


def test_a_clean_reference_makes_copies_of_one_attack_stand_out(shared, labels):
    alone = detect(shared, market(ODD).log, Thresholding("fixed"))
    apart = detect(shared, market(ODD).log, Thresholding("fixed"), reference=market().log)
    odd = np.array([int(c) in labels for c in apart.scored.sequences.consumers])
    assert apart.alarms()[odd].mean() > alone.alarms()[odd].mean()
    assert apart.alarms()[odd].mean() > 0.7


def test_scores_are_zero_for_the_usual_and_above_one_for_what_never_occurred(scored):
    detector = Detector(scored.windows.profile)
    usual = detector.score(scored.windows.profile)
    assert np.median(usual) < 0.2
    strange = scored.windows.profile.max(0, keepdims=True) * 5 + 5
    assert detector.score(strange)[0] > 1
    np.testing.assert_array_equal(usual, Detector(scored.windows.profile).score(scored.windows.profile))
    with pytest.raises(BadInputError, match="too few"):
        Detector(scored.windows.profile[:5])


def test_a_clock_that_jumps_back_or_a_short_log_gives_a_defined_result(shared):
    frame = market().log.frame.head(400)
    shifted = frame.with_columns(pl.col("timestamp") - pl.duration(days=pl.col("item").is_null() * 900))
    found = profile_log(shared, EventLog.from_frame(shifted))
    assert np.isfinite(found.windows.profile).all()
    lonely = EventLog.from_frame(frame.head(1))
    nothing = profile_log(shared, lonely)
    assert len(nothing.windows) == 0
    assert np.isnan(per_consumer(nothing.windows, np.zeros(0), 1)[0]).all()
    with pytest.raises(BadInputError, match="too few"):
        detect(shared, lonely, Thresholding())


@pytest.mark.full
def test_detect_reports_remembers_verdicts_and_writes_files(folder, tmp_path, capsys):
    events = write_events(market(ODD).log, tmp_path / "shop.csv")
    labelled = tmp_path / "labels.csv"
    names = [original_name(int(c)) for c in market(ODD).labels["consumer"]]
    pl.DataFrame({"consumer": names, "kind": market(ODD).labels["kind"].cast(pl.String)}).write_csv(labelled)
    command = ["detect", str(folder), str(events)]
    assert front.main([*command, "--labels", str(labelled), "--threshold", "cross-validated"]) == 0
    said = capsys.readouterr().out
    assert "quality on your labels" in said
    assert "account-takeover" in said
    assert front.main([*command, "--json", "--threshold", "fixed"]) == 0
    before = json.loads(capsys.readouterr().out)
    worst = max(before["scores"], key=lambda line: line["score"])["consumer"]
    (tmp_path / "verdicts.csv").write_text(f"consumer,verdict\n{worst},normal\n")
    assert (
        front.main([*command, "--json", "--threshold", "fixed", "--feedback", str(tmp_path / "verdicts.csv")]) == 0
    )
    capsys.readouterr()
    assert front.main([*command, "--json", "--threshold", "fixed"]) == 0  # remembered without the file
    after = json.loads(capsys.readouterr().out)
    assert after["threshold"]["level"] == before["threshold"]["level"]  # not moved by one line
    assert after["alarms"] == before["alarms"] - 1
    assert next(x for x in after["scores"] if x["consumer"] == worst)["verdict"] == "normal"
    for per in ("window", "event", "consumer"):
        out = tmp_path / f"{per}.parquet"
        assert front.main([*command, "--per", per, "--out", str(out)]) == 0
        assert not set(pl.read_parquet(out)["consumer"]) & set(names)
    assert pl.read_parquet(tmp_path / "event.parquet").height == len(market(ODD).log)


def test_detect_prints_the_highest_scores_with_pseudonyms(folder, tmp_path, capsys):
    events = write_events(EventLog(market().log.frame.head(1_500)), tmp_path / "shop.csv")
    assert front.main(["detect", str(folder), str(events)]) == 0
    said = capsys.readouterr().out
    assert "highest scores" in said
    assert "adaptive threshold" in said
    assert original_name(int(market().log.consumers[0])) not in said


@pytest.mark.parametrize(
    ("files", "arguments", "said"),
    [
        ({}, ["--threshold", "cross-validated"], "needs labels"),
        ({"f.csv": "consumer,verdict\nnobody,normal\n"}, ["--feedback", "f.csv"], "no usable event"),
        ({"f.csv": "consumer,verdict\nnobody,maybe\n"}, ["--feedback", "f.csv"], "verdict 'maybe'"),
        ({"f.csv": "consumer,word\na,b\n"}, ["--feedback", "f.csv"], "lacks the columns verdict"),
        ({"l.csv": "consumer,kind\nnobody,bot\n"}, ["--labels", "l.csv"], "no consumer of"),
        ({"l.csv": ""}, ["--labels", "l.csv"], "is empty"),
        ({}, ["--reference", "missing.csv"], "no such file"),
        ({}, ["--per", "planet"], "planet"),
    ],
)
def test_bad_input_of_detect_ends_with_exit_code_2(folder, tmp_path, monkeypatch, capsys, files, arguments, said):
    monkeypatch.chdir(tmp_path)
    events = write_events(EventLog(market().log.frame.head(300)), tmp_path / "shop.csv")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert front.main(["detect", str(folder), str(events), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_model_that_does_not_predict_behaviour_cannot_detect(tmp_path, shared):
    intent_only = config_of(task="purchase-intent", model={"dim": 8, "hidden": 8})
    write_model_folder(tmp_path, intent_only, market().catalogue)
    with pytest.raises(BadInputError, match="does not predict behaviour"):
        profile_log(open_model(tmp_path), market().log)


def test_originals_are_not_kept_unless_asked_for(tmp_path):
    events = write_events(EventLog(market().log.frame.head(50)), tmp_path / "shop.csv")
    assert load_local(events, "", KEY).originals == {}
