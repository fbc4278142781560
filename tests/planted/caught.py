"""Runs the test that a planted bug names, in a process of its own with the bug planted: it must go red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.planted.bugs import BUGS

ROOT = Path(__file__).resolve().parents[2]
FILES = 3  # of tests, so that processes share the bugs: a file stays with one


def names_of(file: int) -> list[str]:
    """The bugs of one of the files."""
    return list(BUGS)[file::FILES]


def require_caught(name: str) -> None:
    """Return if the test that the bug names goes red. Raises: AssertionError."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.planted.plugin", "-p", "no:cacheprovider", BUGS[name].test],
        cwd=ROOT, env={**os.environ, "FEDCART_PLANT": name}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout[-2000:]
