"""The port that everybody can reach: what is read of a stranger, how long, and from how many."""

from __future__ import annotations

import contextlib
import datetime
import resource
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from common.atomic import write_atomic
from common.flower import private
from common.trust.certificates import (
    issue_server_certificate,
    load_node_key,
    make_authority,
    make_node_key,
    node_public_pem,
)
from server.runtime.door import DoorLimits, Visitors, impatient, open_doors, raise_file_limit
from server.runtime.gate import BodyLimits, admitted_only


class Echo:
    """An app that says how long the body was, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        size, more = 0, True
        while more:
            part = await receive()
            size, more = size + len(part.get("body", b"")), part.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
        await send({"type": "http.response.body", "body": b"%8d" % size})


REFUSED = b"hung up"


class Port:
    """A public port with small limits, over TLS, in a thread; and a site that may speak to it."""

    def __init__(self, folder: Path) -> None:
        authority = make_authority("t")
        certificate, key = issue_server_certificate(authority, ["localhost", "127.0.0.1"], 30)
        (folder / "server.crt").write_bytes(certificate)
        write_atomic(folder / "server.key", key, mode=0o600)
        secret, public = make_node_key()
        write_atomic(folder / "node.key", secret, mode=0o600)
        self.key, self.pem = load_node_key(folder / "node.key"), node_public_pem(public)
        self.app = Echo()
        bounds = BodyLimits(object_bytes=200_000, other_bytes=100_000, grace_s=0.5, bytes_per_s=1e6)
        protocol = impatient(AutoHTTPProtocol, 0.5)
        config = uvicorn.Config(
            admitted_only(self.app, [self.pem], bounds), lifespan="off", log_level="critical", http=protocol, loop="asyncio",
            ssl_certfile=folder / "server.crt", ssl_keyfile=folder / "server.key",
        )  # fmt: skip
        self.doors = open_doors(("127.0.0.1", 0), DoorLimits(per_address=20))
        self.address = self.doors[0].getsockname()[:2]
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: self._server.run(list(self.doors)), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    def connect(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        raw = socket.create_connection(self.address, timeout=5, source_address=(source, 0))
        return context.wrap_socket(raw)

    def headers(self) -> str:
        """What a site that was admitted signs."""
        said = datetime.datetime.now(datetime.UTC).isoformat()
        signature = self.key.sign(said.encode(), ec.ECDSA(hashes.SHA256()))
        return (
            f"flwr-public-key: {b64encode(self.pem).decode()}\r\n{private('TIMESTAMP_HEADER')}: {said}\r\n"
            f"flwr-signature: {b64encode(signature).decode()}\r\n"
        )

    def post(
        self, body: bytes, *, signed: bool = True, path: str = "/v1/fleet/pull-messages", **extra: str
    ) -> bytes:
        size = f"content-length: {len(body)}\r\n"
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{self.headers() if signed else ''}{size}\r\n"
        return self.send(head, body, **extra)

    def send(self, head: str, body: bytes, **extra: str) -> bytes:
        """What is answered, or REFUSED: who is refused may be hung up on before he has read why."""
        with self.connect(**extra) as at:
            try:
                at.sendall(head.encode() + body)
                return at.recv(4_000) or REFUSED
            except OSError:
                return REFUSED


def hung_up(connection: socket.socket) -> bool:
    """Whether the other side has ended a connection on which nothing was said."""
    connection.settimeout(0.02)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    made = Port(tmp_path)
    yield made
    made.stop()


def test_an_admitted_site_is_heard(port: Port) -> None:
    assert b"200" in port.post(b"x" * 50_000)[:20]
    assert port.app.asked == 1


def test_of_a_stranger_nothing_but_the_headers_is_read(port: Port) -> None:
    assert b"403" in port.post(b"", signed=False)[:20]
    with port.connect() as at:  # an endless body, before anything is proven
        at.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 10:
                at.sendall(b"10000\r\n" + bytes(65_536) + b"\r\n")
                time.sleep(0.01)
    assert time.monotonic() - began < 5, "the connection was not ended"
    assert port.app.asked == 0


@pytest.mark.parametrize(
    "change", [("flwr-signature: ", "flwr-signature: AAAA"), ("flwr-public-key: ", "flwr-public-key: AAAA")]
)
def test_another_key_or_signature_is_a_strangers(port: Port, change: tuple[str, str], monkeypatch: Any) -> None:
    honest = port.headers()
    monkeypatch.setattr(port, "headers", lambda: honest.replace(*change))
    assert b"403" in port.post(b"x")[:20]
    assert port.app.asked == 0


def test_a_body_over_its_cap_is_refused_by_its_length_and_by_its_bytes(port: Port) -> None:
    answer = port.post(bytes(100_001))
    assert answer == REFUSED or b"413" in answer[:20]
    assert port.app.asked == 0
    assert b"200" in port.post(bytes(150_000), path="/v1/fleet/push-object")[:20]
    head = f"POST /v1/fleet/get-run HTTP/1.1\r\nhost: x\r\n{port.headers()}transfer-encoding: chunked\r\n\r\n"
    answer = port.send(head, (b"10000\r\n" + bytes(65_536) + b"\r\n") * 3 + b"0\r\n\r\n")
    assert answer == REFUSED or b"413" in answer[:20]


def test_a_body_that_does_not_come_is_not_waited_for(port: Port) -> None:
    with port.connect() as at:
        at.sendall(
            f"POST /v1/fleet/get-run HTTP/1.1\r\nhost: x\r\n{port.headers()}content-length: 9\r\n\r\nx".encode()
        )
        assert b"408" in at.recv(100)


@pytest.mark.parametrize("word", [b"", b"POST /v1/fl", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_who_does_not_come_to_the_point_is_hung_up_on(port: Port, word: bytes) -> None:
    with port.connect() as at:
        if word:
            at.sendall(word)
        began = time.monotonic()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert at.recv(100) == b""
        assert time.monotonic() - began < 3


def test_idle_connections_of_one_address_shut_out_nobody_else(port: Port) -> None:
    idle: list[socket.socket] = []
    for _ in range(60):  # some with a handshake, some without
        with contextlib.suppress(OSError):
            idle.append(socket.create_connection(port.address, timeout=2))
    assert b"200" in port.post(b"x", source="127.0.0.2")[:20]
    assert sum(hung_up(one) for one in idle) >= 40
    for one in idle:
        one.close()
    end = time.monotonic() + 5
    while port.doors[0].visitors.open.total() and time.monotonic() < end:
        time.sleep(0.05)
    assert not port.doors[0].visitors.open, "a connection that is over is still counted"
    assert b"200" in port.post(b"x")[:20]


def test_a_proxy_may_bring_more_than_one_address_may_and_all_together_have_a_limit() -> None:
    visitors = Visitors(DoorLimits(per_address=2, proxies=("10.0.0.1",)), most=5)
    assert [visitors.enter("10.0.0.9") for _ in range(3)] == [True, True, False]
    assert [visitors.enter("10.0.0.1") for _ in range(4)] == [True, True, True, False]
    visitors.leave("10.0.0.9")
    assert visitors.enter("10.0.0.1")


def test_the_file_limit_is_raised_to_what_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
