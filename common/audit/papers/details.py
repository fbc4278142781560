"""What no record knows and a person has to say: the questions, the file with the answers, and what is missing in it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from common.atomic import read_small
from common.audit.papers.paper import GAP, HUMAN, Item
from common.errors import BadInputError
from common.plain_text import shown

MOST_LETTERS = 20_000
_HINT = "fedcart audit papers --write-details FILE writes a file with all that can be said"


@dataclass(frozen=True)
class Question:
    """``key``: its place in the details file; ``label``: its name in a paper; ``asks``: what a person has to write."""

    key: str
    label: str
    asks: str


QUESTIONS = (
    Question("controller.name", "Controller", "name of the controller: who decides why and how the data are processed"),
    Question("controller.address", "Address and contact", "postal address, telephone and e-mail of the controller"),
    Question("controller.representative", "Representative", "representative in the Union (Article 27), or why there is none"),
    Question("controller.officer", "Data protection officer", "name and contact of the data protection officer, or why there is none"),
    Question("controller.joint", "Other controllers and processors", "role of the other sites and of the coordinator: joint controllers (Article 26), processors (Article 28), and by which contract"),
    Question("purpose.purpose", "Purposes", "what the model is used for, in the words of the controller"),
    Question("purpose.legal_basis", "Legal basis", "point of Article 6(1); for special categories of Article 9(2) too"),
    Question("purpose.legitimate_interests", "Legitimate interests", "the interests pursued, where the basis is Article 6(1)(f); else: does not apply"),
    Question("purpose.necessity", "Necessity", "why the purpose cannot be reached with less: fewer data, fewer rounds, a smaller epsilon, no federation"),
    Question("people.subjects", "Data subjects", "whose data: customers, registered users, since when, in which countries, children among them or not"),
    Question("people.data", "Personal data", "which columns of the event log are read, and where they come from"),
    Question("people.special", "Special categories", "whether purchases or behaviour reveal health, beliefs or the like, and what is done about it"),
    Question("people.rights", "Rights", "how people are informed, and how access, erasure and objection are answered"),
    Question("recipients.recipients", "Further recipients", "who else gets the model or its predictions: processors, other sites by name, the public"),
    Question("recipients.transfers", "Transfers to third countries", "countries outside the Union that model or data go to, and the safeguards; or: none"),
    Question("retention.data", "Erasure of the data", "when the event log is erased"),
    Question("retention.model", "Erasure of the model", "how long the model is kept and used"),
    Question("retention.record", "Erasure of the record", "how long ledger and run folder are kept; they hold no consumer's data"),
    Question("assessment.likelihood", "Likelihood", "how likely each risk is, given the figures of this paper"),
    Question("assessment.severity", "Severity", "how severe it would be for the people concerned"),
    Question("assessment.measures", "Further measures", "technical and organisational measures of this site: access, backup, training of staff, contracts"),
    Question("assessment.residual", "Remaining risk and decision", "what risk remains, who accepted it, and when"),
    Question("assessment.advice", "Advice of the data protection officer", "what the officer advised, and when (Article 35(2))"),
    Question("assessment.views", "Views of data subjects", "how their views were sought, or why not (Article 35(9))"),
    Question("assessment.prior_consultation", "Prior consultation", "whether the authority was consulted (Article 36), or why it need not be"),
    Question("assessment.review", "Review", "when this assessment is reviewed: at the latest before the limit of the budget is raised (Article 35(11))"),
    Question("registry.name", "Name of the data product", "name under which the model is published"),
    Question("registry.region", "Region", "what region the data describe, and whose law applies"),
    Question("registry.published", "Publication date", "day of the first publication, as YYYY-MM-DD"),
    Question("registry.tuning", "Preprocessing and tuning", "how data were explored and settings chosen before the run, and whether that was accounted for"),
    Question("registry.authors", "Authors of the entry", "who fills out the entry"),
)  # fmt: skip
_BY_KEY = {question.key: question for question in QUESTIONS}


@dataclass(frozen=True)
class Details:
    """Answers by key. Example: ``Details.read(Path("details.toml")).item("controller.name")``."""

    answers: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> Details:
        """The answers in a file. Raises: BadInputError for what is no such file, an unknown question or no text."""
        try:
            tree = tomllib.loads(read_small(path).decode("utf-8"))
        except OSError as error:
            raise BadInputError(f"cannot read {path}: {error.strerror}", hint=_HINT) from None
        except (ValueError, RecursionError) as error:
            raise BadInputError(f"{path} is not valid TOML: {shown(error, 200)}", hint=_HINT) from None
        answers: dict[str, str] = {}
        for section, values in tree.items():
            if not isinstance(values, dict):
                raise BadInputError(f"{path}: {shown(section, 60)} is in no table", hint=_HINT)
            for name, value in values.items():
                answers[f"{section}.{name}"] = _text(f"{section}.{name}", value)
        return Details({key: text for key, text in answers.items() if text})

    def item(self, key: str) -> Item:
        """The answer to a question, marked as a person's, or the gap that it leaves."""
        question = _BY_KEY[key]
        if key in self.answers:
            return Item(question.label, self.answers[key], of=HUMAN, key=key)
        return Item(question.label, question.asks, of=GAP, key=key)

    def items(self, *keys: str) -> tuple[Item, ...]:
        """Several of them."""
        return tuple(self.item(key) for key in keys)


def details_template() -> str:
    """The details file with every question as a comment, and no answer."""
    lines = [
        "# What no record knows, for `fedcart audit papers RUN --details FILE`. Whatever stands here is shown in the papers as",
        '# said by a person. What is left empty ("") stays marked as a gap. Long answers: """several lines""".',
    ]
    section = ""
    for question in QUESTIONS:
        table, name = question.key.split(".")
        if table != section:
            lines += ["", f"[{table}]"]
            section = table
        lines += [f"# {question.label}: {question.asks}", f'{name} = ""']
    return "\n".join(lines) + "\n"


def _text(key: str, value: Any) -> str:
    if key not in _BY_KEY:
        near = difflib.get_close_matches(key, _BY_KEY, n=1)
        raise BadInputError(
            f"details: nothing asks for {shown(key, 80)}", hint=f"did you mean {near[0]}?" if near else _HINT
        )
    if isinstance(value, date):
        value = value.isoformat()
    if not isinstance(value, str) or len(value) > MOST_LETTERS:
        raise BadInputError(f"details: {key} is not a text of at most {MOST_LETTERS:,} letters", hint=_HINT)
    if key == "registry.published" and value.strip():
        _check_day(value.strip())
    return value.strip()


def _check_day(text: str) -> None:
    try:
        if date.fromisoformat(text).isoformat() == text:
            return
    except ValueError:
        pass
    raise BadInputError(f"details: registry.published {shown(text, 40)!r} is no day", hint="write YYYY-MM-DD")
