"""Real processes over TLS on loopback: the runtime under a trivial app."""

import json
import time
from pathlib import Path

import pytest

from server.runtime.bundle import bundle_text
from server.runtime.control import open_control, submit
from simulations.processes import LocalFederation

pytestmark = pytest.mark.e2e

APPS = Path(__file__).parent / "apps"
SITES = ("north", "south")
BUNDLE = bundle_text("trivial_app:server", "trivial_app:client")


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation")
    environment = {"PYTHONPATH": str(APPS), "FEDCART_PRELOAD": "0", "OMP_NUM_THREADS": "1"}
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


def test_every_site_answers_every_exchange_in_a_process_of_its_own(federation):
    result = run(federation, "first")
    pids = [answer["pid"] for e in result["exchanges"] for answer in e["answers"]]
    assert {a["site"] for e in result["exchanges"] for a in e["answers"]} == set(SITES)
    assert len(set(pids)) == len(pids) == 5 * len(SITES)
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


def test_the_same_foreign_bundle_does_run_where_its_digest_is_pinned(federation, tmp_path):
    """The attack above is real: with the check out of the way the code of the bundle is executed."""
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
        while not marker.exists():
            assert time.monotonic() < end, "the attack does not work at all"
            time.sleep(0.1)
    federation.stop_site("north")
    kit.settings.write_text(honest)
    federation.start_site("north")
    federation.wait_online(["north"])
