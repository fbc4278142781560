"""A hostile site's words in its answers, and a hostile folder's in the audit: none reaches a person with its power."""

from __future__ import annotations

import pytest

import cli.show as show
from common.errors import BadInputError
from common.privacy.attestation import Attestation, SignedAttestation
from common.privacy.mechanism import PrivacyEvent
from common.trust.identity import Identity
from server.app import HELLO, _proven
from server.deployed import _word
from server.exchange import Answer, Exchange
from server.secure_sum import SumOutcome
from tests.common.test_plain_text import FORMULAS, HOSTILE
from tests.server.test_exchange import ScriptedGrid

WORDS = (*HOSTILE, *FORMULAS, "<script>alert(1)</script>", "x" * 5_000, 7, b"\x1b", ["a"], {"a": 1}, None)


@pytest.mark.parametrize("word", [w for w in WORDS if isinstance(w, str | int | bytes)])
def test_the_error_word_of_a_site_is_a_plain_word_or_failed(word):
    if isinstance(word, str) and not word.isprintable() and "\ud800" in word:
        pytest.skip("no message can carry half a character")
    exchange = Exchange(ScriptedGrid({5: {"error": word}}), {"a": 5})
    answer = exchange.ask("share", {"a": {"x": 1}}, deadline_s=0.2, group="1.1")["a"]
    assert answer.error == "failed"


@pytest.mark.parametrize("rule", WORDS)
def test_the_rule_that_a_site_names_is_a_plain_word_or_left_out(rule):
    assert _word("policy", {"rule": rule}) == "policy"
    outcome = SumOutcome({})
    outcome.note("a", "advertise", Answer("a", {"rule": rule}, "policy"))
    assert outcome.sites["a"].reason == "policy"
    assert _word("policy", {"rule": "epsilon_max"}) == "policy epsilon_max"


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.mark.parametrize("version", WORDS)
def test_the_version_of_a_site_is_a_plain_word_or_unknown(version):
    from types import SimpleNamespace

    from common.trust.identity import Roster

    site, coordinator = Identity.generate("north"), Identity.generate("coordinator")
    roster = Roster.signed_by(coordinator, [("north", site.public_key)], None)
    plan = SimpleNamespace(run="r", sites=("north",))
    notes = Notes()
    parts = {"site": "north", "signature": site.sign(HELLO + b"r/5"), "version": version}
    assert _proven(parts, plan, roster, 5, notes) == "north"
    assert "runs version unknown" in notes.said[0]


@pytest.mark.parametrize("name", ["site", "scope", "run"])
@pytest.mark.parametrize("word", [w for w in WORDS if isinstance(w, str) and "\ud800" not in w])
def test_an_attestation_names_nothing_but_plain_words(name, word):
    identity = Identity.generate("north")
    event = (PrivacyEvent(1.0, 0.1, 1),)
    said = Attestation(
        "north", "north", "r", 1, 1, "ab" * 32, event, event, 1, "ab" * 32, 0.0, 1.0, 8.0, False, 1e-5, 8.0, False
    )
    SignedAttestation.from_json(SignedAttestation.sign(said, identity).to_json())
    written = SignedAttestation.sign(said, identity).to_json()
    written["attestation"][name] = word
    with pytest.raises(BadInputError):
        SignedAttestation.from_json(written)


@pytest.mark.parametrize("word", [w for w in HOSTILE if "\ud800" not in w])
def test_what_the_program_prints_is_one_plain_line(capsys, word):
    show.line(f"run {word}")
    show.note(f"note {word}")
    show.warning(f"warning {word}")
    show.table("", ("name",), [(word,)])
    written = capsys.readouterr()
    assert len(written.err.splitlines()) == 2
    assert all(one.isprintable() for one in (written.out + written.err).split("\n"))


def test_the_error_of_a_command_is_one_plain_line(capsys):
    from cli.main import _explain, _say_json

    _explain(BadInputError("no run \x1b[2J\nerror: all well", hint="see \u202ex"))
    assert capsys.readouterr().err == "error: no run \\x1b[2J\\nerror: all well\nhint: see \\u202ex\n"
    _explain(BadInputError("no run \x1b[2J\nerror: all well", hint="see \u202ex"), _say_json)
    told = capsys.readouterr().err
    assert told.isascii() and told.count("\n") == 1 and "\x1b" not in told


def test_a_page_spells_out_what_acts_also_where_a_filter_or_a_drawing_brings_it():
    from markupsafe import Markup

    from common.pages.rendering import templates

    page = templates().from_string("<p>{{ value|upper }}</p>\n{{ drawing }}")
    text = page.render(value="\u202e<b>\x9b31m", drawing=Markup("<svg>\x1b[2J\u2028</svg>"))
    assert text == "<p>\\u202e&lt;B&gt;\\x9b31M</p>\n<svg>\\x1b[2J\\u2028</svg>"
