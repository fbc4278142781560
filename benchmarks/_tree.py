"""A command with everything it starts: wall and CPU seconds, memory, and when its lines came (Linux)."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PERIOD_S = 0.2
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphans of the command become ours, so their CPU time is counted too


@dataclass(frozen=True)
class Measured:
    """Of one run. Units: seconds, MB. ``pss``: memory of all processes, shared pages counted once; ``lines``: when, what."""

    wall: float
    cpu: float
    pss: int
    code: int
    lines: tuple[tuple[float, str], ...]


def measure(command: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command in a folder and measure its whole process tree; CPU seconds are the kernel's own, to the last."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    # what another benchmark has left here, such as a fork server: nobody waits for that
    others = set(_children().get(os.getpid(), []))
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(
        list(command), cwd=folder, env={**os.environ, **(environment or {})}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    peak, stop = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(peak, stop), daemon=True)
    watcher.start()
    assert process.stdout is not None
    lines = [(time.monotonic() - started, line.rstrip()) for line in process.stdout]
    code, wall = process.wait(), time.monotonic() - started
    stop.set()
    watcher.join()
    while orphans := set(_children().get(os.getpid(), [])) - others:
        for orphan in orphans:
            with suppress(ChildProcessError):
                os.waitpid(orphan, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(round(wall, 2), round(cpu, 2), peak[0], code, tuple(lines))


def _watch(peak: list[int], stop: threading.Event) -> None:
    while not stop.wait(_PERIOD_S):
        peak[0] = max(peak[0], sum(map(_pss_kb, _descendants(os.getpid()))) >> 10)


def _children() -> dict[int, list[int]]:
    """Process -> those that it started, of all processes of this machine."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    return children


def _descendants(root: int) -> list[int]:
    children = _children()
    found, todo = [], list(children.get(root, []))
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def _pss_kb(process: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
