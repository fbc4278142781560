"""The book of attestations: what was asked and not attested counts as spent, whatever becomes of the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import BadInputError
from common.privacy import PrivacyEvent, epsilon_of
from server.admission import ASKED_FILE, HeadsBook
from tests.guard_samples import IDENTITY, guard_in, proposal

EVENTS = (PrivacyEvent(1.0, 0.1, 10),)
DELTA = 1e-5


@pytest.fixture
def book(tmp_path: Path) -> HeadsBook:
    found = HeadsBook.open(tmp_path / "heads.json")
    found.heads.accept(guard_in(tmp_path / "site").reserve(proposal(1)).attestation, IDENTITY.public_key)
    found.save()
    return found


def test_a_question_counts_as_spent_until_the_site_attests(book: HeadsBook) -> None:
    site = IDENTITY.name
    attested = book.epsilon()[site]
    book.ask([site, "unknown"], EVENTS)
    again = HeadsBook.open(book.path)  # the server died before it heard anything
    assert again.epsilon() == book.epsilon()
    assert again.epsilon()[site] > attested
    assert again.epsilon()[site] >= epsilon_of([*again.heads.latest(site).attestation.totals, *EVENTS], DELTA)
    assert "unknown" not in again.epsilon()  # of a site that never attested nothing is known
    again.answered(site)
    assert again.epsilon()[site] == attested


def test_a_site_that_says_no_takes_back_that_question_only(book: HeadsBook) -> None:
    site = IDENTITY.name
    attested = book.epsilon()[site]
    book.ask([site], EVENTS)
    once = book.epsilon()[site]
    book.ask([site], EVENTS)
    book.answered(site, EVENTS)
    assert book.epsilon()[site] == once > attested
    book.answered(site, EVENTS)
    assert book.epsilon()[site] == attested


def test_a_damaged_book_is_not_taken_for_an_empty_one(book: HeadsBook) -> None:
    for text in ("{", '{"shop": [{"steps": 1}]}', '{"shop": 3}'):
        book.path.with_name(ASKED_FILE).write_text(text)
        with pytest.raises(BadInputError):
            HeadsBook.open(book.path)
