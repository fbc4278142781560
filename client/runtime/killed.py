"""When a process of the site was ended by a signal that nobody here sends: by the kernel for want of memory, or a crash.

Such a process can say nothing itself, so whoever started it does: in the site's log, and for ``site status``.
"""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from common.deployment import SiteKit
from common.errors import WorkFailedError
from common.local_log import local_log

KILLED_FILE = "killed.json"
ANSWER, WORKER, SESSION = "an answer", "the answers", "the session"
ORDERED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
WHY = {
    signal.SIGKILL: "most often the kernel, for want of memory: journalctl -k (or dmesg) says so. Give the site more memory, "
    "or a machine of its own",
}
CRASH = "a crash of native code: compare versions with constraints.txt, and report it"


@dataclass(frozen=True)
class Killed:
    """The last process of a site that was ended from outside. ``time``: UTC; ``times``: how many there were so far."""

    time: str
    what: str
    signal: str
    hint: str
    times: int


def note_end(kit: SiteKit, what: str, code: int) -> None:
    """Say in the log, and remember, that the process of ``what`` was killed, if its exit ``code`` says so (minus a signal)."""
    from common.atomic import write_atomic

    if code >= 0 or -code in ORDERED:
        return
    known = next((one for one in signal.Signals if one == -code), None)
    before = last_killed(kit)
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    name, hint = (known.name, WHY.get(known, CRASH)) if known else (f"signal {-code}", CRASH)
    killed = Killed(time, what, name, hint, 1 + (before.times if before else 0))
    local_log(kit.log).error(in_words(killed))
    with suppress(WorkFailedError):  # a full disk: the log has it
        write_atomic(kit.state / KILLED_FILE, json.dumps(asdict(killed), allow_nan=False).encode(), mode=0o600)


def last_killed(kit: SiteKit) -> Killed | None:
    """The last one, None if there was none, or the note is damaged."""
    try:
        return Killed(**json.loads((kit.state / KILLED_FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def in_words(killed: Killed) -> str:
    """What happened and what to do. What it had reserved counts as spent until the run's next question, or a restart."""
    return (
        f"the process that computed {killed.what} was ended by {killed.signal}: {killed.hint}. What it had reserved stays "
        "charged until that round is closed"
    )
