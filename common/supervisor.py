"""A program that keeps another one running: held once per kit, started again when it ends, stopped in order."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from common.atomic import lock
from common.deployment import Kit
from common.errors import BadInputError
from common.local_log import local_log, rotate
from common.processes import empty_folder, python_command, wait_for_group
from common.systemd import ALIVE, READY, STOPPING, notify

FIRST_DELAY_S = 1.0
ALIVE_S = 10.0
LOG_BYTES = 20_000_000

Report = Callable[[str], None]


@contextmanager
def only_one(kit: Kit, what: str, pid: Path | None = None) -> Iterator[None]:
    """Hold a kit for this process; ``what`` is "site" or "server", or something else with a ``pid`` file of its own.

    Raises: BadInputError if another process does that with the same kit.
    """
    kit.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(pid or kit.pid, "a+", encoding="ascii") as file:
        try:
            lock(file, wait=False)
        except BlockingIOError:
            raise BadInputError(
                f"this {what} is already running as process {(pid or kit.pid).read_text('ascii')}",
                hint="stop that one first (SIGTERM)" + ("" if pid else f", or look at it: fedcart {what} status"),
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def running_pid(kit: Kit) -> int | None:
    """Process id of the supervisor that holds the kit, None if nobody does."""
    try:
        with open(kit.pid, encoding="ascii") as file:
            try:
                lock(file, shared=True, wait=False)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except (OSError, ValueError):
        pass
    return None


class Child(Protocol):
    """What is kept running, and how it is known to be well."""

    @property
    def command(self) -> list[str]:
        """Module and arguments for this interpreter."""

    @property
    def environment(self) -> dict[str, str]:
        """All of its environment."""

    @property
    def longest_delay_s(self) -> float:
        """The longest wait before it is started again."""

    def begins(self, process: int, say: Report, /) -> None:
        """It was started; called before the first look."""

    def look(self) -> None:
        """Called now and then while it lives, and once when it has ended."""

    def went_well(self) -> bool:
        """Whether this life of it got as far as its work: then the next wait is the shortest."""

    def farewell(self, code: int, delay_s: float) -> str:
        """What to say when it has ended and is started again after ``delay_s``."""


class Supervisor:
    """Runs one child after another until it is told to stop."""

    def __init__(self, kit: Kit, child: Child, report: Report) -> None:
        self._kit, self._child, self._report = kit, child, report
        self._log: logging.Logger = local_log(kit.log)
        self._stop = threading.Event()
        self._told_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self, *_signal: object) -> None:
        """End the running child and do not start another one."""
        self._stop.set()
        notify(STOPPING)
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def run(self) -> None:
        """Keep children going until ``stop``."""
        delay = FIRST_DELAY_S
        notify(READY)
        while not self._stop.is_set():
            code = self._live()
            if self._stop.is_set():
                break
            if self._child.went_well():
                delay = FIRST_DELAY_S
            self._say(self._child.farewell(code, delay))
            self._pause(delay)
            delay = min(2 * delay, self._child.longest_delay_s)
        self._say("stopped")

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stop.wait(min(left, ALIVE_S)):
            self._alive()

    def _alive(self) -> None:
        """Tell a service manager now and then that this loop goes round."""
        if time.monotonic() - self._told_at >= ALIVE_S:
            self._told_at = time.monotonic()
            notify(ALIVE)

    def _look(self) -> None:
        self._alive()
        self._child.look()

    def _live(self) -> int:
        rotate(self._kit.log, LOG_BYTES)
        with open(self._kit.log, "ab") as log:
            self._process = subprocess.Popen(
                python_command(*self._child.command),
                cwd=empty_folder(self._kit.work),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._child.environment,
                start_new_session=True,  # Ctrl-C reaches this process, which then ends the child in order
            )
        self._child.begins(self._process.pid, self._say)
        if self._stop.is_set():
            self._process.terminate()
        return wait_for_group(self._process, self._stop, self._look)

    def _say(self, text: str) -> None:
        if not self._stop.is_set() or text == "stopped":
            self._log.info(text)
            self._report(text)


def keep_running(kit: Kit, child: Child, report: Report) -> None:
    """Supervise in this process until SIGTERM or SIGINT; the kit is held by the caller (``only_one``)."""
    supervisor = Supervisor(kit, child, report)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.stop)
    supervisor.run()
