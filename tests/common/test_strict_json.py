"""JSON that is JSON: what no reader but Python takes is never written."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from common.errors import BadInputError
from common.run.records import RoundRecord
from common.strict_json import fields_of, finite, one_line, read, readable

NUMBERS = {"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": {"d": (0.0, math.nan)}}


def refuse(word: str) -> None:
    raise AssertionError(word)


@pytest.mark.parametrize("write", [one_line, readable])
def test_what_is_no_number_is_written_as_null(write):
    plain = json.loads(write(NUMBERS), parse_constant=refuse)
    assert plain == {"a": None, "b": [None, None, 1.5], "c": {"d": [0.0, None]}}


def test_the_same_value_gives_the_same_bytes_whatever_the_order():
    assert one_line({"b": 1, "a": 2}) == one_line({"a": 2, "b": 1}) == '{"a":2,"b":1}'


def test_finite_values_stay_as_they_are():
    assert finite({"a": [1, "x", None, True, 2.5]}) == {"a": [1, "x", None, True, 2.5]}


def test_a_metric_without_a_value_survives_its_record():
    record = RoundRecord(1, released={"loss": math.nan, "recall@20": 0.5})
    text = record.to_json()
    json.loads(text, parse_constant=refuse)
    back = RoundRecord.from_json(text)
    assert math.isnan(back.released["loss"])
    assert back.released["recall@20"] == 0.5


def test_json_of_another_party_is_read_as_it_is():
    assert read('{"a": [1, -2.5, "[{\\"", null, true]}', largest=60, what="it") == {
        "a": [1, -2.5, '[{"', None, True]
    }


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[" * 17 + "]" * 17, "nested"),
        ("[" * 10**5, "nested"),
        ('{"a": NaN}', "NaN is no number"),
        ("[-Infinity]", "no number"),
        ("[1e999]", "not finite"),
        ("[1e+-300]", "not JSON"),
        (f"[{10**19}]", "20 digits"),
        ("9" * 5_000, "digits"),
        ('{"a": 1, "a": 2}', "twice"),
        (" " * 10**6 + "1", "at most"),
        (b"[]", "no text"),
        (None, "no text"),
    ],
)
def test_json_out_of_bounds_is_refused_and_says_why(text, match):
    with pytest.raises(BadInputError, match=match):
        read(text, largest=200_000, what="it")


@dataclasses.dataclass(frozen=True)
class _Part:
    name: str
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class _Whole:
    parts: tuple[_Part, ...]
    named: dict[str, Any]
    listed: list[_Part]
    nothing: _Part | None = None


def test_the_fields_of_a_dataclass_are_those_of_the_standard_library() -> None:
    one = _Part("a")
    whole = _Whole((one, _Part("b", ())), {"x": one, "y": 1.5, "z": [one]}, [one], one)
    assert fields_of(whole) == dataclasses.asdict(whole)
    assert json.dumps(fields_of(whole)) == json.dumps(dataclasses.asdict(whole))
