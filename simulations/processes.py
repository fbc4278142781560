"""A federation of real processes on this machine, over TLS on loopback: for the demo, tests and benchmarks."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import tomli_w

from common.deployment import CoordinatorKit, Kits, SiteKit
from common.errors import WorkFailedError
from common.processes import STOP_TIMEOUT_S, child_environment, python_command
from server.provision import Provisioned, provision
from server.runtime.control import online_sites, open_control, wait_until_up
from server.runtime.link import free_port

START_TIMEOUT_S = 60.0
POLL_S = 0.25


@dataclass
class LocalFederation:
    """Processes of one federation, each of which can be killed and started again. Ends only its own processes."""

    folder: Path
    extra_environment: Mapping[str, str] = field(default_factory=dict)
    provisioned: Provisioned | None = None
    _server: subprocess.Popen[bytes] | None = None
    _sites: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _before: dict[str, bytes] = field(default_factory=dict)  # site -> its last connection before its start

    @property
    def kits(self) -> Kits:
        """All kits."""
        return Kits(self.folder / "kits")

    @property
    def coordinator(self) -> CoordinatorKit:
        """The coordinator's kit."""
        return self.kits.coordinator

    def site(self, name: str) -> SiteKit:
        """The kit of a site."""
        return self.kits.site(name)

    def provision(
        self, sites: Sequence[Mapping[str, Any]], bundle: str = "", more: Mapping[str, Any] | None = None
    ) -> Provisioned:
        """Make the kits; the server listens on a free loopback port. ``more``: further keys of ``federation.toml``."""
        address = f"127.0.0.1:{free_port()}"
        tree = {
            "name": "local",
            "coordinator": {"address": address, "listen": address},
            "sites": [dict(site) for site in sites],
            **(more or {}),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "federation.toml"
        file.write_text(tomli_w.dumps(tree))
        self.provisioned = provision(file, self.kits.folder, bundle=bundle, approve="auto")
        return self.provisioned

    def start_server(self) -> None:
        """Start the server, wait until it answers, admit the sites. Raises: WorkFailedError."""
        kit = self.coordinator
        self._server = self._start(["server", "start", str(kit.path.resolve())])
        wait_until_up(kit, START_TIMEOUT_S)
        with open_control(kit) as control:
            while len(control.nodes()) < len(list(kit.nodes.glob("*.pub"))):
                time.sleep(POLL_S)

    def start_site(self, name: str) -> None:
        """Start a site."""
        self._before[name] = _session(self.site(name))
        self._sites[name] = self._start(["site", "start", str(self.site(name).path.resolve())])

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            python_command("cli.main", *command),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=child_environment(self.extra_environment),
        )

    def stop_site(self, name: str) -> None:
        """Stop a site cleanly."""
        _end([self._sites.pop(name)])

    def wait_online(self, names: Sequence[str], timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when the server has let in all of these sites since they were started. Raises: WorkFailedError."""
        end = time.monotonic() + timeout_s
        while missing := self._missing(names):
            if time.monotonic() > end:
                raise WorkFailedError(
                    f"sites not connected after {timeout_s:.0f} s: {', '.join(missing)}",
                    hint=f"see {self.site(missing[0]).log}",
                )
            time.sleep(POLL_S)

    def _missing(self, names: Sequence[str]) -> list[str]:
        """Who is not there yet. A site that has just been stopped may still be online for the server: so both must say it."""
        online = self._online()
        return [
            name
            for name in names
            if not online.get(name) or (name in self._before and _session(self.site(name)) == self._before[name])
        ]

    def _online(self) -> dict[str, bool]:
        """Which sites the server sees; none while it starts again."""
        try:
            with open_control(self.coordinator) as control:
                return online_sites(self.coordinator, control)
        except WorkFailedError:
            return {}

    def site_process(self, name: str) -> subprocess.Popen[bytes]:
        """The supervisor's process of a site."""
        return self._sites[name]

    @property
    def server_process(self) -> subprocess.Popen[bytes]:
        """The server's process. Raises: WorkFailedError if none was started."""
        if self._server is None:
            raise WorkFailedError("the server was not started")
        return self._server

    def stop(self) -> None:
        """End all processes of this federation: SIGTERM, then SIGKILL."""
        _end([*self._sites.values(), *([self._server] if self._server else [])])
        self._sites.clear()
        self._server = None

    def __enter__(self) -> LocalFederation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _session(kit: SiteKit) -> bytes:
    return kit.session.read_bytes() if kit.session.exists() else b""


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    end = time.monotonic() + STOP_TIMEOUT_S + 5
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
