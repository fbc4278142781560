"""The rules of ``values`` for one value at a time, as a live stream has them. What is plain takes a short way."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import polars as pl

from common.data.values.numbers import numbers
from common.data.values.times import moment
from common.data.values.words import (
    NULL_WORDS,
    REPLACEMENT,
    float_tails,
    null_words,
    plain_text,
    rounded_ids,
    without_float_tail as _without_tail,
)
from common.errors import BadInputError

_PLAIN_ID = re.compile(r"[A-Za-z0-9_:@][A-Za-z0-9_:@-]*", re.ASCII)
_PLAIN_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)
_NULLS = frozenset(NULL_WORDS)


def whole_characters(text: str) -> str:
    """The text with U+FFFD for half a character of UTF-16, which JSON can spell and no file can hold."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def one_id(value: Any, what: str) -> str:
    """An id as a file's cell would be read; "" if it says nothing. Raises: BadInputError for one that is damaged."""
    if value is None or isinstance(value, bool | list | dict):
        return ""
    if isinstance(value, str) and _PLAIN_ID.fullmatch(value) and value.lower() not in _NULLS:
        return value
    raw = pl.Series([value if isinstance(value, float) else whole_characters(str(value))])
    text = plain_text(raw)
    if text[0] is None or null_words(text)[0]:
        return ""
    if REPLACEMENT in text[0]:
        raise BadInputError(f"{what} holds bytes that are no text", hint="write UTF-8")
    if rounded_ids(raw, text)[0]:
        raise BadInputError(f"{what} is a number that has lost digits", hint="send ids as text")
    return str((_without_tail(text) if float_tails(text)[0] else text)[0])


def one_time(value: Any, zone: str = "UTC") -> datetime:
    """A time on the shop's clock. Raises: BadInputError with the value, if it is none."""
    if isinstance(value, str) and zone == "UTC" and value[:4].isdigit() and value[4:5] == "-":
        try:
            found = datetime.fromisoformat(value)
            return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
        except ValueError:
            pass
    read = moment(whole_characters(value) if isinstance(value, str) else value, zone=zone)
    if read is None:
        raise BadInputError(
            f"timestamp {str(value)[:60]!r} cannot be read", hint="ISO 8601, or seconds or milliseconds since 1970"
        )
    return read


def one_number(value: Any, what: str) -> float | None:
    """A finite number in any notation; None where the value says nothing. Raises: BadInputError for anything else."""
    if value is None or isinstance(value, bool | list | dict):
        return None
    if isinstance(value, int | float) or _PLAIN_NUMBER.fullmatch(value):
        try:
            number = float(value)
        except OverflowError:  # a whole number of more than 308 digits
            return None
        return number if abs(number) < float("inf") else None
    column = pl.Series([whole_characters(str(value))])
    read = numbers(column)[0][0]
    if read is None and (text := plain_text(column))[0] is not None and not null_words(text)[0]:
        raise BadInputError(f"{what} {str(value)[:60]!r} is not a number", hint="leave it out if it is unknown")
    return None if read is None else float(read)
