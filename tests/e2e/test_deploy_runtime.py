"""Real processes over TLS on loopback: the runtime under a trivial app."""

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from client.runtime.reach import reach_server
from common.deployment import SITE_VARIABLE, SiteKit, flower_environment, split_address
from common.errors import WorkFailedError
from common.trust.certificates import make_authority, make_node_key
from server.runtime.bundle import bundle_text
from server.runtime.control import open_control, submit
from server.runtime.link import private_address
from simulations.processes import LocalFederation

pytestmark = pytest.mark.e2e

APPS = Path(__file__).parent / "apps"
SITES = ("north", "south")
BUNDLE = bundle_text("trivial_app:server", "trivial_app:client")


@pytest.fixture(scope="module")
def proxy():
    """A web proxy that the environment names, which lets nobody through: it remembers who asked it."""
    asked, listener = [], socket.create_server(("127.0.0.1", 0))

    def answer():
        with contextlib.suppress(OSError):
            while True:
                caller, _ = listener.accept()
                asked.append(caller.recv(1000))
                caller.close()

    threading.Thread(target=answer, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    listener.close()


@pytest.fixture(scope="module")
def federation(tmp_path_factory, proxy):
    folder = tmp_path_factory.mktemp("federation")
    named = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"), proxy[0])
    environment = {"PYTHONPATH": str(APPS), "FEDCART_PRELOAD": "0", "OMP_NUM_THREADS": "1", **named}
    with LocalFederation(folder, environment) as local:
        local.provision([{"name": name, "population": 1000} for name in SITES], BUNDLE)
        local.start_server()
        for name in SITES:
            local.start_site(name)
        local.wait_online(SITES)
        yield local


def wait_for(path: Path, timeout_s: float = 60.0):
    end = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.1)
    return json.loads(path.read_text())


def run(federation: LocalFederation, name: str) -> dict:
    with open_control(federation.coordinator) as control:
        submit(federation.coordinator, control, name)
    return wait_for(federation.coordinator.runs / f"{name}.json")


def test_every_site_answers_every_exchange_in_a_process_of_its_own_and_none_of_it_goes_to_a_proxy(
    federation, proxy
):
    result = run(federation, "first")
    assert proxy[1] == [], "what is for this machine went out of it"
    pids = [answer["pid"] for e in result["exchanges"] for answer in e["answers"]]
    assert {a["site"] for e in result["exchanges"] for a in e["answers"]} == set(SITES)
    assert len(set(pids)) == len(pids) == 5 * len(SITES)
    randoms = [answer["random"] for e in result["exchanges"] for answer in e["answers"]]
    assert len(set(randoms)) == len(randoms), "forked processes must not share randomness"
    assert {a["config"] for e in result["exchanges"] for a in e["answers"]} == {'{"run": ""}'}
    assert [a["count"] for e in result["exchanges"] for a in e["answers"]] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


