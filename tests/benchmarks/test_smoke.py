"""Benchmarks that lean on formats still run: CI reaches them last, after an hour."""

from __future__ import annotations

import importlib
import json

import pytest

pytestmark = pytest.mark.full


@pytest.mark.parametrize("name", ["privacy", "secagg", "serving"])
def test_a_benchmark_runs_at_its_smallest_size(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module(f"benchmarks.{name}").main(smoke=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) >= 2
