"""Words of others, before they reach a terminal, a log, a table, a page or a note.

A name that a coordinator or a site sends is either a plain word (``require_word``), or it is shown so that it can do nothing
(``shown``): no escape sequence, no control that turns the reading direction, no second line; in a table no formula (``cell``).
"""

from __future__ import annotations

import re
from typing import Any

from common.errors import BadInputError

MOST_WORD = 100
FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "＝",
    "＋",
    "－",
    "＠",
)  # what a spreadsheet takes for one, wide forms too
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,98}[A-Za-z0-9._-])?", re.ASCII)


def is_word(text: object, most: int = MOST_WORD) -> bool:
    """Whether this is a name without any power: ASCII letters, digits, dots, lines and inner blanks, a letter or digit first."""
    return isinstance(text, str) and len(text) <= most and _WORD.fullmatch(text) is not None


def require_word(what: str, text: object) -> str:
    """Return a name if it is a plain word. Raises: BadInputError that quotes it harmlessly."""
    if not is_word(text):
        raise BadInputError(
            f"{what} {shown(text, 60)!r} is not a plain name",
            hint=f"up to {MOST_WORD} letters, digits, dots, hyphens and underscores, a letter or digit first",
        )
    return str(text)


def word_or(text: object, other: str, most: int = 40) -> str:
    """The text if it is a plain word of at most so many letters, else ``other``."""
    return str(text) if is_word(text, most) else other


def shown(text: object, most: int = 0) -> str:
    r"""The text as one line that can do nothing: whatever is not printable is written as ``\x1b``, ``\n`` or ``\u202e``.

    ``most`` > 0: at most so many characters, the cut marked.
    """
    whole = str(text)
    if most and len(whole) > most:
        whole = whole[:most] + "..."
    if whole.isprintable():
        return whole
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in whole)


def cell(value: Any) -> Any:
    """A value for a CSV file: numbers as they are, text as one line that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    harmless = shown(value)
    return f"'{harmless}" if value.lstrip(" '\"").startswith(FORMULA) else harmless
