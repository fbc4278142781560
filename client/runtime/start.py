"""``fedcart site start``: keeps a site connected, session after session."""

from __future__ import annotations

from collections.abc import Callable

from client.runtime.killed import SESSION, note_end
from common.deployment import SITE_VARIABLE, SiteKit, flower_environment
from common.supervisor import Report, keep_running, only_one


class SiteConnection:
    """One connection to the server after another (``common.supervisor.Child``)."""

    longest_delay_s = 15.0

    def __init__(self, kit: SiteKit) -> None:
        self._kit = kit
        self.command = ["client.runtime.node", str(kit.path)]
        self.environment = flower_environment(kit, SITE_VARIABLE)
        self._process, self._connected = 0, False
        self._say: Report = lambda _: None

    def begins(self, process: int, say: Report) -> None:
        """A new session: not connected yet."""
        self._process, self._connected, self._say = process, False, say
        say("session starts")

    def look(self) -> None:
        """Say it once when the server has let us in."""
        from client.runtime.last_session import was_connected

        if not self._connected and was_connected(self._kit, self._process):
            self._connected = True
            self._say("connected")

    def went_well(self) -> bool:
        """Whether the server let us in."""
        return self._connected

    def farewell(self, code: int, delay_s: float) -> str:
        """Why there is a pause."""
        note_end(self._kit, SESSION, code)
        if self._connected:
            return f"session ended with code {code}, next one in {delay_s:.0f} s"
        return f"no connection, next try in {delay_s:.0f} s; fedcart site check says what is wrong"


def start_site(kit: SiteKit, report: Report, prepare: Callable[[], None]) -> None:
    """Run a site in this process until SIGTERM or SIGINT; ``prepare`` runs first, once the kit is held.

    Raises: BadInputError if it already runs.
    """
    with only_one(kit, "site"):
        prepare()
        keep_running(kit, SiteConnection(kit), report)
