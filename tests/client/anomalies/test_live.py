"""Live alarms: one event at a time gives the scores of the batch, in bounded memory, each alarm with its why."""

from dataclasses import replace

import numpy as np
import pytest

from client.anomalies.alarms import AlarmBook
from client.anomalies.detection import Thresholding, detect
from client.anomalies.detectors import profile_log
from client.anomalies.evidence import Verdict
from client.anomalies.live import LiveDetector
from client.anomalies.usual import Usual
from client.anomalies.windows import WINDOW
from client.scoring.model import open_model
from client.scoring.stream import StreamEvent, StreamScorer
from common.data.events import EventLog
from common.errors import BadInputError
from simulations.anomalies import KINDS
from tests.scoring_samples import config_of, market, write_model_folder

pytestmark = pytest.mark.full

PART = 32  # consumers


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue, market().log, steps=60)
    return open_model(path)


@pytest.fixture(scope="module")
def usual(shared):
    return Usual.of(profile_log(shared, market().log), "last month")


@pytest.fixture(scope="module")
def log():
    whole = market(0.25).log
    return EventLog(whole.frame.head(int(whole.offsets[PART])))


def events_of(shared, log):
    """All events of a log as a stream has them, by time."""
    sequences = shared.sequences(log, max_events=10_000)
    names = sequences.integer_names
    owner = np.repeat(sequences.consumers, sequences.lengths)
    for i in np.argsort(sequences.timestamps, kind="stable"):
        features = dict(zip(names, sequences.integers[i].tolist(), strict=True)) | {"gap": 0}
        yield StreamEvent(int(owner[i]), int(sequences.timestamps[i]), features)


@pytest.fixture(scope="module")
def stream(shared, log):
    """The events of the log with the model's view of each."""
    scorer = StreamScorer(shared)
    return [(event, scorer.push(event)) for event in events_of(shared, log)]


@pytest.fixture(scope="module")
def followed(shared, usual, stream):
    """(scores by consumer and event number, alarms) of the log taken event by event."""
    live = LiveDetector(shared, usual, rate=0.05)
    scores, alarms = {}, []
    for event, scored in stream:
        alarm = live.take(event, scored)
        scores[event.consumer, scored.position] = live.score
        alarms += [alarm] if alarm is not None else []
    return scores, alarms


def test_the_score_behind_an_event_is_the_batch_score_of_the_window_that_ends_with_it(shared, log, followed):
    batch = detect(shared, log, Thresholding("adaptive", rate=0.05), reference=market().log)
    windows, sequences = batch.scored.windows, batch.scored.sequences
    live = [
        followed[0][int(sequences.consumers[row]), int(end - sequences.offsets[row]) - 1]
        for row, end in zip(windows.row, windows.end, strict=True)
    ]
    assert len(live) > 100
    np.testing.assert_allclose(live, batch.scores, rtol=1e-3, atol=2e-3)


def test_live_alarms_are_about_those_whom_the_batch_reports(shared, log, followed):
    batch = detect(shared, log, Thresholding("adaptive", rate=0.05), reference=market().log)
    reported = set(batch.scored.sequences.consumers[batch.alarms()].tolist())
    live = {alarm.consumer for alarm in followed[1]}
    assert len(reported & live) >= 0.8 * len(reported)


def test_an_alarm_says_what_it_is_nearest_to_what_drove_it_and_against_what(followed):
    kinds = {int(c): str(k) for c, k in market(0.25).labels.select("consumer", "kind").iter_rows()}
    right = [alarm.kind == kinds[alarm.consumer] for alarm in followed[1] if alarm.consumer in kinds]
    assert len(right) >= 6
    assert np.mean(right) > 0.6
    for alarm in followed[1]:
        assert alarm.score >= alarm.threshold > 0
        assert alarm.kind in (*KINDS, "unclear")
        assert "5.0% of" in alarm.limit
        assert "of last month" in alarm.limit
        assert 3 <= len(alarm.events) <= WINDOW
        assert alarm.events[-1].time == alarm.time
        assert sum(event.drove for event in alarm.events) == pytest.approx(alarm.score)
        assert len(alarm.reasons) == 3


