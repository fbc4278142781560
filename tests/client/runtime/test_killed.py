"""A process that the kernel ends can say nothing: whoever started it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client.runtime.killed import ANSWER, SESSION, last_killed, note_end
from common.deployment import SITE_VARIABLE, SiteKit

CHILD = """
import os, signal, time
import client.runtime.worker as worker
signal.signal(signal.SIGCHLD, lambda *_: worker._reap())
if os.fork() == 0:
    os.kill(os.getpid(), signal.{})
    os._exit(0)
time.sleep(20)
os._exit(7)
"""


@pytest.fixture
def kit(tmp_path: Path) -> SiteKit:
    (tmp_path / "state").mkdir()
    return SiteKit(tmp_path)


def worker_whose_answer_gets(name: str, kit: SiteKit) -> int:
    environment = {**os.environ, SITE_VARIABLE: str(kit.path)}
    command = [sys.executable, "-c", CHILD.format(name).replace("20", "0.5")]
    return subprocess.run(command, env=environment, timeout=60, check=False).returncode


def test_a_killed_answer_is_told_and_the_worker_goes_on(kit: SiteKit) -> None:
    assert worker_whose_answer_gets("SIGKILL", kit) == 7
    killed = last_killed(kit)
    assert killed is not None and (killed.what, killed.signal, killed.times) == (ANSWER, "SIGKILL", 1)
    assert "memory" in killed.hint and "SIGKILL" in kit.log.read_text() and "memory" in kit.log.read_text()
    assert (kit.state / "killed.json").stat().st_mode & 0o077 == 0


def test_a_crash_of_native_code_is_another_story(kit: SiteKit) -> None:
    assert worker_whose_answer_gets("SIGSEGV", kit) == 7
    killed = last_killed(kit)
    assert killed is not None and killed.signal == "SIGSEGV" and "memory" not in killed.hint


@pytest.mark.parametrize("code", [0, 1, -signal.SIGTERM, -signal.SIGINT])
def test_what_ends_in_order_is_not_told(kit: SiteKit, code: int) -> None:
    note_end(kit, SESSION, code)
    assert last_killed(kit) is None and not kit.log.exists()


def test_it_counts_and_a_damaged_note_hides_nothing_else(kit: SiteKit) -> None:
    note_end(kit, SESSION, -signal.SIGKILL)
    note_end(kit, SESSION, -signal.SIGKILL)
    killed = last_killed(kit)
    assert killed is not None and killed.times == 2
    (kit.state / "killed.json").write_text("{")
    assert last_killed(kit) is None
    note_end(kit, SESSION, -64)
    killed = last_killed(kit)
    assert killed is not None and killed.signal in ("signal 64", "SIGRTMAX")
