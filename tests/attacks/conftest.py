"""Two true runs of one coordinator, to be forged, and the kits of three sites: made once, and edited in copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tomli_w

from common.deployment import Kits, SiteKit


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


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from server.provision import provision

    folder = tmp_path_factory.mktemp("provisioned")
    sites = [{"name": name, "population": 1000, "events": "events.csv"} for name in ("north", "south", "east")]
    (folder / "federation.toml").write_text(
        tomli_w.dumps({"name": "t", "coordinator": {"address": "127.0.0.1:9"}, "sites": sites})
    )
    provision(folder / "federation.toml", folder / "kits")
    return folder / "kits"


@pytest.fixture
def kits(made: Path, tmp_path: Path) -> Kits:
    shutil.copytree(made, tmp_path / "kits")
    return Kits(tmp_path / "kits")


@pytest.fixture
def kit(kits: Kits) -> SiteKit:
    return kits.site("north")