def test_a_consumer_is_reported_again_only_when_no_event_was_part_of_the_last_alarm(followed):
    last = {}
    for alarm in followed[1]:
        assert alarm.position - last.get(alarm.consumer, -WINDOW) >= WINDOW
        last[alarm.consumer] = alarm.position


def test_a_warm_detector_goes_on_where_the_log_ended(shared, usual, log):
    log = EventLog(log.frame.head(int(log.offsets[12])))
    scored = profile_log(shared, log)
    warm, scorer = LiveDetector(shared, usual), StreamScorer(shared)
    warm.warm(scored)
    scorer.warm(log)
    cold, other = LiveDetector(shared, usual), StreamScorer(shared)
    for event in events_of(shared, log):
        cold.take(event, other.push(event))
    sequences = scored.sequences
    for row in range(0, 12, 3):
        end = int(sequences.offsets[row + 1]) - 1
        features = dict(zip(sequences.integer_names, sequences.integers[end].tolist(), strict=True))
        event = StreamEvent(int(sequences.consumers[row]), int(sequences.timestamps[end]) + 9_000_000, features)
        warm.take(event, scorer.push(event))
        cold.take(event, other.push(event))
        assert warm.score == pytest.approx(cold.score, rel=1e-3, abs=2e-3)


def test_memory_is_bounded_by_consumers_and_by_events(shared, usual, stream):
    live = LiveDetector(shared, usual, capacity=3)
    for event, scored in stream[:300]:
        live.take(event, scored)
    assert len(live) == 3
    assert all(len(recent.times) <= WINDOW for recent in live._kept.values())
    who = next(iter(live._kept))
    assert live.forget(who) and not live.forget(who)


def test_a_no_quietens_its_consumer_live_and_nobody_else(shared, usual, stream, followed):
    loud = followed[1][0]
    no = Verdict(loud.consumer, False, loud.score * 9, loud.threshold, loud.time, loud.id, number=1)
    live = LiveDetector(shared, usual, rate=0.05, verdicts=[no])
    alarms = [alarm for pair in stream if (alarm := live.take(*pair)) is not None]
    soon = loud.time + 30 * 86_400_000_000
    assert not [a for a in alarms if a.consumer == loud.consumer and a.time <= soon]
    others = [
        [(a.consumer, a.position) for a in these if a.consumer != loud.consumer] for these in (alarms, followed[1])
    ]
    assert others[0] == others[1]


def test_the_threshold_drifts_and_is_moved_by_verdicts(shared, usual):
    plain = LiveDetector(shared, usual)
    assert plain.left == pytest.approx(0.01, abs=0.005)
    noes = [Verdict(n, False, plain.threshold * 1.5, plain.threshold, number=n + 1) for n in range(30)]
    plain_threshold = plain.threshold
    plain.hear(noes)
    assert plain.threshold > 1.2 * plain_threshold
    assert plain.left <= 0.01


def test_alarms_are_kept_as_they_were_raised_and_forgotten_by_consumer(followed, tmp_path):
    book = AlarmBook(tmp_path / "home")
    for alarm in followed[1][:4]:
        book.add(alarm)
    assert book.alarms() == followed[1][:4][::-1]
    who = followed[1][0].consumer
    assert book.forget(who) == sum(a.consumer == who for a in followed[1][:4])
    assert who not in {a.consumer for a in book.alarms()}
    with (tmp_path / "home" / "alarms.jsonl").open("a") as file:
        file.write('{"of": "another version"}\n{"cut')
    assert len(book.alarms()) < 4


def test_of_many_alarms_the_newest_are_kept(followed, tmp_path, monkeypatch):
    monkeypatch.setattr("client.anomalies.alarms.KEPT", 6)
    first, second = AlarmBook(tmp_path), AlarmBook(tmp_path)
    many = [replace(followed[1][0], id=f"{n:012x}") for n in range(20)]
    for number, alarm in enumerate(many):
        (first, second)[number % 2].add(alarm)
    kept = first.alarms()
    assert 3 <= len(kept) <= 12
    assert kept == many[-len(kept) :][::-1]


def test_without_anything_usual_there_is_nothing_to_compare_with(shared):
    with pytest.raises(BadInputError, match="nothing says what is usual"):
        Usual.of_model(shared)
