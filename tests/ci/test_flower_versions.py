"""Deployment works with the first and the last version of Flower that pyproject allows, with real processes."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import version

import pytest

from tests.fresh_environments import ROOT, install, python_of

pytestmark = pytest.mark.ci
SUPPORTED = ("1.41", "1.42")


@pytest.mark.parametrize("flower", SUPPORTED)
def test_real_processes_work_with(flower, tmp_path):
    if version("flwr").startswith(flower + "."):
        return  # the full tier has just run them
    python = python_of(tmp_path / "venv", beside_ours=True)
    install(python, "--no-deps", f"flwr=={flower}.*")
    place = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    words = [python, "-m", "pytest", "-m", "e2e", "-x", "tests/e2e", "tests/common/test_flower.py"]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"PATH": place}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
