"""Changes of a message that keep its structure, and values that no honest party sends: for fuzz tests of both sides."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st


def nested(depth: int) -> Any:
    """A list in a list in a list ..."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


ODD: list[Any] = [
    None, True, "", b"", [], {}, 0, -1, 1, 2**31, 2**53, 2**63, 2**64 - 1, -(2**63), 10**400, -(10**400), 0.0, -0.0,
    1e-320, 1e-300, 1e300, 0.99, math.inf, -math.inf, math.nan, "x" * 5_000, "../../x", "\x1b[2J", "=1+1", "site-1",
    "site-0", "ü", "\U0001f4e6", b"\0" * 32, b"\xff" * 32, bytes(33), bytes(64), bytes(5_000), nested(3), nested(60), [[]] * 300,
    {"a": 1}, "9" * 5_000, "ab" * 32,
]  # fmt: skip
values = st.one_of(
    st.sampled_from(ODD), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=9), st.binary(max_size=70)
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "drop", "double", "swap", "add", "bit", "cut"]),
        st.integers(0, 2**20),
        values,
    ),
    min_size=1,
    max_size=3,
)
Edits = list[tuple[str, int, Any]]


def changed(plain: Any, changes: Edits) -> Any:
    """A copy of JSON-like values with some of them exchanged, left out, doubled or put elsewhere."""
    root = [copy.deepcopy(plain)]
    for how, where, new in changes:
        value = copy.deepcopy(new)
        places = list(_places(root))
        holder, key = places[where % len(places)]
        other, its = places[(where // 7) % len(places)]
        if how == "set":
            holder[key] = value
        elif how == "drop" and holder is not root:
            del holder[key]
        elif how == "double" and isinstance(holder, list) and holder is not root:
            holder.insert(key, copy.deepcopy(holder[key]))
        elif how == "add" and isinstance(holder[key], list):
            holder[key].append(value)
        elif how == "add" and isinstance(holder[key], dict):
            holder[key][str(value)[:20]] = value
        elif how == "swap":
            holder[key] = copy.deepcopy(other[its])
        elif how in ("bit", "cut"):
            holder[key] = _bitten(holder[key], where, cut=how == "cut")
    return root[0]


def changed_bytes(data: bytes, changes: Edits) -> bytes:
    """A copy of bytes with some of them flipped, left out, doubled or added."""
    for how, where, value in changes:
        at = where % max(1, len(data))
        if how == "set" and isinstance(value, bytes):
            data = data[:at] + value + data[at:]
        elif how in ("drop", "cut"):
            data = data[:at] if how == "cut" else data[:at] + data[at + 1 + where % 9 :]
        elif how == "double":
            data = data[:at] + data[at : at + 40] + data[at:]
        else:
            data = bytes(_bitten(data, where, cut=False))
    return data


def _bitten(value: Any, where: int, *, cut: bool) -> Any:
    if isinstance(value, bytes | str) and cut:
        return value[: where % (len(value) + 1)]
    if isinstance(value, bytes) and value:
        at = where % len(value)
        return value[:at] + bytes([value[at] ^ (1 << where % 8)]) + value[at + 1 :]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return value + 1 if isinstance(value, int) else value * (1 + 2.0 ** -(where % 52))


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    keys: list[Any] = list(range(len(holder))) if isinstance(holder, list) else list(holder)
    for key in keys:
        yield holder, key
        if isinstance(holder[key], list | dict):
            yield from _places(holder[key])
