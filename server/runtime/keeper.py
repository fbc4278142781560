"""Keeps the coordinator's SuperLink running and the admitted sites in line with the kit: ``fedcart server start``."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.deployment import COORDINATOR_VARIABLE, CoordinatorKit, flower_environment
from common.errors import BadInputError, FedcartError
from common.processes import wait_for_group
from server.runtime.control import admit_sites, open_control, wait_until_up

UP_TIMEOUT_S = 60.0
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 60.0
LOG_BYTES = 20_000_000

Report = Callable[[str], None]


class Keeper:
    """Starts the SuperLink, starts it again if it ends, stops it in order."""

    def __init__(self, kit: CoordinatorKit, report: Report) -> None:
        self._kit = kit
        self._report = report
        self._stop = threading.Event()
        self._link: subprocess.Popen[bytes] | None = None

    def stop(self, *_signal: object) -> None:
        """End the SuperLink and do not start it again."""
        self._stop.set()
        if self._link is not None and self._link.poll() is None:
            self._link.terminate()

    def run(self) -> None:
        """Keep it running until ``stop``."""
        delay = FIRST_DELAY_S
        while not self._stop.is_set():
            began = time.monotonic()
            code = self._serve_once()
            if self._stop.is_set():
                break
            delay = FIRST_DELAY_S if time.monotonic() - began > LONGEST_DELAY_S else delay
            self._report(f"server ended with code {code}, starts again in {delay:.0f} s; log {self._kit.log}")
            self._stop.wait(delay)
            delay = min(2 * delay, LONGEST_DELAY_S)
        self._report("stopped")

    def _serve_once(self) -> int:
        kit = self._kit
        if kit.log.exists() and kit.log.stat().st_size > LOG_BYTES:
            kit.log.replace(kit.log.with_suffix(".1.txt"))
        with open(kit.log, "ab") as log:
            self._link = subprocess.Popen(
                [sys.executable, "-m", "server.runtime.link", str(kit.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=kit.path,
                env=flower_environment(kit, COORDINATOR_VARIABLE),
                start_new_session=True,
            )
        threading.Thread(target=self._admit, name="admission", daemon=True).start()
        return wait_for_group(self._link, self._stop)

    def _admit(self) -> None:
        try:
            wait_until_up(self._kit, UP_TIMEOUT_S)
            with open_control(self._kit) as control:
                sites = admit_sites(self._kit, control)
            listen = self._kit.read().coordinator.listen
            self._report(f"server is up on {listen}, {len(sites)} sites are admitted: {', '.join(sites)}")
        except FedcartError as error:
            if not self._stop.is_set():
                self._report(f"{error.message}; {error.hint}")


def serve(kit: CoordinatorKit, report: Report) -> None:
    """Run the server in this process until SIGTERM or SIGINT. **Raises**: BadInputError if it already runs."""
    with only_one(kit):
        keeper = Keeper(kit, report)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, keeper.stop)
        keeper.run()


@contextmanager
def only_one(kit: CoordinatorKit) -> Iterator[None]:
    """Hold the kit for this process. **Raises**: BadInputError if another process runs the same kit."""
    kit.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(kit.pid, "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError("this server is already running", hint="fedcart server status KIT") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
