"""JSON that every reader takes: no bare NaN or Infinity, which are Python's own and no JSON. And JSON of other parties,
read within bounds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from common.errors import BadInputError

MAX_DEPTH = 16
SCHEMA = 1
"""Of what commands print with ``--json``: a name that is there keeps its meaning until this number grows."""
_LEAVES = frozenset((type(None), bool, int, float, str, bytes))
_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_MAX_DIGITS = 19  # below 2**64; Python would read 4,300, and take its time


def finite(value: Any) -> Any:
    """The value with null for every number that is not finite: what JSON has for "no number"."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value


def one_line(value: Any) -> str:
    """JSON on one line, keys sorted: the same value gives the same bytes."""
    return json.dumps(finite(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def readable(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    """JSON that people read too: keys sorted, indented, a newline at the end. ``default``: for what is no JSON."""
    return json.dumps(finite(value), sort_keys=True, indent=1, allow_nan=False, default=default) + "\n"


def read(text: object, *, largest: int, what: str) -> Any:
    """The value of JSON that another party wrote, at most ``largest`` characters of it.

    Guarantee: no value is made before size and nesting have been checked; whole numbers have at most 19 digits, others
    are finite, no name occurs twice in an object.
    Raises: BadInputError naming ``what``.
    """
    if not isinstance(text, str):
        raise BadInputError(f"{what} is no text")
    if len(text) > largest:
        raise BadInputError(f"{what} has {len(text)} characters, at most {largest} are read")
    if _deepest(text) > MAX_DEPTH:
        raise BadInputError(f"{what} is nested more than {MAX_DEPTH} deep")
    try:
        return json.loads(
            text, parse_int=_whole, parse_float=_real, parse_constant=_no_number, object_pairs_hook=_named_once
        )
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{what} is not JSON: {str(error)[:120]}") from None


def _deepest(text: str) -> int:
    depth, deepest, quoted = 0, 0, False
    for mark in _MARKS.finditer(text):
        found = mark.group()
        if found == '"':
            quoted = not quoted
        elif not quoted and len(found) == 1:
            depth += 1 if found in "[{" else -1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
    return deepest


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number that is not finite")
    return value


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name occurs twice")
    return made


def fields_of(value: object) -> dict[str, Any]:
    """A dataclass as the JSON object of its fields, nested ones too: ``dataclasses.asdict`` without copying each leaf."""
    kind: Any = type(value)
    return {name: _plain(getattr(value, name)) for name in _names(kind)}


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _LEAVES:
        return value
    if kind is tuple or kind is list:
        return kind([part if type(part) in _LEAVES else _plain(part) for part in value])
    if kind is dict:
        return {name: part if type(part) in _LEAVES else _plain(part) for name, part in value.items()}
    return fields_of(value) if is_dataclass(value) else value
