"""JSON that every reader takes: no bare NaN or Infinity, which are Python's own and no JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any


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
