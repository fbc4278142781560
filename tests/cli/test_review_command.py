"""``fedcart review`` on the command line: list, undo, forget."""

import json
import socket

import pytest

from cli import main as front
from client.anomalies.evidence import Verdict
from client.anomalies.verdicts import FILE, VerdictBook
from client.scoring.consumers import local_key
from common.data import pseudonym


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "state"))
    book = VerdictBook(tmp_path / "state")
    who = pseudonym("c17", local_key(tmp_path / "state"))
    book.say([Verdict(who, False, 1.5, 1.0, 5), Verdict(3, True, 2.0, 1.0, 5), Verdict(who, True, 1.5, 1.0, 6)])
    return tmp_path / "state"


def asked(capsys, *words, code=0):
    assert front.main(["review", "any-model", *words]) == code
    return capsys.readouterr()


def test_verdicts_are_listed_with_quality_and_what_they_did(home, capsys):
    said = asked(capsys, "--list").out
    assert "said otherwise later" in said
    assert "precision 1.00 (0.34 to 1.00)" in said
    assert "2 verdicts on 2 consumers move the threshold by -1.4%" in said
    facts = json.loads(asked(capsys, "--list", "--json").out)
    assert (facts["verdicts"], facts["counting"]) == (3, 2)
    assert [line["counts"] for line in facts["said"]] == [True, True, False]


def test_a_verdict_is_undone_once(home, capsys):
    assert "verdict 2 is taken back" in asked(capsys, "--undo", "2").out
    assert "no verdict 2 that stands" in asked(capsys, "--undo", "2", code=2).err
    assert "undone" in asked(capsys, "--list").out


def test_a_consumer_is_forgotten_by_id_or_pseudonym(home, capsys):
    assert "2 verdicts and 0 alarms removed" in asked(capsys, "--forget", "c17").out
    assert json.loads(asked(capsys, "--forget", f"{3:016x}", "--json").out)["verdicts"] == 1
    assert "consumer" not in (home / FILE).read_text()


def test_two_wishes_at_once_are_refused(home, capsys):
    assert "at once" in asked(capsys, "--undo", "2", "--list", code=2).err


def test_an_empty_book_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEDCART_STATE_DIR", str(tmp_path / "none"))
    assert "nobody has judged" in asked(capsys, "--list").out
    assert not (tmp_path / "none").exists()


def test_a_port_that_is_taken_is_refused_before_anything_is_served(home, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = asked(capsys, "--port", str(taken.getsockname()[1]), code=2)
    assert "cannot be used" in said.err
