"""The real programs of site and server, with one fault at a chosen place. Tests only.

A fault is a file ``state/fault.json`` in a kit: ``{"round", "phase", "when", "do"}``. It strikes once: the file
is gone before the fault happens. ``when`` is ``before`` or ``after`` the handler has answered (the reply has
not left then); at the server, before the question is sent or after the answers are in.
"""

import json
import os
import resource
import signal
import time
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

import client.app
import server.deployed
from common.deployment import COORDINATOR_VARIABLE, SITE_VARIABLE, SiteKit
from server.exchange import Exchange

PHASES = ("advertise", "share", "accept", "mask", "confirm", "unmask")
OTHERS = ("hello", "propose", "close", "keep")
DISK_FULL_AFTER_BYTES = 64

client_app = ClientApp()
server_app = ServerApp()


def kill_node(kit: Path) -> None:
    """SIGKILL for the site's session: node, worker and this process; the supervisor lives."""
    os.killpg(0, signal.SIGKILL)


def kill_site(kit: Path) -> None:
    """SIGKILL for everything of the site, the supervisor first: nobody starts it again."""
    os.kill(int(SiteKit(kit).pid.read_text()), signal.SIGKILL)
    os.killpg(0, signal.SIGKILL)


def kill_self(kit: Path) -> None:
    """SIGKILL for this process alone."""
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk(kit: Path) -> None:
    """From here on this process can write no file beyond a few bytes: the kernel says no, as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK_FULL_AFTER_BYTES, hard))


def pause(kit: Path) -> None:
    """Leave the test the time to do something to another process."""
    time.sleep(5)


FAULTS = {
    "kill-node": kill_node,
    "kill-site": kill_site,
    "kill-self": kill_self,
    "fill-disk": fill_disk,
    "pause": pause,
    "nothing": lambda _kit: None,
}


def strike(variable: str, place: dict) -> None:
    """Do what the kit's fault file says, if this is the place."""
    kit = Path(os.environ[variable])
    file = kit / "state" / "fault.json"
    try:
        fault = json.loads(file.read_text())
    except FileNotFoundError:
        return
    if {name: fault[name] for name in place} == place:
        file.unlink()
        FAULTS[fault["do"]](kit)


def note_duration(phase: str, seconds: float) -> None:
    """How long an answer took, as whoever waits for it sees it."""
    with (Path(os.environ[SITE_VARIABLE]) / "state" / "durations.txt").open("a") as file:
        file.write(f"{phase} {seconds}\n")


def faulty(phase: str):
    answer = getattr(client.app, phase)

    def handler(message, context):
        place = {"round": int(message.metadata.group_id.split(".")[0]), "phase": phase}
        strike(SITE_VARIABLE, place | {"when": "before"})
        began = time.monotonic()
        reply = answer(message, context)
        note_duration(phase, time.monotonic() - began)
        strike(SITE_VARIABLE, place | {"when": "after"})
        return reply

    return handler


for name in PHASES:
    client_app.query(name)(faulty(name))
for name in OTHERS:
    client_app.query(name)(getattr(client.app, name))


class FaultyExchange(Exchange):
    def ask(self, phase, requests, *, deadline_s, group):
        number = group.split(".")[0]
        place = {"round": int(number) if number.isdigit() else 0, "phase": phase}
        strike(COORDINATOR_VARIABLE, place | {"when": "before"})
        answers = super().ask(phase, requests, deadline_s=deadline_s, group=group)
        strike(COORDINATOR_VARIABLE, place | {"when": "after"})
        return answers


@server_app.main()
def main(grid, context):
    server.deployed.Exchange = FaultyExchange
    server.deployed.main(grid, context)
