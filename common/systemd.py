"""Under systemd: the unit of a party, written on its own machine, and the words that a service says to its manager.

A unit that was delivered would be code: it says what is run, and as whom.
Source: systemd.exec(5), systemd.service(5), systemd.syntax(7), sd_notify(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import BadInputError

HIDDEN = ("/home", "/root", "/run/user")  # what ProtectHome=yes hides
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108  what PrivateTmp=yes hides
READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"
WATCHDOG_S = 120
HARDENED = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
LockPersonality=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
"""


@dataclass(frozen=True)
class Unit:
    """What a unit says. ``reads`` and ``writes``: all paths that the service needs; ``more``: lines of [Service], whole."""

    name: str
    description: str
    user: str
    command: Sequence[str]
    reads: Sequence[Path]
    writes: Sequence[Path]
    more: str = ""

    def text(self) -> str:
        """The file. Raises: BadInputError for a path or a name that no unit can hold."""
        needed = [*self.reads, *self.writes]
        return f"""\
# For /etc/systemd/system/{self.name}.service, then: systemctl enable --now {self.name}
[Unit]
Description={_plain(self.description)}
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
WatchdogSec={WATCHDOG_S}
User={word(self.user)}
WorkingDirectory=/
ExecStart={" ".join(word(part).replace("$", "$$") for part in self.command)}
{self.more}Restart=on-failure
RestartSec=30
TimeoutStopSec=30
UMask=0077
{HARDENED}PrivateTmp={"no" if _any_below(needed, TEMPORARY) else "yes"}
ProtectHome={"read-only" if _any_below(needed, HIDDEN) else "yes"}
ReadWritePaths={" ".join(word(str(path)) for path in self.writes)}

[Install]
WantedBy=multi-user.target
"""


def notify(word_of_it: str) -> None:
    """Tell the service manager; nothing where there is none, or where it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(word_of_it.encode(), "\0" + address[1:] if address[0] == "@" else address)


def word(text: str) -> str:
    """One word of a unit's line, quoted; of a command line, each dollar must be doubled too. Raises: BadInputError."""
    plain = _plain(text).replace("\\", "\\\\").replace('"', '\\"')
    return plain if plain == text and not set(text) & set(" ';$") else f'"{plain}"'


def _plain(text: str) -> str:
    if not text.isprintable():
        raise BadInputError(f"{text!a} cannot stand in a unit", hint="move the kit to a plain path")
    return text.replace("%", "%%")


def _any_below(paths: Sequence[Path], places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(place) for path in paths for place in places)
