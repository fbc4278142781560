"""Commands print for a pipe here, and hear Ctrl-C, whatever terminal or job the tests are started from."""

from __future__ import annotations

import gc
import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two test processes share two cores
os.environ.setdefault("POLARS_MAX_THREADS", "1")  # before polars, as well
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a job in the background: children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _no_terminal_width() -> None:
    os.environ.pop("COLUMNS", None)  # pytest-xdist sets it to 80


def pytest_collection_finish() -> None:
    """Thousands of tests and the modules of torch stay to the end: the collector need not look at them again and again."""
    gc.collect()
    gc.freeze()