FOREIGN_CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from flwr.clientapp import ClientApp
app = ClientApp()
"""


def foreign_bundle(marker: Path) -> bytes:
    """A bundle like ours, but with code of the submitter beside it that would run at import."""
    from flwr.cli.build import build_fab_from_files

    text = bundle_text("trivial_app:server", "thief:app").replace('["pyproject.toml"]', '["*.py"]')
    files = {"pyproject.toml": text.encode(), "thief.py": FOREIGN_CODE.format(marker=str(marker)).encode()}
    return build_fab_from_files(files)[0]


def test_a_foreign_bundle_is_refused_before_anything_of_it_is_imported_and_the_site_goes_on(federation, tmp_path):
    marker = tmp_path / "marker"
    with open_control(federation.coordinator) as control:
        control.start_run(foreign_bundle(marker), {"run": "foreign"})
        end = time.monotonic() + 60
        while not all("refused: bundle" in federation.site(name).log.read_text() for name in SITES):
            assert time.monotonic() < end, "no refusal in the sites' logs"
            time.sleep(0.1)
    unpacked = [path for name in SITES for path in federation.site(name).flower_home.rglob("thief.py")]
    assert not marker.exists() and not unpacked
    assert len(run(federation, "after-foreign")["exchanges"][0]["answers"]) == len(SITES)


def test_a_bundle_with_code_is_refused_even_where_its_digest_is_pinned(federation, tmp_path):
    """The pin came in the kit: a coordinator that wants to run code at a site would pin code."""
    from server.runtime.bundle import bundle_digest

    marker = tmp_path / "marker"
    bundle = foreign_bundle(marker)
    kit = federation.site("north")
    honest = kit.settings.read_text()
    pinned = federation.provisioned.bundle
    federation.stop_site("north")
    kit.settings.write_text(honest.replace(pinned, bundle_digest(bundle)))
    federation.start_site("north")
    federation.wait_online(["north"])
    with open_control(federation.coordinator) as control:
        control.start_run(bundle, {"run": "foreign-pinned"})
        end = time.monotonic() + 60
        while "code would run here" not in kit.log.read_text():
            assert time.monotonic() < end, "no refusal in the site's log"
            time.sleep(0.1)
    assert not marker.exists() and not list(kit.flower_home.rglob("thief.py"))
    federation.stop_site("north")
    kit.settings.write_text(honest)
    federation.start_site("north")
    federation.wait_online(["north"])


def test_an_exception_at_a_site_leaves_it_as_one_word(federation):
    result = run(federation, "fail")
    answers = [answer for e in result["exchanges"] for answer in e["answers"]]
    assert len(answers) == 5 * len(SITES)
    assert {answer["reason"] for answer in answers} == {"failed"}
    places = [federation.coordinator.state, *(federation.site(name).state for name in SITES)]
    for path in (path for place in places for path in place.rglob("*") if path.is_file()):
        assert b"consumer 4711" not in path.read_bytes(), path


def status_of(federation: LocalFederation, address: str, path: str) -> int:
    host, port = split_address(address)
    context = ssl.create_default_context(cafile=str(federation.coordinator.authority))
    connection = http.client.HTTPSConnection(host, port, context=context, timeout=10)
    connection.request("POST", path, body=b"", headers={"content-type": "application/protobuf"})
    return connection.getresponse().status


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/control/start-run", "/v1/control/register-node", "/v1/control/list-nodes", "/v1/control/stop-run"),
        *(
            "/v1/runtime/acquire-task",
            "/v1/runtime/push-messages",
            "/docs",
            "/openapi.json",
            "/v1/fleet/../control/x",
        ),
    ],
)
def test_a_stranger_with_the_certificate_finds_nothing_but_the_fleet_interface(federation, path):
    public = federation.coordinator.read().coordinator.address
    assert status_of(federation, public, path) == 404


def test_the_control_interface_is_closed_on_the_servers_own_machine_to_whoever_lacks_the_token(federation):
    private = private_address(federation.coordinator)
    assert status_of(federation, private, "/v1/control/list-nodes") == 404
    assert status_of(federation, private, "/v1/runtime/acquire-task") in (401, 403)


def kit_copy(federation: LocalFederation, folder: Path) -> SiteKit:
    shutil.copytree(federation.site("north").path, folder)
    shutil.rmtree(folder / "state")
    return SiteKit(folder)


def session_of(kit: SiteKit) -> subprocess.CompletedProcess:
    environment = {**flower_environment(kit, SITE_VARIABLE), "FEDCART_PRELOAD": "0"}
    command = [sys.executable, "-m", "client.runtime.node", str(kit.path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_node_with_a_key_that_was_not_admitted_does_not_get_in(federation, tmp_path):
    kit = kit_copy(federation, tmp_path / "stranger")
    kit.node_key.write_bytes(make_node_key()[0])
    assert session_of(kit).returncode != 0
    with open_control(federation.coordinator) as control:
        assert len(control.nodes()) == len(SITES)


def test_a_site_with_another_authority_does_not_talk_to_this_server(federation, tmp_path):
    kit = kit_copy(federation, tmp_path / "other")
    kit.authority.write_bytes(make_authority("other").certificate_pem)
    assert session_of(kit).returncode != 0
    with pytest.raises(WorkFailedError, match="is refused"):
        reach_server(kit.read().server.address, kit.authority, 5.0)


def test_a_second_start_of_a_running_site_is_refused(federation):
    command = [sys.executable, "-m", "cli.main", "site", "start", str(federation.site("north").path)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    assert "already running" in second.stderr


def test_a_stopped_site_leaves_no_process_behind(federation):
    pid = federation.site_process("south").pid
    family = descendants(pid)
    assert len(family) >= 2
    federation.stop_site("south")
    end = time.monotonic() + 10
    while any(Path(f"/proc/{one}").exists() for one in family):
        assert time.monotonic() < end, "a process outlived its site"
        time.sleep(0.1)
    federation.start_site("south")
    federation.wait_online(["south"])


def descendants(pid: int) -> list[int]:
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(grandchild for child in children for grandchild in descendants(child))]
