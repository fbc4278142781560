"""The streaming scorer: equal to the batch, bounded in memory, indifferent to what a stream contains."""

import io
import itertools
import json

import numpy as np
import pytest

from cli import main as front
from client.anomalies.likelihood import surprise
from client.scoring.lines import LONGEST, DriftingLevel, bounded, follow
from client.scoring.model import open_model
from client.scoring.stream import StreamEvent, StreamScorer
from common.data.events import EventLog, load_events
from common.errors import BadInputError
from tests.scoring_samples import config_of, market, write_events, write_model_folder

KEY = bytes(range(32))
GRU = {"encoder": "gru", "dim": 10, "hidden": 6, "layers": 2, "heads": {"next-item": 1.0, "next-event": 1.0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue, market().log, steps=60)
    return path


@pytest.fixture(scope="module")
def shared(folder):
    return open_model(folder)


@pytest.fixture(scope="module")
def part():
    """A few consumers' events as a file has them, and as the batch loads them."""
    return EventLog(market().log.frame.head(600))


def _lines(log):
    names = ("timestamp", "event", "item", "category", "price")
    frame = log.frame.with_columns(log.frame["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%S%.6f").alias("timestamp"))
    for row in frame.iter_rows(named=True):
        yield {"consumer": f"c{row['consumer']:016x}", **{name: row[name] for name in names}}


@pytest.mark.parametrize("settings", [{}, {"task": "next-behaviour", "model": GRU}])
def test_one_event_after_another_gives_the_same_nats_as_the_batch(folder, tmp_path, part, settings):
    write_model_folder(tmp_path / "model", config_of(**settings), market().catalogue)
    shared = open_model(tmp_path / "model") if settings else open_model(folder)
    log, _ = load_events(write_events(part, tmp_path / "part.csv"), secret=KEY)
    sequences = shared.sequences(log, max_events=1_000)
    expected = surprise(shared, sequences)
    scorer = StreamScorer(shared, key=KEY)
    got: dict[int, list[list[float]]] = {}
    for line in sorted(_lines(part), key=lambda line: line["timestamp"]):  # consumers interleaved, as they come
        scored = scorer.push(scorer.parse(line))
        got.setdefault(scored.consumer, []).append([scored.nats[name] for name in expected.heads])
    for row, consumer in enumerate(sequences.consumers):
        begin, end = sequences.offsets[row : row + 2]
        np.testing.assert_allclose(np.array(got[int(consumer)]), expected.nats[begin:end], rtol=2e-4, atol=2e-4)


def test_a_warm_scorer_goes_on_where_the_log_ended(shared, part, tmp_path):
    lines = list(_lines(part))
    by_consumer = {who: list(rows) for who, rows in itertools.groupby(lines, key=lambda line: line["consumer"])}
    last = {who: rows[-1] for who, rows in by_consumer.items() if len(rows) > 5}
    cold = StreamScorer(shared, key=KEY)
    for line in lines:
        if line is not last.get(line["consumer"]):
            cold.push(cold.parse(line))
    keep = [line is not last.get(line["consumer"]) for line in lines]
    earlier = EventLog(part.frame.filter(keep))
    warm = StreamScorer(shared, key=KEY)
    recent = warm.warm(load_events(write_events(earlier, tmp_path / "earlier.csv"), secret=KEY)[0])
    assert len(warm) == len(by_consumer)
    assert np.isfinite(recent).all()
    for line in last.values():
        a, b = cold.push(cold.parse(line)), warm.push(warm.parse(line))
        assert a.position == b.position
        assert a.surprise == pytest.approx(b.surprise, abs=1e-3)
        assert a.recent == pytest.approx(b.recent, abs=1e-3)


def test_memory_is_bounded_and_the_consumer_seen_longest_ago_is_forgotten_first(shared):
    scorer = StreamScorer(shared, capacity=3)
    for number, who in enumerate("abcad"):
        scorer.push(scorer.event(who, f"2024-01-01T00:00:{number:02d}", "view", item="item-01"))
    assert (len(scorer), scorer.forgotten) == (3, 1)
    again = scorer.push(scorer.event("a", "2024-01-01T00:01:00", "view"))
    gone = scorer.push(scorer.event("b", "2024-01-01T00:01:00", "view"))
    assert (again.position, gone.position) == (2, 0)


def test_a_clock_that_jumps_back_counts_as_no_pause(shared):
    scorer = StreamScorer(shared)
    scorer.push(scorer.event("a", "2024-01-05T00:00:00", "view"))
    scored = scorer.push(scorer.event("a", "2024-01-01T00:00:00", "view"))
    assert np.isfinite(scored.surprise)


def test_unseen_items_are_unknown_and_not_an_error(shared):
    scorer = StreamScorer(shared)
    assert (
        scorer.event("a", "2024-01-05", "view", item="never sold", category="none", price=-3).features["item"] == 0
    )
    event = scorer.event("a", 1_700_000_000, "view", item="item-01", price="nan")
    assert isinstance(event, StreamEvent)
    assert event.features["price"] == 0


@pytest.mark.parametrize(
    "line",
    [
        {"timestamp": 1709287200, "event": "view"},
        {"consumer": " ", "timestamp": 1709287200, "event": "view"},
        {"consumer": "a", "event": "view"},
        {"consumer": "a", "timestamp": "yesterday", "event": "view"},
        {"consumer": "a", "timestamp": 1e30, "event": "view"},
        {"consumer": "a", "timestamp": 1709287200, "event": "dance"},
        {"consumer": "a", "timestamp": 1709287200, "event": "view", "price": "dear"},
    ],
)
def test_an_unreadable_event_is_refused_and_changes_nothing(shared, line):
    scorer = StreamScorer(shared)
    with pytest.raises(BadInputError):
        scorer.push(scorer.parse(line))
    assert len(scorer) == 0


def test_a_stream_survives_every_malformed_line(shared):
    good = json.dumps({"consumer": "a", "timestamp": 1709287200, "event": "view", "item": "item-01"})
    bad = [
        "{",
        "7",
        "[]",
        "null",
        '"x"',
        '{"consumer": "a"}',
        "x" * 70_000,
        "[" * 10_000,
        "\x00",
        '{"consumer": {}}',
    ]
    lines = [good, *bad, "", "  ", good]
    answers = list(follow(lines, StreamScorer(shared), DriftingLevel(0.01)))
    assert [answer["line"] for answer in answers if "error" in answer] == list(range(2, 2 + len(bad)))
    assert [answer["position"] for answer in answers if "error" not in answer] == [0, 1]
    assert all(json.loads(json.dumps(answer)) == answer for answer in answers)


def test_the_level_drifts_with_the_usual_and_ignores_an_attack():
    level = DriftingLevel(0.1)
    assert level.level is None
    for value in np.linspace(1, 2, 200):
        level.add(float(value))
    first = level.level
    assert first == pytest.approx(1.9, abs=0.01)
    for _ in range(1_000):
        level.add(50.0)
    assert level.level == first
    for value in np.linspace(2, 3, 5_000):
        level.add(float(value))
    assert level.level > 2.5


def test_detect_follow_answers_line_by_line_with_pseudonyms(folder, part, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))
    events = write_events(part, tmp_path / "part.csv")
    lines = list(_lines(part))[:3]
    text = "\n".join([json.dumps(lines[0]), "garbage", *map(json.dumps, lines[1:])]) + "\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert front.main(["detect", str(folder), str(events), "--follow"]) == 0
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [("error" in answer) for answer in answers] == [False, True, False, False]
    assert lines[0]["consumer"] not in out
    assert answers[0]["position"] > 0  # the log was remembered
    assert "1 unusable lines" in err
    assert front.main(["detect", str(folder)]) == 2
    assert "no event log given" in capsys.readouterr().err


