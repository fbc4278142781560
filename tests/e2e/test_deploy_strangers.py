"""Real processes, with strangers at the port, or with a reverse proxy between: the sites are heard.

haproxy, under the configuration of docs/deploy.md, is in the ci tier: tests/ci/test_reverse_proxy.py.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.runtime.bundle import bundle_text
from server.runtime.control import open_control, submit
from server.runtime.door import DoorLimits
from server.runtime.link import LINK_FILE, PROXIES_VARIABLE
from simulations.processes import LocalFederation
from tests.reverse_proxies import Proxy, address_of, endless_body, idle_connections, lead_through

pytestmark = pytest.mark.e2e

APPS = Path(__file__).parent / "apps"
SITES = ("north", "south")
BUNDLE = bundle_text("trivial_app:server", "trivial_app:client")


@pytest.fixture(params=["direct", "proxy"])
def federation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalFederation]:
    environment = {"PYTHONPATH": f"{APPS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "FEDCART_PRELOAD": "0"}
    if request.param == "proxy":
        environment[PROXIES_VARIABLE] = "127.0.0.1"
    with LocalFederation(tmp_path, environment) as local:
        local.provision([{"name": name, "population": 1000} for name in SITES], BUNDLE)
        local.start_server()
        proxy = Proxy(address_of(local)) if request.param == "proxy" else None
        if proxy is not None:
            lead_through(proxy, local, SITES)
        for name in SITES:
            local.start_site(name)
        local.wait_online(SITES)
        yield local
        if proxy is not None:
            assert proxy.passed > 0
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


def test_strangers_with_idle_connections_and_an_endless_body_stop_nobody(federation: LocalFederation) -> None:
    before, where = resident_mib(federation), address_of(federation)
    with idle_connections(where, 1_009, DoorLimits().per_address):
        endless_body(where)
        assert sorted(answers(federation, "under-strangers")) == sorted(SITES * 5)
        assert resident_mib(federation) < before + 100
