"""``fedcart help``, errors as JSON, the schema of what is printed, and completion."""

import json
import re
import sys
from pathlib import Path

import click
import pytest

import cli.show as show
from cli import main as front
from cli.topics import TOPICS
from common import errors
from common.strict_json import SCHEMA
from tests.test_docs import parse

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "code", "word"),
    [
        (["audit", "show", "nowhere"], 2, "bad-input"),
        (["audit", "shwo"], 2, "bad-usage"),
        (["nothing"], 2, "bad-usage"),
        (["simulate", "--rounds", "x"], 2, "bad-usage"),
        (["simulate", "--set", "nothing.here=1"], 2, "bad-config"),
    ],
)
def test_with_json_an_error_is_one_object_on_stderr_under_the_same_exit_code(capsys, words, code, word):
    assert front.main(words) == code
    plain = capsys.readouterr().err.splitlines()
    assert front.main([*words, "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    told = json.loads(err.splitlines()[-1])
    assert set(told) == {"schema", "error", "hint", "code"}
    assert (told["code"], told["schema"]) == (word, SCHEMA)
    assert [f"error: {told['error']}", f"hint: {told['hint']}"] == plain


def test_an_interrupt_and_a_bug_are_told_as_json_too(monkeypatch, capsys):
    monkeypatch.delenv("FEDCART_DEBUG", raising=False)
    for error, code, word in (
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("x\n\x1b[2J"), 1, "unexpected"),
    ):
        monkeypatch.setattr(front, "build", lambda error=error: _Door(error))
        assert front.main(["x", "--json"]) == code
        err = capsys.readouterr().err
        assert json.loads(err)["code"] == word
        assert "\x1b" not in err and err.count("\n") == 1


class _Door:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def main(self, *_words: object, **_named: object) -> None:
        raise self.error


def test_a_file_that_is_called_json_does_not_change_how_errors_are_told(capsys):
    assert front.main(["audit", "show", "--", "--json"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_every_object_that_is_printed_says_its_schema_and_a_list_stays_a_list(capsys):
    show.print_json({"a": 1})
    assert json.loads(capsys.readouterr().out) == {"schema": SCHEMA, "a": 1}
    show.print_json([1])
    assert json.loads(capsys.readouterr().out) == [1]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_is_short_names_documents_that_exist_and_commands_that_do(topic, capsys):
    assert front.main(["help", topic]) == 0
    text = capsys.readouterr().out
    assert text == TOPICS[topic].text
    assert 3 <= len(text.splitlines()) <= 12
    for name in re.findall(r"docs/[\w-]+\.md", text):
        assert (ROOT / name).is_file()
    for call in re.findall(r"^  (fedcart .*?)(?:   |$)", text, re.M):
        parse(call)


def test_help_of_a_command_is_what_the_command_says_itself(capsys):
    for words in (["simulate"], ["audit", "papers"], ["site", "status"], ["audit"]):
        front.main(["help", *words])
        mine = capsys.readouterr().out
        front.main([*words, "--help"])
        own = capsys.readouterr().out
        assert " ".join(mine.split()) == " ".join(own.split())


def test_help_alone_lists_every_topic_and_a_misspelt_one_gets_a_guess(capsys):
    assert front.main(["help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in TOPICS)
    assert front.main(["help", "bugdet"]) == 2
    assert "did you mean budget" in capsys.readouterr().err
    assert front.main(["help", "epsilon", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == TOPICS["epsilon"].text


def test_the_words_and_exit_codes_of_the_topics_are_those_of_the_errors():
    kinds = [
        one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.FedcartError)
    ]
    listed = {int(line.split()[0]) for line in TOPICS["exit-codes"].text.splitlines() if line[:1].isdigit()}
    assert listed == {0, front.INTERRUPTED, front.BAD_USAGE, *(kind.exit_code for kind in kinds)}
    named = re.search(r"fixed word: (.*), \.\.\.", TOPICS["json"].text)[1].split(", ")
    assert set(named) <= {*(kind.code for kind in kinds), "bad-usage", "interrupted", "unexpected"}


@pytest.mark.parametrize(
    ("line", "offered"),
    [("fedcart au", {"audit"}), ("fedcart audit pa", {"papers"}), ("fedcart audit papers --de", {"--details"})],
)
def test_the_shell_is_offered_commands_and_options(monkeypatch, capsys, line, offered):
    monkeypatch.setenv("_FEDCART_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    monkeypatch.setattr(sys, "argv", ["fedcart"])
    with pytest.raises(SystemExit) as end:
        front.main()
    assert end.value.code == 0
    assert {row.split(",")[1] for row in capsys.readouterr().out.splitlines()} == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_of_the_topic_gets_its_script(monkeypatch, capsys, shell):
    assert f"_FEDCART_COMPLETE={shell}_source fedcart" in TOPICS["completion"].text
    monkeypatch.setenv("_FEDCART_COMPLETE", f"{shell}_source")
    monkeypatch.setattr(click.shell_completion.BashComplete, "_check_version", staticmethod(lambda: None))
    with pytest.raises(SystemExit):
        front.main([])
    out = capsys.readouterr().out
    assert "_fedcart_completion" in out and "fedcart" in out
