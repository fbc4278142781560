"""JSON: one object per line, an array, or a document with one list of objects. Every value stays the text that it was.

A field inside of others is named by its path, as in ``items.item_id``; where the path goes through a list, a record becomes
one line for each of its entries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from common.data.reading.text import LINE, Lines
from common.errors import BadInputError

_LOOKED_AT = 1_000
_BATCH = 200_000
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


def records(text: bytes, name: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Number and content of each record, None for a line that is no object. Raises: BadInputError for a broken document."""
    body = text.removeprefix(b"\xef\xbb\xbf")
    if (body.lstrip()[:1] == b"[" and not _is_lines(body)) or _is_document(body):
        yield from enumerate(_of_document(body, name), start=1)
        return
    for number, line in enumerate(body.split(b"\n"), start=1):
        if line.strip():
            yield number, object_of(line)


def _is_lines(body: bytes) -> bool:
    """Whether a file that begins with a bracket has an object per line all the same, behind a broken first line."""
    second = body.lstrip().split(b"\n", 2)[1:2]
    return (
        bool(second)
        and not second[0].rstrip().endswith(b",")
        and object_of(second[0]) is not None
        and b"]" not in body[-9:]
    )


def object_of(line: bytes) -> dict[str, Any] | None:
    """The object of a line of JSON, its numbers as they are written; None if it is none."""
    try:
        value = _DECODER.decode(line.decode("utf-8", "replace").strip().rstrip(","))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_document(body: bytes) -> bool:
    """Whether the file is one object over several lines, and not an object per line."""
    first = body.lstrip().split(b"\n", 1)[0]
    if object_of(first) is not None:
        rest = body.lstrip()[len(first) :].strip()
        return not rest and isinstance(_list_in(object_of(first) or {}), list)
    if not first.rstrip().endswith((b"{", b"[", b",")):
        return False
    try:  # a broken first line of a file of lines must not make a document of it
        return isinstance(_DECODER.decode(body.decode("utf-8", "replace").strip()), dict)
    except (ValueError, RecursionError):
        return False


def _of_document(body: bytes, name: str) -> list[dict[str, Any] | None]:
    try:
        value = _DECODER.decode(body.decode("utf-8", "replace").strip())
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"{name} is not complete JSON: {error}", hint="the file was cut off; export it again"
        ) from None
    entries = value if isinstance(value, list) else _list_in(value)
    if not isinstance(entries, list):
        raise BadInputError(
            f"{name} is JSON without a list of events", hint="give one object per line, or an array"
        )
    return [entry if isinstance(entry, dict) else None for entry in entries]


def _list_in(value: Any) -> Any:
    """The one list of objects in a document, at most two levels down."""
    if not isinstance(value, dict):
        return None
    lists = [entry for entry in value.values() if isinstance(entry, list) and entry and isinstance(entry[0], dict)]
    if len(lists) == 1 and all(
        not isinstance(v, str) or k.startswith("@") for k, v in value.items() if v != lists[0]
    ):
        return lists[0]
    inner = [found for entry in value.values() if isinstance(entry, dict) and (found := _list_in(entry))]
    return inner[0] if len(inner) == 1 and not lists else None


def paths_of(text: bytes, name: str) -> list[str]:
    """The fields of the first records, by path, in the order in which they are seen."""
    found: dict[str, None] = {}
    for count, (_, record) in enumerate(records(text, name)):
        if count >= _LOOKED_AT:
            break
        _gather(record or {}, "", found)
    return list(found)


def _gather(value: Any, path: str, found: dict[str, None]) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            _gather(entry, f"{path}.{key}" if path else str(key), found)
    elif isinstance(value, list):
        for entry in value[:20]:
            _gather(entry, path, found)
        if not value:
            return
    elif path:
        found.setdefault(path)


def record_lines(text: bytes, name: str, columns: Sequence[str]) -> Iterator[Lines]:
    """The records as columns, each value as text."""
    rows: list[list[str | None]] = []
    places: list[int] = []
    malformed, example, last = 0, "", 0
    schema = dict.fromkeys(columns, pl.String) | {LINE: pl.Int64}

    def batch() -> Lines:
        parts = {column: [row[i] for row in rows] for i, column in enumerate(columns)}
        return Lines(pl.DataFrame(parts | {LINE: places}, schema=schema), malformed, example, last)

    for number, record in records(text, name):
        last = number
        if record is None:
            malformed += 1
            example = example or f"line {number} is not a JSON object"
            continue
        for row in _rows(record, columns):
            rows.append(row)
            places.append(number)
        if len(rows) >= _BATCH:
            yield batch()
            rows, places, malformed, example = [], [], 0, ""
    yield batch()


def _rows(record: dict[str, Any], columns: Sequence[str]) -> list[list[str | None]]:
    """One row, or one for each entry of the list that a path goes through."""
    values = [_at(record, column.split(".")) if column not in record else record[column] for column in columns]
    size = max((len(value) for value in values if isinstance(value, list)), default=1) or 1
    if size == 1:
        return [
            [_text(value[0] if value else None) if isinstance(value, list) else _text(value) for value in values]
        ]
    return [
        [
            _text((value[place] if place < len(value) else None) if isinstance(value, list) else value)
            for value in values
        ]
        for place in range(size)
    ]


def _at(value: Any, path: list[str]) -> Any:
    for place, key in enumerate(path):
        if isinstance(value, list):
            return [_at(entry, path[place:]) for entry in value]
        if not isinstance(value, dict):
            return None
        rest = ".".join(path[place:])
        if rest in value:
            return value[rest]
        value = value.get(key)
    return value


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
