"""Commands print for a pipe here, and hear Ctrl-C, whatever terminal or job the tests are started from."""

from __future__ import annotations

import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two test processes share two cores
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a job in the background: children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_terminal_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it to 80
