"""Parents that wait for their children."""

import subprocess
import sys
import threading
import time
from pathlib import Path

from common.processes import wait_for_group


def started(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], start_new_session=True)


def test_the_code_of_a_child_is_given_back_and_it_was_looked_at_once_more():
    looks: list[int] = []
    assert wait_for_group(started("raise SystemExit(7)"), threading.Event(), lambda: looks.append(1)) == 7
    assert looks


def test_grandchildren_end_with_their_parent(tmp_path):
    note = tmp_path / "pid"
    program = f"import subprocess, pathlib; p = subprocess.Popen(['sleep', '60']); pathlib.Path({str(note)!r}).write_text(str(p.pid))"
    assert wait_for_group(started(program), threading.Event()) == 0
    grandchild = Path(f"/proc/{note.read_text()}/stat")
    end = time.monotonic() + 10
    while grandchild.exists() and grandchild.read_text().split()[2] != "Z":
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_child_that_was_told_to_stop_is_waited_for():
    stop, child = threading.Event(), started("import time; time.sleep(60)")
    stop.set()
    child.terminate()
    assert wait_for_group(child, stop) == -15
