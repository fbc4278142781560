"""The pages in a real browser. What drives it is installed beside ours for the test: it brings a library that Flower's HTTP
client would then import in every process of ours."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.fresh_environments import ROOT, install, python_of

pytestmark = pytest.mark.ci


def test_pages_in_a_real_browser(tmp_path):
    python = python_of(tmp_path / "venv", beside_ours=True)
    install(python, "selenium==4.*")
    words = [python, "-m", "pytest", "-m", "browser", "tests/browser"]
    done = subprocess.run(words, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
