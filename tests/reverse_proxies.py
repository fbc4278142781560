"""Reverse proxies in front of a federation of real processes, and strangers who knock at its port."""

from __future__ import annotations

import contextlib
import selectors
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.deployment import split_address
from server.runtime.link import free_port
from simulations.processes import LocalFederation

ROOT = Path(__file__).parents[1]
STRANGER = "127.0.0.2"


class Proxy:
    """A reverse proxy that passes TLS through untouched, as haproxy (mode tcp) and nginx (stream) do."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.passed = 0
        self._target = target
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                incoming, _ = self.listener.accept()
                self.passed += 1
                outgoing = socket.create_connection(self._target)
                threading.Thread(target=_pipe, args=(incoming, outgoing), daemon=True).start()


def _pipe(one: socket.socket, other: socket.socket) -> None:
    with one, other, contextlib.suppress(OSError), selectors.DefaultSelector() as ready:
        ready.register(one, selectors.EVENT_READ)
        ready.register(other, selectors.EVENT_READ)
        while True:
            for source in [key.fileobj for key, _ in ready.select()]:
                assert isinstance(source, socket.socket)
                data = source.recv(65_536)
                if not data:
                    return
                (other if source is one else one).sendall(data)


def documented_configuration() -> str:
    """The configuration of docs/deploy.md, letter by letter."""
    return (ROOT / "docs/deploy.md").read_text().split("# haproxy.cfg\n")[1].split("```")[0]


class Haproxy:
    """haproxy under the documented configuration, with addresses of this machine."""

    def __init__(self, target: tuple[str, int], folder: Path) -> None:
        program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
        assert program is not None, "haproxy is not installed: sudo .ci/services"
        self.address = f"127.0.0.1:{free_port()}"
        documented = documented_configuration()
        assert documented.count("*:9443") == documented.count("10.0.0.7:9443") == 1
        own = documented.replace("*:9443", self.address).replace("10.0.0.7:9443", "{}:{}".format(*target))
        (folder / "haproxy.cfg").write_text(own)
        command = [program, "-db", "-f", str(folder / "haproxy.cfg")]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def lead_through(proxy: Proxy | Haproxy, federation: LocalFederation, sites: Sequence[str]) -> None:
    """Let the sites connect to the proxy in place of the server."""
    listen = federation.coordinator.read().coordinator.listen
    for name in sites:
        file = federation.site(name).path / "site.toml"
        text = file.read_text()
        assert listen in text
        file.write_text(text.replace(listen, proxy.address))


def address_of(federation: LocalFederation) -> tuple[str, int]:
    """Where the server itself listens."""
    return split_address(federation.coordinator.read().coordinator.listen)


def is_over(connection: socket.socket) -> bool:
    """Whether the other side has hung up already."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def knock(where: tuple[str, int], source: str = STRANGER) -> socket.socket:
    """A stranger's connection. Raises: OSError."""
    return socket.create_connection(where, timeout=10, source_address=(source, 0))


@contextlib.contextmanager
def idle_connections(where: tuple[str, int], count: int, most_open: int) -> Iterator[list[socket.socket]]:
    """So many connections of one stranger, of which no more than ``most_open`` are left to him."""
    with contextlib.ExitStack() as kept:
        idle: list[socket.socket] = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                idle.append(kept.enter_context(knock(where)))
        left = still_open(idle)
        end = time.monotonic() + 8
        while len(left) > most_open and time.monotonic() < end:
            time.sleep(0.2)
            left = still_open(left)
        assert len(left) <= most_open
        yield left


def still_open(connections: Sequence[socket.socket]) -> list[socket.socket]:
    """Those on which nobody has hung up yet."""
    return [one for one in connections if not is_over(one)]


def endless_body(where: tuple[str, int], most: int = 1 << 28) -> int:
    """A stranger's POST without an end. Returns: the bytes that he got rid of before he was hung up on."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sent = 0
    with contextlib.suppress(OSError), knock(where) as raw, context.wrap_socket(raw) as at:
        at.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        while sent < most:
            at.sendall(b"10000\r\n" + bytes(65_536) + b"\r\n")
            sent += 65_536
    return sent
