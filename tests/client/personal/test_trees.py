"""Own trees as plain arrays: they say what scikit-learn's say, and a forged file of them does not hang."""

from __future__ import annotations

import numpy as np
import pytest

from client.personal.intent import auc_verdict
from client.personal.trees import Trees
from client.personal.verdict import ALONE, PERSONAL, SHARED
from common.model.intent_baselines import fitted_trees


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(600, 7))
    table[rng.random(table.shape) < 0.2] = np.nan
    table[:, 3] = 1.0  # says nothing, is left out
    labels = (np.nan_to_num(table[:, 0]) * np.nan_to_num(table[:, 1]) > rng.normal(0, 0.3, 600)).astype(float)
    return table, labels


def test_arrays_say_what_scikit_learn_says(table):
    rows, labels = table
    fitted, columns = fitted_trees(rows[:400], labels[:400])
    trees = Trees.from_tensors(Trees.of(fitted, columns, 0.5).to_tensors())
    assert 3 not in trees.columns
    assert np.allclose(trees.probability(rows), fitted.predict_proba(rows[:, columns])[:, 1], atol=1e-12)


def test_with_nothing_to_learn_everybody_has_the_share(table):
    rows, _ = table
    fitted, columns = fitted_trees(rows, np.ones(600))
    assert np.allclose(Trees.of(fitted, columns, 0.25).probability(rows), 0.25)


@pytest.mark.parametrize("damage", ["circle", "outside", "column"])
def test_forged_trees_are_refused(table, damage):
    fitted, columns = fitted_trees(*table)
    arrays = Trees.of(fitted, columns, 0.5).to_tensors()
    inner = int(np.flatnonzero(arrays["trees.leaf"] == 0)[0])
    name, value = {"circle": ("left", 0), "outside": ("right", 10**6), "column": ("feature", 99)}[damage]
    arrays[f"trees.{name}"][inner] = value
    with pytest.raises(ValueError, match="trees"):
        Trees.from_tensors(arrays)


def test_the_error_of_an_auc_is_about_that_of_many_draws():
    rng = np.random.default_rng(3)
    values, errors, gains = [], [], []
    for _ in range(200):
        labels = (rng.random(300) < 0.3).astype(float)
        scores = labels + rng.normal(0, 1.2, 300)
        worse = scores + rng.normal(0, 1.0, 300)
        found = auc_verdict({ALONE: worse, SHARED: worse, PERSONAL: scores}, labels, "x")
        values.append(found.figures[PERSONAL].value)
        errors.append(found.figures[PERSONAL].error)
        gains.append((found.gain.value, found.gain.error))
    assert np.std(values) == pytest.approx(np.mean(errors), rel=0.2)
    assert np.std([g for g, _ in gains]) == pytest.approx(np.mean([e for _, e in gains]), rel=0.2)


def test_an_auc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(5)
    labels, scores = (rng.random(200) < 0.4).astype(float), rng.integers(0, 9, 200).astype(float)
    found = auc_verdict(dict.fromkeys((ALONE, SHARED, PERSONAL), scores), labels, "x")
    assert found.figures[ALONE].value == pytest.approx(roc_auc_score(labels, scores))
    assert found.gain.value == 0.0
