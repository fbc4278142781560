"""Commands print for a pipe here, and hear Ctrl-C, whatever terminal or job the tests are started from."""

from __future__ import annotations

import gc
import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two test processes share two cores
os.environ.setdefault("POLARS_MAX_THREADS", "1")  # before polars, as well
# No test here cuts the power: what was written is read by whoever comes next, on the disk or not. Processes of their own do sync.
os.fsync = os.fdatasync = lambda _descriptor: None
gc.disable()  # nothing of an import or of a collected test is garbage
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a job in the background: children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _no_terminal_width() -> None:
    os.environ.pop("COLUMNS", None)  # pytest-xdist sets it to 80


def pytest_collection_finish() -> None:
    """Thousands of tests and the modules of torch stay to the end: the garbage collector need not look at them again."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()
