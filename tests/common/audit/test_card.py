"""The card of a model: figures of the summary with their kind, the privacy statement, and loud words where there is no promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from common.audit.papers.card import write_cards
from common.audit.statement import make_statement
from common.model_files import METADATA_FILE, WEIGHTS_FILE, signed_document
from common.run import BEST, CARD_FILE, COMPLETED, INTERRUPTED, RunFolder, Summary
from common.trust import Identity
from tests.cli.test_audit_command import make_audited_run
from tests.guard_samples import COORDINATOR
from tests.signed_runs import signed_run

SITES = {name: Identity.from_seed(name, name.encode().ljust(32, b"-")) for name in ("north", "south")}
FIGURES = {"released": {"recall@20": 0.5}, "public": {}, "oracle": {"recall@20": 0.25}}


def with_model(folder: RunFolder, summary: Summary, **facts: object) -> str:
    """Put a model and a summary into a run folder; the card beside the model that ``facts`` are about."""
    metadata = {"rounds": 3, "which": "last", "sites": ["north"], "finished": 86_400} | facts
    place = folder.best_model if facts.get("which") == BEST else folder.path
    place.mkdir(exist_ok=True)
    (place / WEIGHTS_FILE).write_bytes(b"weights")
    (place / METADATA_FILE).write_bytes(signed_document(b"weights", [], "", metadata, COORDINATOR))
    folder.write_summary(summary)
    assert place / CARD_FILE in write_cards(folder)
    return (place / CARD_FILE).read_text()


@pytest.fixture
def private(tmp_path: Path) -> RunFolder:
    return RunFolder(make_audited_run(tmp_path / "run", rounds=1))


def test_a_card_has_the_figures_of_the_summary_with_their_kind_and_the_record_they_come_from(private):
    summary = Summary(COMPLETED, 3, 3, FIGURES, {"markov": {"recall@20": 0.125}}, {"north": 1.5, "south": 2.25})
    card = with_model(private, summary)
    assert "| Recall@20 | released | 0.5 | \\[1\\] |" in card
    assert "| Recall@20 | oracle | 0.25 |  |" in card
    assert "| markov: Recall@20 | oracle | 0.125 |  |" in card
    assert "| spent, at the site that spent most | 2.250 | 1e-05 | \\[1\\] |" in card
    assert private.metrics()[-1].digest in card
    assert json.loads((private.path / METADATA_FILE).read_text())["sha256"] in card
    assert "NOT PRIVATE" not in card and "NOT COMPLETED" not in card
    assert "**SIMULATED**" in card


def test_a_card_has_the_whole_statement(private):
    card = with_model(private, Summary(COMPLETED, epsilon={"north": 1.5}))
    statement = make_statement([], secure=None)
    for sentence in (*(s for part in statement.sections for s in part.sentences), *statement.not_covered):
        assert sentence in card


def test_shared_noise_shows_what_is_left_if_nobody_else_is_honest(private):
    card = with_model(private, Summary(COMPLETED, epsilon={"north": 1.5}, alone={"north": 6.5}))
    assert "| the same, if no other site is honest | 6.500 | 1e-05 | \\[1\\] |" in card


def test_the_card_of_the_best_model_says_whose_figures_it_shows(private):
    card = with_model(
        private, Summary(COMPLETED, metrics=FIGURES), which=BEST, chosen_by="recall@20", value=0.5, bar=0.1
    )
    assert "This one had recall@20 0.500 ± 0.100 (released)" in card
    assert not (private.path / CARD_FILE).exists()


def test_a_run_without_privacy_or_before_its_end_says_so_at_the_top(tmp_path):
    run = signed_run(RunFolder.create(tmp_path / "run"), SITES, ["privacy.enabled=false"], (0.0, 0.0))
    run.append(1, {}, private=False, aborted="lost", plausible={})
    card = with_model(run.folder, Summary(INTERRUPTED, 1, private=False))
    top = card.split("## ")[0]
    assert "**NOT PRIVATE**" in top
    assert "**NOT COMPLETED**: the run that made it is interrupted, after 1 rounds" in top
    assert "ε so far" not in card


def test_words_of_others_do_nothing_in_a_card(private):
    note = "</p><script>x</script>\n# head | \x1b[2J [a](http://b.c)"
    card = with_model(private, Summary(COMPLETED, epsilon={"north": 1.5}, notes=(note,)), sites=[note])
    tokens = MarkdownIt("commonmark").enable("table").parse(card)
    kinds = {one.type for token in tokens for one in (token, *(token.children or ()))}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "fence"}
    assert "\n# head" not in card and "\x1b" not in card
