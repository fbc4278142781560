"""``fedcart server start``: keeps the coordinator's SuperLink running and the admitted sites in line with the kit."""

from __future__ import annotations

import threading
import time

from common.deployment import COORDINATOR_VARIABLE, CoordinatorKit, flower_environment
from common.errors import FedcartError
from common.supervisor import Report, keep_running, only_one
from common.trust import require_private
from server.runtime.control import admit_sites, open_control, wait_until_up

UP_TIMEOUT_S = 60.0
STEADY_S = 60.0


class Link:
    """The SuperLink (``common.supervisor.Child``)."""

    longest_delay_s = 60.0

    def __init__(self, kit: CoordinatorKit) -> None:
        self._kit = kit
        self.command = ["server.runtime.link", str(kit.path)]
        self.environment = flower_environment(kit, COORDINATOR_VARIABLE)
        self._began = time.monotonic()

    def begins(self, _: int, say: Report) -> None:
        """Admit the sites as soon as it is up."""
        self._began = time.monotonic()
        threading.Thread(target=self._admit, args=(say,), name="admission", daemon=True).start()

    def look(self) -> None:
        """Nothing to see from outside."""

    def went_well(self) -> bool:
        """Whether it ran for a while."""
        return time.monotonic() - self._began > STEADY_S

    def farewell(self, code: int, delay_s: float) -> str:
        """Where to look."""
        return f"server ended with code {code}, starts again in {delay_s:.0f} s; log {self._kit.log}"

    def _admit(self, say: Report) -> None:
        try:
            wait_until_up(self._kit, UP_TIMEOUT_S)
            with open_control(self._kit) as control:
                sites = admit_sites(self._kit, control)
            listen = self._kit.read().coordinator.listen
            say(f"server is up on {listen}, {len(sites)} sites are admitted: {', '.join(sites)}")
        except FedcartError as error:
            say(f"{error.message}; {error.hint}")


def start_server(kit: CoordinatorKit, report: Report) -> None:
    """Run the server in this process until SIGTERM or SIGINT. Raises: BadInputError if it already runs, or if others
    can read one of its keys."""
    require_private(kit.secrets)
    with only_one(kit, "server"):
        keep_running(kit, Link(kit), report)
