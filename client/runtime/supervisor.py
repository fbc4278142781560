"""Keeps a site running: starts the node, starts it again after a lost session, stops it cleanly.

The log says when sessions began and ended and what was refused; it holds no data and no consumer ids.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from client.runtime.last_session import was_connected
from common.deployment import SITE_VARIABLE, SiteKit, flower_environment
from common.errors import BadInputError
from common.processes import wait_for_group

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 15.0
LOG_BYTES = 5_000_000

Report = Callable[[str], None]


@contextmanager
def only_one(kit: SiteKit) -> Iterator[None]:
    """Hold the kit for this process. **Raises**: BadInputError if another process runs the same kit."""
    kit.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(kit.pid, "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError(
                f"this site is already running as process {running_pid(kit)}",
                hint="stop that one first (SIGTERM), or look at it: fedcart site status",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def running_pid(kit: SiteKit) -> int | None:
    """Process id of the supervisor that holds the kit, None if nobody does."""
    try:
        with open(kit.pid, encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except (OSError, ValueError):
        pass
    return None


class Supervisor:
    """Runs sessions until it is told to stop."""

    def __init__(self, kit: SiteKit, report: Report) -> None:
        self._kit = kit
        self._report = report
        self._stop = threading.Event()
        self._node: subprocess.Popen[bytes] | None = None
        self._connected = False

    def stop(self, *_signal: object) -> None:
        """End the running session and do not start another one."""
        self._stop.set()
        node = self._node
        if node is not None and node.poll() is None:
            node.terminate()

    def run(self) -> None:
        """Keep sessions going until ``stop``."""
        delay = FIRST_DELAY_S
        while not self._stop.is_set():
            self._connected = False
            code = self._session()
            if self._stop.is_set():
                break
            if self._connected:
                delay = FIRST_DELAY_S
                self._say(f"session ended with code {code}, next one in {delay:.0f} s")
            else:
                self._say(f"no connection, next try in {delay:.0f} s; fedcart site check says what is wrong")
            self._stop.wait(delay)
            delay = min(2 * delay, LONGEST_DELAY_S)
        self._say("stopped")

    def _session(self) -> int:
        _rotate(self._kit.log)
        self._say("session starts")
        with open(self._kit.log, "ab") as log:
            self._node = subprocess.Popen(
                [sys.executable, "-m", "client.runtime.node", str(self._kit.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=flower_environment(self._kit, SITE_VARIABLE),
                start_new_session=True,  # Ctrl-C reaches this process, which then ends the session in order
            )
        if self._stop.is_set():
            self._node.terminate()
        return wait_for_group(self._node, self._stop, self._look)

    def _look(self) -> None:
        if not self._connected and self._node is not None and was_connected(self._kit, self._node.pid):
            self._connected = True
            self._say("connected")

    def _say(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}"
        with suppress(OSError), open(self._kit.log, "a", encoding="utf-8") as log:
            log.write(line + "\n")  # a full disk must not end the one who starts the site again
        self._report(line)


def start_site(kit: SiteKit, report: Report, prepare: Callable[[], None]) -> None:
    """Run a site in this process until SIGTERM or SIGINT; ``prepare`` runs first, once the kit is held.

    **Raises**: BadInputError if it already runs.
    """
    with only_one(kit):
        prepare()
        supervisor = Supervisor(kit, report)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, supervisor.stop)
        supervisor.run()


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".1.txt"))
