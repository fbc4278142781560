"""``fedcart site status``: is it running, what is spent, what waits for the operator."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from client.guard import GuardStatus
from client.runtime.approval import Request, requests
from client.runtime.killed import Killed, last_killed
from common.deployment import SiteKit
from common.errors import BadInputError
from common.plain_text import shown
from common.supervisor import running_pid

LOG_LINES = 8
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EMPTY = re.compile(r"(INFO|WARNING|ERROR|DEBUG) ?:")


@dataclass(frozen=True)
class SiteStatus:
    """Where a site stands; nothing of it leaves the machine. ``model``: the one in use, or why there is none.

    ``killed``: the last process of it that was ended from outside.
    """

    site: str
    roster: str
    server: str
    pid: int | None
    budget: GuardStatus
    model: str
    requests: tuple[Request, ...]
    log: tuple[str, ...]
    killed: Killed | None = None


def site_status(kit: SiteKit) -> SiteStatus:
    """Look at a site. Raises: BadInputError, ConfigError, VerificationError for a damaged kit or ledger."""
    from client.site import load_site

    site = load_site(kit.path)
    return SiteStatus(
        site.name,
        f"version {site.roster.version}: {site.roster.fingerprint}",
        site.file.server.address,
        running_pid(kit),
        site.guard().status(),
        _model_in_use(kit),
        tuple(requests(kit)),
        tuple(_last_lines(kit)),
        last_killed(kit),
    )


def _model_in_use(kit: SiteKit) -> str:
    from client.library import model_in_use

    try:
        used = model_in_use(kit)
    except BadInputError as error:
        return f"none: {error.message}"
    return f"{used.name}, {used.which}, behind {used.rounds} rounds"


def _last_lines(kit: SiteKit) -> list[str]:
    if not kit.log.exists():
        return []
    with kit.log.open(encoding="utf-8", errors="replace") as file:
        return list(deque((line for line in map(_plain, file) if line), LOG_LINES))


def _plain(line: str) -> str:
    """A line of the log without colours; empty if it says nothing but its level."""
    text = shown(" ".join(_COLOUR.sub("", line).split()))
    return "" if _EMPTY.fullmatch(text) else text
