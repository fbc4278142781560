"""Parents that wait for their children and take the children's children with them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

STOP_TIMEOUT_S = 15.0
GROUP_TIMEOUT_S = 3.0
WATCH_S = 0.5


def wait_for_group(
    process: subprocess.Popen[bytes], stop: threading.Event, look: Callable[[], None] = lambda: None
) -> int:
    """Wait until a process that leads its own session has ended, then end what is left of its group.

    ``look`` is called now and then while it lives, and once when it has ended.
    Once ``stop`` is set (and the process was told), it has ``STOP_TIMEOUT_S`` before it is killed.
    """
    told_at = None
    with _watched(process) as ended:
        while not ended(WATCH_S):
            look()
            if stop.is_set():
                told_at = told_at or time.monotonic()
                if time.monotonic() - told_at > STOP_TIMEOUT_S:
                    process.kill()
    look()
    code = process.wait()
    _end_group(process.pid)
    return code


@contextlib.contextmanager
def _watched(process: subprocess.Popen[bytes]) -> Iterator[Callable[[float], bool]]:
    """Ask "has it ended?" with a timeout. ``Popen.wait`` looks twenty times a second; a pidfd need not be looked at."""
    if not hasattr(os, "pidfd_open"):
        yield lambda timeout_s: _ended(process, timeout_s)
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield lambda timeout_s: bool(poll.poll(1000 * timeout_s))
    finally:
        os.close(descriptor)


def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


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
