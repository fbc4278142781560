"""A round is asked only when enough sites can be reached: an outage of the line or of the server uses up no round."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.errors import WorkFailedError
from common.run import Observer
from server.exchange import Exchange

PATIENCE_VARIABLE = "FEDCART_PATIENCE_S"
PATIENCE_S = 3_600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
WAITING = "waiting for sites"


@dataclass(frozen=True)
class Gathering:
    """Waits for sites. ``look_around`` is called before each look: a deployment lets late sites in there."""

    exchange: Exchange
    observer: Observer
    look_around: Callable[[], None] = lambda: None

    def enough(self, sites: Sequence[str], needed: int, number: int) -> bool:
        """Whether ``needed`` of the sites can be reached: at once, or after a wait with growing pauses.

        False if the coordinator asked the run to stop meanwhile.
        Raises: WorkFailedError when patience is over (``FEDCART_PATIENCE_S``, an hour); nothing has been asked then.
        """
        patience_s = float(os.environ.get(PATIENCE_VARIABLE, PATIENCE_S))
        began, pause_s, waited = time.monotonic(), FIRST_PAUSE_S, False
        while len(there := self.exchange.reachable(sites)) < needed:
            missing = ", ".join(site for site in sites if site not in there)
            said = f"{len(there)} of {len(sites)} sites can be reached, {needed} are needed; missing: {missing}"
            if time.monotonic() - began > patience_s:
                raise WorkFailedError(
                    f"{said}, for {patience_s:.0f} s", hint="bring sites or server back, then resume the run"
                )
            if not waited:
                self.observer.note(f"round {number} waits, no number is used up: {said}")
            waited = True
            self.observer.progress(number, WAITING, len(there), needed)
            if self.observer.stop_is_asked():
                return False
            time.sleep(min(pause_s, LONGEST_PAUSE_S))
            pause_s *= 1.5
            self.look_around()
        if waited:
            self.observer.note(
                f"round {number} goes on after {time.monotonic() - began:.0f} s: {len(there)} sites are there"
            )
        return True
