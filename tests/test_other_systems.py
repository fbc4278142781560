"""Work on files goes on where a system lacks what sites and servers need, as Windows does; those say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_federation import run_tiny

pytestmark = pytest.mark.full

LACKING = """
import os, signal, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {"fcntl", "pwd", "grp", "resource", "termios", "tty", "pty"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
for name in ("fdatasync", "O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY", "fork", "killpg", "fchmod", "pread", "getuid", "geteuid"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGCHLD", "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)
sys.argv[0] = "fedcart"
from cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def there(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LACKING, *map(str, words)]
    path = str(Path(__file__).parents[1])
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=120
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other") / "run"
    run_tiny(folder, "training.rounds=1")
    return folder


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    file = tmp_path_factory.mktemp("log") / "events.csv"
    done = there("data", "synth", file, "--events", "3000", "--items", "40")
    assert done.returncode == 0, done.stderr
    return file


@pytest.mark.parametrize(
    "words",
    [
        ("--version",),
        ("data", "check", "LOG"),
        ("data", "describe", "LOG"),
        ("predict", "RUN", "LOG"),
        ("detect", "RUN", "LOG"),
        ("audit", "show", "RUN"),
        ("audit", "verify", "RUN"),
        ("report", "RUN"),
        ("compare", "RUN", "RUN"),
    ],
    ids=lambda words: " ".join(words),
)
def test_work_on_files_goes_on(words, run, log):
    named = {"RUN": run, "LOG": log}
    done = there(*[named.get(word, word) for word in words])
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("words", [("simulate",), ("demo",), ("site", "start", "KIT"), ("server", "start", "KIT")])
def test_what_needs_more_says_so(words):
    done = there(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Linux or macOS" in done.stderr, done.stderr[-2000:]
