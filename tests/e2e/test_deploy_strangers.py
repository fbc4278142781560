"""Real processes, with strangers at the port, or with a reverse proxy between: the sites are heard."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.deployment import split_address
from server.runtime.bundle import bundle_text
from server.runtime.control import open_control, submit
from server.runtime.door import DoorLimits
from server.runtime.link import LINK_FILE, PROXIES_VARIABLE, free_port
from simulations.processes import LocalFederation

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
APPS = Path(__file__).parent / "apps"
SITES = ("north", "south")
BUNDLE = bundle_text("trivial_app:server", "trivial_app:client")
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


class Haproxy:
    """haproxy under the configuration of docs/deploy.md, with addresses of this machine."""

    passed = 1

    def __init__(self, target: tuple[str, int], folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        documented = (ROOT / "docs/deploy.md").read_text().split("# haproxy.cfg\n")[1].split("```")[0]
        own = documented.replace("*:9443", self.address).replace("10.0.0.7:9443", "{}:{}".format(*target))
        (folder / "haproxy.cfg").write_text(own)
        command = [str(shutil.which("haproxy")), "-db", "-f", str(folder / "haproxy.cfg")]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def _is_over(connection: socket.socket) -> bool:
    """Whether the server has hung up already."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


without_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")


@pytest.fixture(params=["direct", "proxy", pytest.param("haproxy", marks=without_haproxy)])
def knocked_at(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[LocalFederation, tuple[str, int]]]:
    """A federation, and where strangers knock: haproxy counts them itself."""
    environment = {"PYTHONPATH": f"{APPS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "FEDCART_PRELOAD": "0"}
    if request.param != "direct":
        environment[PROXIES_VARIABLE] = "127.0.0.1"
    with LocalFederation(tmp_path, environment) as local:
        local.provision([{"name": name, "population": 1000} for name in SITES], BUNDLE)
        local.start_server()
        proxy: Proxy | Haproxy | None = None
        if request.param != "direct":
            listen = local.coordinator.read().coordinator.listen
            proxy = (
                Proxy(split_address(listen))
                if request.param == "proxy"
                else Haproxy(split_address(listen), tmp_path)
            )
            for name in SITES:
                file = local.site(name).path / "site.toml"
                file.write_text(file.read_text().replace(listen, proxy.address))
        for name in SITES:
            local.start_site(name)
        local.wait_online(SITES)
        try:
            yield (
                local,
                split_address(
                    proxy.address if isinstance(proxy, Haproxy) else local.coordinator.read().coordinator.listen
                ),
            )
            assert proxy is None or proxy.passed > 0
        finally:
            if proxy is not None:
                proxy.stop()


def answers(federation: LocalFederation, name: str, timeout_s: float = 90) -> list[str]:
    with open_control(federation.coordinator) as control:
        submit(federation.coordinator, control, name)
    path, end = federation.coordinator.runs / f"{name}.json", time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < end, "the run does not end"
        time.sleep(0.1)
    return [answer["site"] for one in json.loads(path.read_text())["exchanges"] for answer in one["answers"]]


def resident_mib(federation: LocalFederation) -> float:
    pid = json.loads((federation.coordinator.state / LINK_FILE).read_text())["pid"]
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def test_strangers_with_idle_connections_and_an_endless_body_stop_nobody(
    knocked_at: tuple[LocalFederation, tuple[str, int]],
) -> None:
    federation, where = knocked_at
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    before, sent = resident_mib(federation), 0

    def connect() -> socket.socket:
        return socket.create_connection(where, timeout=10, source_address=(STRANGER, 0))

    with contextlib.ExitStack() as kept:
        idle = []
        for _ in range(1_009):
            with contextlib.suppress(OSError):
                idle.append(kept.enter_context(connect()))
        end = time.monotonic() + 8
        open_still = {one for one in idle if not _is_over(one)}
        while len(open_still) > DoorLimits().per_address and time.monotonic() < end:
            open_still = {one for one in open_still if not _is_over(one)}
            time.sleep(0.2)
        assert len(open_still) <= DoorLimits().per_address
        with contextlib.suppress(OSError), connect() as raw, context.wrap_socket(raw) as at:
            at.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            while sent < 1 << 28:
                at.sendall(b"10000\r\n" + bytes(65_536) + b"\r\n")
                sent += 65_536
        assert sorted(answers(federation, "under-strangers")) == sorted(SITES * 5)
        assert resident_mib(federation) < before + 100