@pytest.mark.parametrize("consumer", [7, None])
def test_one_busy_consumer_does_not_make_its_own_ways_usual(consumer):
    """Without knowing whose they are, values just below twice the level raise it again and again: nobody is heard of any more."""
    rng = np.random.default_rng(1)
    level = DriftingLevel(0.01, rng.exponential(size=5_000))
    before = level.level
    for number in range(20_000):
        level.add(float(rng.exponential()), 1_000 + number % 900)
        if number % 20 == 0:
            level.add(1.9 * level.level, consumer)
    assert (level.level < 1.2 * before) is (consumer is not None)


def test_the_threshold_still_follows_what_becomes_usual_for_many():
    rng = np.random.default_rng(1)
    level = DriftingLevel(0.01, rng.exponential(size=5_000))
    before = level.level
    for number in range(20_000):
        level.add(1.5 * float(rng.exponential()), number % 900)
    assert level.level == pytest.approx(1.5 * before, rel=0.15)


def test_of_a_line_without_end_only_a_beginning_is_held():
    short, last = "a" * (LONGEST - 1) + "\n", "no newline"
    read = list(bounded(io.StringIO(f"{short}{'b' * 5 * LONGEST}\n\n{short}{last}")))
    assert [read[0], *read[2:]] == [short, "\n", short, last]
    assert LONGEST < len(read[1]) < LONGEST + 9
    assert len(list(bounded(io.StringIO("b" * 2 * LONGEST)))) == 1
