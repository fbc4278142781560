"""``fedcart watch``: JSON lines or CSV in, alarms out, kept for review; whatever else a stream contains is named and passed."""

import io
import json
import types

import pytest

from cli import main as front
from client.anomalies.alarms import AlarmBook
from client.anomalies.evidence import Verdict
from client.anomalies.verdicts import VerdictBook
from client.anomalies.watching import read_events
from common.data.events import EventLog
from common.errors import BadInputError
from tests.scoring_samples import config_of, market, write_events, write_model_folder

pytestmark = pytest.mark.full

BOT = [(f"2024-07-01T10:00:{n:02d}", f"item-{n % 7 + 1:02d}") for n in range(24)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path, config_of(), market().catalogue, market().log, steps=60)
    write_events(EventLog(market().log.frame.head(1_800)), path / "past.csv")
    return path


def run(folder, tmp_path, monkeypatch, text, *more, code=0):
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert front.main(["watch", str(folder), *more]) == code


def test_a_bot_is_reported_once_in_words_and_kept_for_review(folder, tmp_path, monkeypatch, capsys):
    header = "consumer,timestamp,event,item\n"
    text = header + "".join(f"robot,{when},view,{item}\n" for when, item in BOT)
    run(folder, tmp_path, monkeypatch, text, "--events", str(folder / "past.csv"))
    said = capsys.readouterr()
    assert "bot" in said.out
    assert "driven by view item-" in said.out
    assert "robot" not in said.out  # a pseudonym
    kept = AlarmBook(tmp_path / "state").alarms()
    assert {alarm.kind for alarm in kept} == {"bot"}
    assert f"{len(kept)} alarms, 0 unusable lines" in said.err
    assert len(kept) == said.out.count("consumer ") <= 2


def test_json_lines_in_and_out_and_unusable_lines_are_named(folder, tmp_path, monkeypatch, capsys):
    good = [json.dumps({"consumer": "robot", "timestamp": w, "event": "view", "item": i}) for w, i in BOT]
    text = "\n".join(["{", *good[:12], "nonsense", '{"consumer": "x"}', *good[12:]]) + "\n"
    run(folder, tmp_path, monkeypatch, text, "--events", str(folder / "past.csv"), "--json")
    said = capsys.readouterr()
    alarms = [json.loads(line) for line in said.out.splitlines()]
    assert alarms
    assert {"kind", "score", "threshold", "limit", "reasons", "events"} <= alarms[0].keys()
    assert "past.csv" in alarms[0]["limit"]
    for line in (1, 14, 15):
        assert f"line {line} left out" in said.err
    assert "3 unusable lines" in said.err


def test_what_people_said_counts_and_no_alarm_left_is_warned_of(folder, tmp_path, monkeypatch, capsys):
    VerdictBook(tmp_path / "state").say([Verdict(n, False, 3.0, 0.5) for n in range(300)])
    run(folder, tmp_path, monkeypatch, "", "--events", str(folder / "past.csv"))
    assert "verdicts leave no alarm" in capsys.readouterr().err


def test_without_a_past_it_says_what_to_give(folder, tmp_path, monkeypatch, capsys):
    run(folder, tmp_path, monkeypatch, "", code=2)
    assert "--events" in capsys.readouterr().err


def test_csv_cells_are_read_by_the_header_and_odd_lines_refused():
    lines = ["timestamp,Event,consumer,item", '1,view,"a,b",', "1,view", '"', "x" * 70_000]
    read = [value for _, value in read_events(lines)]
    assert read[0] == {"timestamp": "1", "event": "view", "consumer": "a,b", "item": None}
    assert all(isinstance(value, BadInputError) for value in read[1:])
    assert [number for number, _ in read_events(["", "[]", "7"])] == [2, 3]


def test_a_no_that_is_said_while_it_watches_counts_from_the_next_event_on(folder, tmp_path, monkeypatch, capsys):
    def lines():
        yield "consumer,timestamp,event,item\n"
        for number, (when, item) in enumerate(BOT):
            alarms = AlarmBook(tmp_path / "state").alarms()
            if number == 12 and alarms:
                loud = alarms[0]
                VerdictBook(tmp_path / "state").say([Verdict(loud.consumer, False, 9.0, 1.0, loud.time, loud.id)])
            yield f"robot,{when},view,{item}\n"

    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))
    written = lines()
    stream = types.SimpleNamespace(readline=lambda _most: next(written, ""))
    monkeypatch.setattr("sys.stdin", stream)
    assert front.main(["watch", str(folder), "--events", str(folder / "past.csv")]) == 0
    assert len(AlarmBook(tmp_path / "state").alarms()) == 1
    assert "1 alarms" in capsys.readouterr().err


def test_half_a_character_or_an_endless_number_costs_one_line_and_not_the_watch(
    folder, tmp_path, monkeypatch, capsys
):
    bad = '{"consumer": "\\ud800", "timestamp": "2024-07-01T10:00:00", "event": "view", "item": "item-01"}\n'
    text = bad + bad.replace("\\ud800", "c").replace('"item-01"', f'"item-01", "price": {10**400}')
    run(folder, tmp_path, monkeypatch, text, "--events", str(folder / "past.csv"))
    assert "0 alarms, 1 unusable lines" in capsys.readouterr().err
