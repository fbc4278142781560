"""haproxy under the configuration of docs/deploy.md: a whole honest run passes through it, a stranger's flood does not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.audit.verify import verify_path
from server.runtime.link import PROXIES_VARIABLE
from simulations.demo import site_names, write_demo
from simulations.processes import LocalFederation
from tests.reverse_proxies import (
    Haproxy,
    address_of,
    documented_configuration,
    endless_body,
    idle_connections,
    lead_through,
    still_open,
)

pytestmark = pytest.mark.ci
SITES = 3
LIMIT = re.compile(r"sc0_conn_cur gt (\d+)")


def limit_of_one_address() -> int:
    """What the documented configuration leaves to one address: it counts the connection that comes in, too."""
    return int(LIMIT.findall(documented_configuration())[0])


@pytest.fixture(scope="module")
def behind_haproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalFederation, Haproxy]]:
    """Server, haproxy in front of it, and sites that know haproxy's address only."""
    folder = tmp_path_factory.mktemp("haproxy")
    files = write_demo(folder / "data", sites=SITES, consumers=450, rounds=2)
    names = site_names(files)
    with LocalFederation(folder, {PROXIES_VARIABLE: "127.0.0.1", "OMP_NUM_THREADS": "1"}) as local:
        local.provision(files.sites)
        local.start_server()
        proxy = Haproxy(address_of(local), folder)
        try:
            lead_through(proxy, local, names)
            for name in names:
                local.start_site(name)
            local.wait_online(names)
            yield local, proxy
        finally:
            proxy.stop()


def test_the_documented_configuration_is_one_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "haproxy.cfg").write_text(documented_configuration())
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "haproxy"
    done = subprocess.run([program, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"WARNING|ALERT", done.stderr + done.stdout)


def test_a_whole_run_passes_while_a_stranger_floods_the_proxy(
    behind_haproxy: tuple[LocalFederation, Haproxy],
) -> None:
    federation, proxy = behind_haproxy
    host, port = proxy.address.split(":")
    where = (host, int(port))
    with idle_connections(where, 1_009, limit_of_one_address()) as idle:
        assert idle, "the stranger was not let in at all: then this test shows nothing"
        assert endless_body(where) < 1 << 28
        words = ["server", "run", str(federation.coordinator.path), str(federation.folder / "data/run.toml")]
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *words, "--json"], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        end = time.monotonic() + 30
        while (left := still_open(idle)) and time.monotonic() < end:
            time.sleep(0.5)
        assert not left, "who says nothing is not hung up on"
    summary = json.loads(done.stdout)
    assert (summary["status"], summary["rounds"], summary["sums"]) == ("completed", 2, 2)
    run = max(federation.coordinator.runs.glob("*/run.toml"), key=lambda path: path.stat().st_mtime_ns).parent
    assert verify_path(run).findings == []
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [{one["status"] for one in record["sites"].values()} for record in records] == [{"ok"}] * 3
    assert all(len(record["sites"]) == SITES for record in records)
