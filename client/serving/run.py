"""A service on an address until it is told to stop: sockets, signals, snapshots."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import client.serving.feed as feed
from client.serving.door import Door
from client.serving.service import Service
from common.errors import BadInputError, ConfigError, FedcartError, WorkFailedError

MOST_CONNECTIONS = 512
IDLE_S = 15
_log = logging.getLogger("fedcart.serve")


@dataclass(frozen=True)
class Address:
    """Where to listen, and by what a caller is known. Port 0: any free one. ``token``: empty for none.

    ``input``: a descriptor from which events are read too.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: bytes = b""
    certificate: Path | None = None
    key: Path | None = None
    client_authority: Path | None = None
    input: int | None = None

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def check(self) -> None:
        """Raises: ConfigError for an address that others reach and where nobody is asked who they are."""
        if (self.certificate is None) != (self.key is None) or (self.client_authority and not self.certificate):
            raise ConfigError(
                "TLS needs a certificate and its key", hint="--tls-cert FILE --tls-key FILE [--tls-client-ca FILE]"
            )
        if not self.local and not self.token and self.client_authority is None:
            raise ConfigError(
                f"{self.host} can be reached by others, and nobody would be asked who they are",
                hint="--token-file FILE, or --tls-cert, --tls-key and --tls-client-ca, or stay on 127.0.0.1",
            )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(service: Service, door: Door, address: Address, every_s: float, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; the state is kept every so many seconds, and at the end.

    ``tell`` is called with the address once it listens. Raises: ConfigError (address), WorkFailedError (disk, at the end).
    """
    listening = _socket(address)
    try:
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            runner.run(_serve(service, door, (address, listening), every_s, tell))
    finally:
        listening.close()
    if service.parts.live is not None and service.changed:
        service.keep(service.frozen())


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop where it is installed; None for Python's own."""
    from importlib import import_module
    from importlib.util import find_spec

    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if find_spec("uvloop") is not None:
        factory = import_module("uvloop").new_event_loop
    return factory


def _socket(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # or asyncio leaves Nagle on
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((address.host, address.port))
    except OSError as error:
        made.close()
        raise ConfigError(
            f"cannot listen on {address.host}:{address.port}: {error.strerror}", hint="choose another --port"
        ) from None
    return made


async def _serve(
    service: Service, door: Door, where: tuple[Address, socket.socket], every_s: float, tell: Callable[[str], None]
) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # ours: a signal must not end the process before the state is kept

    address, listening = where
    try:
        server = Server(uvicorn.Config(door, **_options(address)))
        server.config.load()
    except (OSError, ssl.SSLError, ValueError) as error:
        raise BadInputError(f"TLS cannot be used: {error}", hint="PEM files, the key without a password") from None

    def stop() -> None:
        door.ready, server.should_exit = False, True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    keeping = asyncio.create_task(_keep(service, every_s))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        if address.input is not None:
            feed.start(service, address.input, _print, asyncio.get_running_loop())
        tell(f"{'https' if address.certificate else 'http'}://{name}:{port}")
    await serving
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.flush()


def protocol_class() -> Any:
    """Ours where the fast parser is installed, which has no bound; the slow one has its own."""
    from importlib.util import find_spec

    if find_spec("httptools") is None:
        return "h11"
    from client.serving.protocol import BoundedProtocol

    return BoundedProtocol


def _options(address: Address) -> dict[str, Any]:
    options: dict[str, Any] = {
        "log_level": "critical", "access_log": False, "lifespan": "off", "server_header": False, "log_config": None,
        "limit_concurrency": MOST_CONNECTIONS, "timeout_keep_alive": IDLE_S, "timeout_graceful_shutdown": 5, "ws": "none",
        "proxy_headers": False, "http": protocol_class(),
    }  # fmt: skip
    if address.certificate is not None:
        options |= {"ssl_certfile": str(address.certificate), "ssl_keyfile": str(address.key)}
    if address.client_authority is not None:
        options |= {"ssl_ca_certs": str(address.client_authority), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options


async def _keep(service: Service, every_s: float) -> None:
    """Keep what has changed, beside the work."""
    while True:
        await asyncio.sleep(every_s)
        if service.parts.live is None or not service.changed:
            continue
        begin, frozen = time.monotonic(), service.frozen()
        try:
            await asyncio.to_thread(service.keep, frozen)
        except WorkFailedError as error:
            _log.error("the state could not be kept: %s", error.message)
        _log.debug("state kept in %.2f s", time.monotonic() - begin)


def read_token(path: Path) -> bytes:
    """The token in a file that only its owner can read; made if it is not there. Raises: FedcartError."""
    import secrets
    import stat

    from common.atomic import create_atomic, read_small

    try:
        if not path.exists():
            create_atomic(path, secrets.token_urlsafe(32).encode() + b"\n", mode=0o600)
        token, mode = read_small(path, 4_096).strip(), stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}", hint="name a file of yours") from None
    except FedcartError as error:
        raise BadInputError(error.message, hint=error.hint) from None
    if len(token) < 16 or any(byte <= 32 or byte > 126 for byte in token):
        raise BadInputError(
            f"{path} holds no token", hint="16 or more visible characters; or a new file, which is made"
        )
    if mode & 0o077:
        raise BadInputError(f"{path} can be read by others", hint=f"chmod 600 {path}")
    return token
