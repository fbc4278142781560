"""``fedcart demo`` as a newcomer sees it: it says what it does, and leaves nothing behind, whatever happens."""

import re
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.test_deploy_story import fedcart

pytestmark = pytest.mark.e2e


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


def nothing_is_left(folder: Path) -> None:
    end = time.monotonic() + 20
    while left := processes_of(folder):
        assert time.monotonic() < end, left
        time.sleep(0.1)
    assert not folder.exists()


def folder_named(line: str) -> Path:
    found = re.search(r"kits are in (\S+);", line)
    assert found, line
    return Path(found[1])


def test_the_demo_runs_audits_and_leaves_nothing_behind():
    program = fedcart("demo", "--sites", 3, "--rounds", 1)
    out, err = program.communicate(timeout=400)
    assert program.returncode == 0, err
    assert "completed: 1 round" in out
    assert err.count("ledger intact") == 3
    assert "0 problems" in err
    nothing_is_left(folder_named(err))


def test_a_demo_that_is_interrupted_leaves_nothing_behind_either():
    program = fedcart("demo", "--sites", 3)
    lines = [program.stderr.readline() for _ in range(3)]  # the third one says that all are up
    assert "are up after" in lines[2]
    folder = folder_named(lines[1])
    assert len(processes_of(folder)) >= 4
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=60)
    assert program.returncode == 130
    nothing_is_left(folder)
