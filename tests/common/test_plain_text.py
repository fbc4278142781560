"""Words of others can do nothing where they are shown: no escape, no second line, no turned text, no formula."""

from __future__ import annotations

import csv
import io
import logging

import pytest
from hypothesis import given, strategies as st

from common.errors import BadInputError, ConfigError
from common.local_log import local_log
from common.pages.rendering import templates
from common.plain_text import cell, is_word, require_word, shown, word_or
from common.run import RunPlan
from common.run.files import RunFolder

HOSTILE = (
    "a\x1b[2J", "a\x1b]8;;http://x\x07", "a\x9b2J", "a\nb", "a\r\nerror: b", "a\x00", "a\x08\x08b", "a\u202eb", "a\u2066b\u2069",
    "a\u200bb", "a\u2028b", "a\u2029b", "a\ufeffb", "a\u00a0b", "a\U000e0041", "a\ud800", "a\x7f", "a\tb", "a\u061cb", "a\x85b",
)  # fmt: skip
FORMULAS = (
    "=cmd|'/c calc'!A1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "'=1",
    '"=1',
    "\n=1",
    "＝1",
    "  @x",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_not_printable_is_written_out(text):
    found = shown(text)
    assert found.isprintable()
    assert found != text
    assert "\\" in found


@given(st.text())
def test_whatever_is_shown_is_one_printable_line_and_plain_text_is_left_alone(text):
    found = shown(text)
    assert found == "" or found.isprintable()
    assert len(found.splitlines()) <= 1
    assert not text.isprintable() or found == text


def test_a_long_text_is_cut_and_the_cut_is_marked():
    assert shown("x" * 200, 10) == "x" * 10 + "..."
    assert shown("\x1b" * 200, 10) == "\\x1b" * 10 + "..."
    assert shown(None) == "None"


@pytest.mark.parametrize(
    "text",
    [*HOSTILE, *FORMULAS, "", " a", "a ", "-a", ".a", "a/b", "<b>", "a'b", "x" * 101, None, 5, b"a", "ä", "a\n"],
)
def test_no_such_text_is_a_name(text):
    assert not is_word(text)
    assert word_or(text, "other") == "other"
    with pytest.raises(BadInputError) as caught:
        require_word("run", text)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("text", ["a", "demo-2", "0.1.0", "north_1", "my shop", "x" * 100])
def test_a_plain_name_is_one(text):
    assert require_word("run", text) == text


@pytest.mark.parametrize("text", FORMULAS)
def test_no_spreadsheet_takes_a_cell_for_a_formula(text):
    out = io.StringIO()
    csv.writer(out).writerow([cell(text), cell(-1.5), cell(3)])
    first, number, count = next(csv.reader(io.StringIO(out.getvalue())))
    assert first.startswith("'")
    assert first.isprintable()
    assert (number, count) == ("-1.5", "3")


def test_an_ordinary_cell_stays_as_it_is():
    assert [cell(x) for x in ("north", "a=b", "1-2", None, 0.5)] == ["north", "a=b", "1-2", None, 0.5]


def test_a_log_has_no_line_that_was_not_written_as_one(tmp_path):
    local_log(tmp_path / "log.txt").info("refused: %s", "x\n2026-01-01T00:00:00Z connected \x1b[2J\u202e")
    lines = (tmp_path / "log.txt").read_text("utf-8").splitlines()
    assert len(lines) == 2
    assert lines[1] == "  2026-01-01T00:00:00Z connected \\x1b[2J\\u202e"
    logging.getLogger(f"fedcart:{(tmp_path / 'log.txt').absolute()}").handlers.clear()


def test_a_note_is_one_harmless_line(tmp_path):
    folder = RunFolder(tmp_path)
    folder.add_note("site x runs version \x1b[2J\nsite y joins")
    assert folder.notes() == ["site x runs version \\x1b[2J\\nsite y joins"]


def test_a_page_escapes_and_turns_nothing():
    text = templates().from_string("<p>{{ name }}</p>").render(name="<script>\u202e\x1b\nb")
    assert text == "<p>&lt;script&gt;\\u202e\\x1b\nb</p>"


def test_a_plan_whose_run_has_no_plain_name_is_not_read():
    plain = '{"run": "demo\\u001b[2J", "settings": "{}", "populations": [["a", 10]], "features": "{}", "parameters": 1, "noise_multiplier": 1.0, "evaluation_noise": 1.0}'
    with pytest.raises(ConfigError):
        RunPlan.from_json(plain)
    assert RunPlan.from_json(plain.replace("\\u001b[2J", "-1")).run == "demo-1"
