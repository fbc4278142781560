"""How a run ended: completed needs a sum, and rounds without one are counted."""

from __future__ import annotations

import pytest

from common.errors import BadInputError
from common.run.files import RunFolder
from common.run.records import (
    COMPLETED,
    FAILED,
    STOPPED,
    RoundRecord,
    Summary,
    checked_status,
    sums_in,
    without_sum,
)

GOOD, LOST = RoundRecord(1), RoundRecord(2, aborted="too-few-share")
CLOSING = RoundRecord(3, kind="evaluate")


@pytest.mark.parametrize(
    ("status", "records", "wanted"),
    [
        (COMPLETED, [GOOD, LOST, CLOSING], COMPLETED),
        (COMPLETED, [LOST, LOST], FAILED),
        (COMPLETED, [LOST, LOST, CLOSING], FAILED),  # a closing evaluation trains nothing
        (STOPPED, [LOST], STOPPED),
        (COMPLETED, [], COMPLETED),  # a run of no rounds
    ],
)
def test_completed_needs_a_sum(status, records, wanted):
    assert checked_status(status, records) == wanted


def test_rounds_without_a_sum_are_counted_with_their_reason():
    assert sums_in([GOOD, LOST, CLOSING]) == (2, 1)
    assert without_sum([GOOD, LOST, CLOSING]) == "1 of 2 rounds gave no sum (too-few-share)"
    assert without_sum([GOOD, CLOSING]) == ""


def test_a_summary_survives_its_file(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.summary() is None
    written = Summary(
        STOPPED, rounds=3, sums=2, epsilon={"a": 1.5}, notes=("x",), metrics={"released": {"loss": 1.0}}
    )
    folder.write_summary(written)
    assert folder.summary() == written


def test_a_summary_of_another_version_is_refused(tmp_path):
    (tmp_path / "summary.json").write_text('{"status": "completed", "verdict": 3}')
    with pytest.raises(BadInputError, match="not what this version writes"):
        RunFolder(tmp_path).summary()
