"""Every planted bug is caught by a test of the project. A file of its own, so that two processes share the bugs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.planted.bugs import BUGS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.full


@pytest.mark.parametrize("name", BUGS)
def test_a_test_of_the_project_catches_it(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.planted.plugin", "-p", "no:cacheprovider", BUGS[name].test],
        cwd=ROOT, env={**os.environ, "FEDCART_PLANT": name}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout[-2000:]
