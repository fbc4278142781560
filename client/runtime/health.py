"""What is wrong at a site just now, quick enough to be asked every minute: no event log is read, only whether its file is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

from client.runtime.check import FAILED, WARNING, check_site
from client.runtime.last_session import connected_process
from client.runtime.status import SiteStatus
from client.site import load_site
from common.deployment import SiteKit
from common.deployment.trouble import Trouble
from common.errors import FedcartError
from common.privacy import show_exact
from common.supervisor import running_pid

MATTERS = ("authority", "server certificate", "budget", "disk", "permissions")
"""Checks of which a warning is something to act on."""
OPEN_S = 3_600.0  # no round takes as long: what is still open then waits for nobody
RECENT_S = 86_400.0
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def site_troubles(kit: SiteKit, status: SiteStatus | None, *, timeout_s: float = 5.0) -> list[Trouble]:
    """All that is wrong; ``status`` None: it could not be read, which the checks then name. Never raises for a bad site."""
    rows = check_site(kit, timeout_s=timeout_s, data=False)
    wrong = [row for row in rows if row.status == FAILED or (row.status == WARNING and row.name in MATTERS)]
    unseen = {"server certificate", "clock"} if any(row.name == "server" for row in wrong) else set()
    found = [Trouble(row.name, row.found, row.todo or row.found) for row in wrong if row.name not in unseen]
    found += [*_running(kit), *_log_gone(kit)]
    return found + (list(_of_status(status)) if status is not None else [])


def _running(kit: SiteKit) -> Iterator[Trouble]:
    if running_pid(kit) is None:
        yield Trouble("running", "no", f"fedcart site start {kit.path}")
        return
    session = connected_process(kit)
    if not session or not _lives(session):
        yield Trouble("connected", "the site runs and the server has not let it in", f"see {kit.log}")


def _log_gone(kit: SiteKit) -> Iterator[Trouble]:
    """A site whose log cannot be read can take part in no round."""
    try:
        file = load_site(kit.path).file
    except FedcartError:
        return  # the checks name it
    events = kit.resolve(file.site.events)
    if file.source is None and not os.access(events, os.R_OK):
        what = "cannot be read" if events.exists() else "is not there"
        yield Trouble(
            "data", f"the event log {events} {what}", "put it back, or name another in site.toml, [site]"
        )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _of_status(status: SiteStatus) -> Iterator[Trouble]:
    budget = status.budget
    if budget.open and (status.pid is None or _age_s(budget.open_since) > OPEN_S):
        found = f"{budget.open} open since {budget.open_since}, counted as spent"
        yield Trouble("reservation", found, "start the site again: it gives back what provably never left")
    for run in budget.paused:
        found = f"this site has paused in {run}: answers failed here after they were charged"
        yield Trouble("answers", found, "put right what the log says; it takes part in the next run")
    killed = status.killed
    if killed is not None and _age_s(killed.time) < RECENT_S:
        found = f"the process of {killed.what} was ended by {killed.signal} on {killed.time}"
        yield Trouble("killed", found, killed.hint)
    if budget.alone is not None and budget.alone_limit and budget.alone > 0.9 * budget.alone_limit:
        found = f"epsilon {budget.alone} of {show_exact(budget.alone_limit)} spent if no other site is honest"
        yield Trouble("budget alone", found, "raise epsilon_alone_max in policy.toml, or join no more runs")
    for request in status.requests:
        if request.status == "waiting":
            yield Trouble(
                "run", f"{request.run} waits for your word", "fedcart site approve KIT shows what it asks"
            )


def _age_s(time: str) -> float:
    """Seconds since a time in UTC; nothing readable is long ago."""
    try:
        then = datetime.strptime(time, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return float("inf")
    return (datetime.now(UTC) - then).total_seconds()
