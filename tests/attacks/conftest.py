"""Two true runs of one coordinator, to be forged: made once, and edited in copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of three sites; the ledgers are left at the sites, as in a deployment."""
    from tests.tiny_federation import run_tiny

    folder = tmp_path_factory.mktemp("forged")
    for name in ("first", "second"):
        run_tiny(folder / name, "training.rounds=3", "privacy.epsilon=6")
    return folder / "first", folder / "second"


@pytest.fixture
def copy(runs: tuple[Path, Path], tmp_path: Path) -> Path:
    shutil.copytree(runs[0], tmp_path / "run")
    return tmp_path / "run"
