"""Verdicts of a person: they move the threshold no further than needed and are remembered privately."""

import stat

import pytest

from client.anomalies.feedback import Label, moved_threshold, recall, remember
from common.errors import BadInputError


def test_verdicts_move_the_threshold_no_further_than_needed():
    def verdicts(**said: bool) -> dict[int, Label]:
        return {int(n[1:]): Label(int(n[1:]), odd, int(n[1:]) / 10) for n, odd in said.items()}

    assert moved_threshold(0.5, {}, {}) == 0.5
    assert moved_threshold(0.5, verdicts(s6=False), {}) == pytest.approx(0.6, abs=0.01)  # a false alarm: higher
    assert moved_threshold(0.5, verdicts(s3=True), {}) == pytest.approx(0.3)  # a missed one: lower
    assert moved_threshold(0.5, verdicts(s3=False, s7=True), {}) == 0.5  # all as it was said
    assert moved_threshold(0.5, verdicts(s6=False), {6: 0.2}) == 0.5  # the score of now counts
    unscored = {1: Label(1, True, float("nan"))}
    assert moved_threshold(0.5, unscored, {}) == 0.5


def test_verdicts_are_remembered_privately_and_the_latest_counts(tmp_path):
    remember(tmp_path, [Label(7, True, 0.5), Label(9, False, float("nan"))])
    remember(tmp_path, [Label(7, False, 0.6)])
    known = recall(tmp_path)
    assert (known[7].anomaly, known[7].score, known[9].anomaly) == (False, 0.6, False)
    assert stat.S_IMODE((tmp_path / "feedback.jsonl").stat().st_mode) == 0o600
    (tmp_path / "feedback.jsonl").write_text("{nonsense\n")
    with pytest.raises(BadInputError, match="damaged"):
        recall(tmp_path)
