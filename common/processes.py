"""Parents that wait for their children and take the children's children with them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time

STOP_TIMEOUT_S = 15.0
GROUP_TIMEOUT_S = 3.0
WATCH_S = 0.5


def wait_for_group(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    """Wait until a process that leads its own session has ended, then end what is left of its group.

    Once ``stop`` is set (and the process was told), it has ``STOP_TIMEOUT_S`` before it is killed.
    """
    told_at = None
    while True:
        try:
            code = process.wait(WATCH_S)
            break
        except subprocess.TimeoutExpired:
            if stop.is_set():
                told_at = told_at or time.monotonic()
                if time.monotonic() - told_at > STOP_TIMEOUT_S:
                    process.kill()
    _end_group(process.pid)
    return code


def end_with_parent() -> None:
    """Make this process end in order when the process that started it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGTERM)
        end = time.monotonic() + GROUP_TIMEOUT_S
        while time.monotonic() < end:
            time.sleep(0.05)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)
