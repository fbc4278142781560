"""What a field of a message may hold: checked where the message is made, so no other code meets anything else.

Each function returns if the value is in bounds. Raises: BadInputError naming the field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sized

from common.errors import BadInputError

MAX_NUMBER = 2**31 - 1  # of rounds, attempts, coordinates
MAX_SEQUENCE = 2**53  # of ledger entries and declared consumers: what JSON carries exactly
MAX_SCOPE_LENGTH = 200

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,39}")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_run(name: object) -> None:
    """The name of a run: safe in a file name, a log line and a terminal."""
    _matches(_RUN, name, "name of a run")


def check_word(word: object, what: str) -> None:
    """A short word of ours, such as the kind of a question."""
    _matches(_WORD, word, what)


def check_hex_digest(value: object, what: str, *, optional: bool = False) -> None:
    """A SHA-256 digest in hexadecimal."""
    if not (optional and value == ""):
        _matches(_HEX_DIGEST, value, what)


def check_whole(value: object, what: str, *, low: int = 0, high: int = MAX_NUMBER) -> None:
    """A whole number from ``low`` to ``high``."""
    if type(value) is not int or not low <= value <= high:
        raise BadInputError(f"{what} is {_shown(value)}, not a whole number from {low} to {high}")


def check_real(value: object, what: str, *, low: float = 0.0, high: float = 1e12) -> None:
    """A finite number from ``low`` to ``high``."""
    if not (isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high):
        raise BadInputError(f"{what} is {_shown(value)}, not a number from {low:g} to {high:g}")


def check_bytes(value: bytes, what: str, size: int) -> None:
    """Bytes of exactly this size."""
    if type(value) is not bytes or len(value) != size:
        found = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
        raise BadInputError(f"{what} has {found}, not {size}")


def check_count(values: Sized, what: str, most: int) -> None:
    """At most so many parts, characters or bytes."""
    if len(values) > most:
        raise BadInputError(f"{what} has {len(values)} parts, at most {most} are allowed")


def check_text(value: object, what: str, most: int) -> None:
    """Printable text."""
    if not isinstance(value, str) or not 1 <= len(value) <= most or not value.isprintable():
        raise BadInputError(f"{what} is not 1 to {most} printable characters")


def check_distinct(values: Iterable[str], what: str) -> None:
    """No value twice."""
    listed = list(values)
    if len(set(listed)) != len(listed):
        raise BadInputError(f"{what} holds a value twice")


def _matches(pattern: re.Pattern[str], value: object, what: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BadInputError(f"{what} is {_shown(value)}, which is not usable")


def _shown(value: object) -> str:
    """For people, and short: a number may have a million digits, and Python refuses to write it."""
    if isinstance(value, str | bytes):
        return repr(value[:40])
    if isinstance(value, int) and abs(value) > MAX_SEQUENCE:
        return f"of {value.bit_length()} bits"
    if isinstance(value, int | float):
        return str(value) if math.isfinite(value) else "not finite"
    return type(value).__name__
