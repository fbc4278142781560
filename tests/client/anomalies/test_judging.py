"""A detection and what people said of it: one line of a file cannot switch the detector off."""

import numpy as np
import pytest

from client.anomalies.detection import Thresholding, detect
from client.anomalies.evidence import Verdict
from client.anomalies.feedback import read_verdicts
from client.anomalies.judging import judged, oddest
from client.scoring.consumers import LocalLog
from client.scoring.model import open_model
from tests.scoring_samples import config_of, market, write_model_folder


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue, market().log, steps=60)
    return detect(open_model(path), market(0.25).log, Thresholding("fixed", at=0.5))


def test_one_line_of_a_file_says_no_and_only_that_consumer_is_quiet(found, tmp_path):
    worst = max(oddest(found).items(), key=lambda pair: pair[1][0])[0]
    log = LocalLog(market(0.25).log, bytes(32), 0)
    (tmp_path / "no.csv").write_text(f"consumer,verdict\n{worst:016x},normal\n")
    after, notes, warning = judged(found, read_verdicts(tmp_path / "no.csv", log, oddest(found)))
    assert found.alarms().sum() - after.alarms().sum() == 1
    consumers = found.scored.sequences.consumers
    assert not after.alarms()[consumers == np.uint64(worst)].any()
    assert after.level == found.level
    assert "leave the threshold where it is" in notes[0]
    assert "1 consumers are quiet" in notes[1]
    assert warning == ""


def test_a_file_that_says_no_to_everybody_moves_the_threshold_within_bounds_and_is_warned_of(found):
    consumers = found.scored.sequences.consumers
    seen = oddest(found)
    everybody = [
        Verdict(int(c), False, *seen[int(c)], number=n + 1) for n, c in enumerate(consumers) if int(c) in seen
    ]
    after, notes, warning = judged(found, everybody)
    assert found.level < after.level <= found.level * 3.0001
    assert "move the threshold by +" in notes[0]
    assert after.alarms().sum() == 0
    assert "left no alarm" in warning


def test_without_verdicts_nothing_changes(found):
    after, notes, warning = judged(found, [])
    assert after is found
    assert not notes and not warning


def test_a_consumer_quietened_is_heard_again_when_twice_as_odd(found):
    seen = oddest(found)
    who, (score, threshold, ends) = max(seen.items(), key=lambda pair: pair[1][0])
    little = [Verdict(who, False, score / 3, threshold, ends, number=1)]
    after, *_ = judged(found, little)
    assert after.alarms().sum() == found.alarms().sum()
