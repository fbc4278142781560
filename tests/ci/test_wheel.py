"""What is delivered is a wheel: it works in a fresh environment, from any folder, without the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.fresh_environments import ROOT, install, python_of

pytestmark = pytest.mark.ci
SMALL = ("data.consumers=1200", "data.items=100", "training.local_steps=2")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = python_of(tmp_path_factory.mktemp("fresh") / "venv")
    install(python, "-c", ROOT / "constraints.txt", wheel)
    return python.with_name("fedcart")


def test_the_wheel_holds_every_tracked_source_and_template_and_no_test(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    packages = ("common/", "client/", "server/", "simulations/", "cli/", "fedcart/")
    assert {n for n in tracked if n.startswith(packages)} - names == set()
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/"))]


def test_a_run_from_another_folder_is_made_and_verified(program, tmp_path):
    words = [program, "simulate", "--rounds", "1", "--out", "r"]
    for setting in SMALL:
        words += ["--set", setting]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["status"] == "completed"
    subprocess.run([program, "audit", "verify", "r"], cwd=tmp_path, check=True, capture_output=True)


def test_a_script_without_a_main_guard_simulates(program, tmp_path):
    settings = dict(s.split("=") for s in SMALL)
    (tmp_path / "try.py").write_text(
        f"import fedcart\nrun = fedcart.simulate(rounds=1, settings={settings!r}, out='r')\n"
        "fedcart.verify('r').raise_if_broken()\nprint(len(run.metrics))\n"
    )
    done = subprocess.run([program.with_name("python"), "try.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 1
