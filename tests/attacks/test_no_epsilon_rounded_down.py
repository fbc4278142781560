"""An epsilon in words is rounded up: a figure that is rounded to the nearest shows less than was spent half of the time."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.run import RoundRecord, build_config
from fedcart.comparison import _spent_words
from fedcart.watching import Lines


@pytest.mark.parametrize("epsilon", [2.999049, 0.0000001, 7.9995])
def test_no_words_round_an_epsilon_down(epsilon: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert float(_spent_words(epsilon)) >= epsilon
    record = RoundRecord(1, epsilon={"shop": epsilon})
    watcher = Lines(SimpleNamespace(out=Path("run"), config=build_config({}), resume=False))  # type: ignore[arg-type]
    watcher.round_done(record)
    said = re.search(r"ε (\S+) at the worst site", "".join(capsys.readouterr()))
    assert said and float(said[1]) >= epsilon
