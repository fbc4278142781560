"""Thresholds: they follow the drift, ignore an attack, and learn from labels."""

import numpy as np
import pytest

from client.anomalies.thresholds import adaptive_thresholds, cross_validated
from common.errors import BadInputError


def test_adaptive_thresholds_follow_the_drift_and_are_not_moved_by_an_attack():
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(60), 50)
    scores = rng.random(3000) + day / 120
    times = day * 86_400_000_000
    limits = adaptive_thresholds(scores, times, 0.05, 10)
    assert limits[day == 20].mean() < limits[day == 40].mean() < limits[day == 59].mean()
    assert abs(((scores >= limits)[day > 12]).mean() - 0.05) < 0.06  # it lags behind by half its days
    attacked = np.where((day == 30) & (np.arange(3000) % 2 == 0), 50.0, scores)
    after = adaptive_thresholds(attacked, times, 0.05, 10)
    assert after[day == 31].max() < 2
    assert len(adaptive_thresholds(np.zeros(0), np.zeros(0, dtype=np.int64), 0.01, 30)) == 0


def test_a_cross_validated_threshold_separates_what_can_be_separated():
    labels = np.arange(40) % 4 == 0
    found = cross_validated(np.where(labels, 2.0, 1.0), labels)
    assert (found.threshold, found.f1) == (pytest.approx(1.5), 1.0)
    for single in (np.zeros(40, dtype=bool), np.ones(40, dtype=bool)):
        with pytest.raises(BadInputError, match="every consumer is labelled"):
            cross_validated(np.arange(40.0), single)
