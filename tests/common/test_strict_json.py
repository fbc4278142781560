"""JSON that is JSON: what no reader but Python takes is never written."""

from __future__ import annotations

import json
import math

import pytest

from common.run.records import RoundRecord
from common.strict_json import finite, one_line, readable

NUMBERS = {"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": {"d": (0.0, math.nan)}}


def refuse(word: str) -> None:
    raise AssertionError(word)


@pytest.mark.parametrize("write", [one_line, readable])
def test_what_is_no_number_is_written_as_null(write):
    read = json.loads(write(NUMBERS), parse_constant=refuse)
    assert read == {"a": None, "b": [None, None, 1.5], "c": {"d": [0.0, None]}}


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
