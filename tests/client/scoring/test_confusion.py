"""Precision, recall, F1 and confusion: as scikit-learn has them, of the event that was held back."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from client.scoring.confusion import check_next, checkable, class_figures, confusion_table
from client.scoring.confusion_picture import MOST_CLASSES, draw
from client.scoring.model import open_model
from client.scoring.predict import class_name, predict_next
from common.data.events import EventLog
from common.errors import BadInputError
from tests.scoring_samples import config_of, market, write_model_folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue)
    return open_model(path)


def last_and_before(log: EventLog) -> tuple[pl.DataFrame, EventLog]:
    """A plain way to the same: the last event of each consumer with two or more, and the log without it."""
    frame = log.frame.with_columns(
        pl.int_range(pl.len()).over("consumer").alias("n"), pl.len().over("consumer").alias("all")
    )
    frame = frame.filter(pl.col("all") > 1)
    last = frame.filter(pl.col("n") == pl.col("all") - 1)
    return last, EventLog(frame.filter(pl.col("n") < pl.col("all") - 1).drop("n", "all"))


@pytest.mark.parametrize("what", ["event", "category"])
def test_figures_are_those_of_scikit_learn_over_the_events_that_were_held_back(shared, what):
    found = check_next(shared, market().log, what)
    last, before = last_and_before(market().log)
    told = predict_next(shared, shared.sequences(before), what, 1)
    said = [class_name(shared, what, int(c)) for c in told.choices[:, 0]]
    came = last[what].cast(pl.String).to_list()
    pairs = [(a, b) for a, b in zip(came, said, strict=True) if a]
    truth, chosen = zip(*pairs, strict=True)
    names = [one.name for one in found.classes]
    assert found.asked == len(pairs) > 50
    np.testing.assert_array_equal(found.confusion, confusion_matrix(truth, chosen, labels=names))
    precision, recall, f1, asked = precision_recall_fscore_support(truth, chosen, labels=names, zero_division=0)
    assert [one.asked for one in found.classes] == asked.tolist()
    np.testing.assert_allclose(
        [np.nan_to_num([one.precision, one.recall, one.f1]) for one in found.classes],
        np.stack([precision, recall, f1], 1),
    )
    present = sorted(set(truth))
    macro = precision_recall_fscore_support(truth, chosen, labels=present, average="macro", zero_division=0)[:3]
    weighted = precision_recall_fscore_support(truth, chosen, labels=present, average="weighted", zero_division=0)[
        :3
    ]
    assert found.macro == pytest.approx(macro) and found.weighted == pytest.approx(weighted)
    assert found.accuracy == pytest.approx(np.mean(np.array(truth) == np.array(chosen)))
    assert found.majority == pytest.approx(max(map(truth.count, present)) / len(truth))
    assert sum(confusion_table(found)["count"]) == found.asked


def test_a_class_that_never_came_or_was_never_predicted_has_no_figure():
    never, gone = class_figures(np.array([[0, 0], [3, 0]]), ["never came", "never predicted"])
    assert np.isnan(never.recall) and never.precision == 0 and never.f1 == 0
    assert np.isnan(gone.precision) and gone.recall == 0


def test_the_picture_adds_up_what_it_does_not_show(shared):
    from dataclasses import replace

    names = [f"<k{i}>" for i in range(30)]
    matrix = np.arange(900).reshape(30, 30)
    found = check_next(shared, market().log, "event")
    drawn = draw(replace(found, classes=class_figures(matrix, names), confusion=matrix))
    assert "others" in drawn and f"{matrix[MOST_CLASSES - 1 :, MOST_CLASSES - 1 :].sum():,}" in drawn
    assert "<k0>" not in drawn and "&lt;k0&gt;" in drawn


def test_a_model_without_the_head_and_a_log_of_single_events_are_refused(shared, tmp_path):
    write_model_folder(
        tmp_path,
        config_of(task="next-behaviour", model={"dim": 8, "hidden": 8, "heads": {"next-item": 1.0}}),
        market().catalogue,
    )
    other = open_model(tmp_path)
    assert checkable(other) == () and checkable(shared) == ("event", "category")
    with pytest.raises(BadInputError, match="does not predict the next event"):
        check_next(other, market().log, "event")
    single = EventLog(market().log.frame.unique("consumer", keep="first", maintain_order=True))
    with pytest.raises(BadInputError, match="no consumer's last event"):
        check_next(shared, single, "event")
