"""kill -9 of the real thing at random instants: ledgers verify, nothing is under-counted, the run resumes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.audit import verify
from common.privacy.accountant import epsilon_of
from common.run.files import RunFolder
from simulations.run import simulate
from tests.tiny_federation import tiny

PROGRAM = """
import sys
from pathlib import Path
from simulations.run import simulate
from tests.tiny_federation import tiny
if __name__ == "__main__":
    out = Path(sys.argv[1])
    simulate(tiny(), out, resume=(out / "plan.json").exists() and any((out / "checkpoints").glob("round-*")))
"""


def _kill_after(out: Path, seconds: float) -> bool:
    """Start or resume a run in a process group of its own and kill all of it. True if it was still running."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(out)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def _crash_series(tmp_path: Path, kills: int, seed: int) -> int:
    """Kill ``kills`` runs once each and finish them; return how many were really cut."""
    draw = random.Random(seed)
    started = time.monotonic()
    simulate(tiny(), tmp_path / "whole")
    whole_s = max(3.0, time.monotonic() - started)
    killed = 0
    for number in range(kills):
        out = tmp_path / f"run-{number}"
        killed += _kill_after(out, draw.uniform(0.3, 1.1) * whole_s)
        if not any((out / "checkpoints").glob("round-*")):
            continue  # killed before round 1: there is nothing to resume
        _check_resumed(out)
    return killed


def _check_resumed(out: Path) -> None:
    """A run that was cut goes on to its end, stays within its budget, and never shows less than was released."""
    summary = simulate(tiny(), out, resume=True)
    verdict = verify.verify_path(out)
    assert verdict.ok, verdict.findings
    records, plan = RunFolder.open(out).metrics(), RunFolder.open(out).plan()
    for site, shown in summary.epsilon.items():
        summed = [r.kind for r in records if r.sites[site].status == "ok"]
        released = tuple(event for kind in summed for event in plan.events(kind))
        assert shown >= epsilon_of(released, plan.config.privacy.delta) - 1e-6
        assert shown <= plan.config.privacy.epsilon


@pytest.mark.soak
def test_twenty_kills_of_the_real_driver(tmp_path: Path) -> None:
    assert _crash_series(tmp_path, 20, seed=1) >= 10


@pytest.mark.full
def test_two_kills_of_the_real_driver(tmp_path: Path) -> None:
    _crash_series(tmp_path, 2, seed=2)
