"""Connections to the public port: how many, of whom, and for how long without a word.

Counted where they are accepted, so that those which never finish a TLS handshake count too.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

KEPT_FILES = 256  # for all that is no connection of the public port
HANDSHAKE_S = 10.0
HEADERS_S = 10.0
LINGER_S = 1.0


@dataclass(frozen=True)
class DoorLimits:
    """``per_address``: connections of one address, ``in_all``: of everybody (0: what the file limit leaves).

    ``proxies``: addresses of reverse proxies, behind which all sites are; they keep the count themselves.
    """

    per_address: int = 256
    in_all: int = 0
    proxies: tuple[str, ...] = ()
    headers_s: float = HEADERS_S


@dataclass
class Visitors:
    """Open connections by address."""

    limits: DoorLimits
    most: int
    open: Counter[str] = field(default_factory=Counter)

    def enter(self, address: str) -> bool:
        """Count one more, if there is room for it."""
        if self.open.total() >= self.most:
            return False
        if address not in self.limits.proxies and self.open[address] >= self.limits.per_address:
            return False
        self.open[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One less."""
        self.open[address] -= 1
        if self.open[address] <= 0:
            del self.open[address]


def raise_file_limit() -> int:
    """Let this process open as many files as the system lets it, and return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


class _Counted(socket.socket):
    """A connection that says when it is over."""

    visitors: Visitors
    address: str = ""

    def close(self) -> None:
        """Close, and make room."""
        if self.address:
            self.visitors.leave(self.address)
            self.address = ""
        super().close()


class Door(socket.socket):
    """A listening socket that lets in only so many. For the loop of asyncio, which calls ``accept``; uvloop does not."""

    visitors: Visitors

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that may come in; whoever may not is hung up on. Raises: BlockingIOError if there is none."""
        while True:
            connection, address = super().accept()
            host = str(address[0])
            if not self.visitors.enter(host):
                connection.close()
                continue
            counted = _Counted(connection.family, connection.type, connection.proto, connection.detach())
            counted.visitors, counted.address = self.visitors, host
            return counted, address


def open_doors(address: tuple[str, int], limits: DoorLimits) -> list[Door]:
    """Listening sockets on every address that the name stands for. Raises: OSError."""
    most = limits.in_all or max(64, raise_file_limit() - KEPT_FILES)
    visitors, doors = Visitors(limits, most), []
    infos = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, where in dict.fromkeys(infos):
        door = Door(family, kind, protocol)
        door.visitors = visitors
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        door.bind(where)
        door.setblocking(False)
        doors.append(door)
    return doors


def impatient(base: type[Any], headers_s: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, which hangs up on whoever takes too long over the headers of a request.

    It has a limit of its own for silence after an answer, and none before the first request, nor for half a header.
    """

    class Impatient(base):  # type: ignore[misc]
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._wait_no_more()
            elif self._late is None:
                self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.is_closing():  # an orderly end waits for the other side, which may go on sending
                self.loop.call_later(LINGER_S, self.transport.abort)

        def connection_lost(self, error: Exception | None) -> None:
            self._wait_no_more()
            super().connection_lost(error)

        def _wait(self) -> None:
            self._late = self.loop.call_later(headers_s, self._hang_up)

        def _wait_no_more(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _hang_up(self) -> None:
            self._late = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()

    return Impatient


def hurry_handshakes(seconds: float = HANDSHAKE_S) -> None:
    """End a TLS handshake that takes longer: asyncio's own limit is a minute, and uvicorn passes none."""
    import asyncio.constants

    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = seconds


def proxies_of(text: str) -> tuple[str, ...]:
    """Addresses from a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
