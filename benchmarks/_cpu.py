"""CPU time of a benchmark with all its worker processes, which outlive their jobs and are nobody's waited-for children."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

_PERIOD_S = 1.0


class CpuMeter:
    """Samples the CPU seconds of this process and everything it started, once a second (Linux; else 0).

    What a process spends after its last sample is lost: less than a second each.
    """

    def __init__(self) -> None:
        self._spent: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CpuMeter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """CPU seconds so far."""
        self._sample()
        return sum(list(self._spent.values()))

    def _watch(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            self._sample()

    def _sample(self) -> None:
        found = dict(filter(None, (_read(path) for path in Path("/proc").glob("[0-9]*/stat"))))
        ours, grew = {os.getpid()}, True
        while grew:
            more = {pid for pid, (parent, _) in found.items() if parent in ours} - ours
            ours, grew = ours | more, bool(more)
        self._spent.update({pid: found[pid][1] for pid in ours if pid in found})


def _read(path: Path) -> tuple[int, tuple[int, float]] | None:
    """Process, its parent and its CPU seconds; None for one that ended meanwhile."""
    try:
        text = path.read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return int(path.parent.name), (int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
