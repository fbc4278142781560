"""The crash matrix with real processes: minutes each, run by hand before a release."""

import json
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from common.deployment import split_address
from simulations.demo import site_names, write_demo
from simulations.processes import LocalFederation
from tests.e2e.test_deploy_story import child, edit, fedcart, folders, ledgers_are_intact, newest, run, wait_until

pytestmark = pytest.mark.soak
PHASES = ("advertise", "share", "mask", "confirm", "unmask")
VICTIM = "merchant-2"


class Proxy:
    """A line between one site and the server that can be cut."""

    def __init__(self, address: str) -> None:
        self._target = split_address(address)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut = True
        for one in self._open:
            one.close()
        self._open.clear()

    def mend(self) -> None:
        self._cut = False

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if self._cut:
                near.close()
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:  # the server is starting again
                near.close()
                continue
            self._open += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            sink.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soak")
    files = write_demo(folder / "data", sites=4, consumers=1_000, rounds=2)
    edit(files.run, "exchange_deadline_s = 60.0", "exchange_deadline_s = 25.0")
    with LocalFederation(folder, {"OMP_NUM_THREADS": "1"}) as local:
        local.provision(files.sites)
        proxy = Proxy(local.coordinator.read().coordinator.address)
        for name in site_names(files):
            edit(local.site(name).policy, r"epsilon_max = .*", "epsilon_max = 1000.0")
        edit(local.site(VICTIM).settings, r'address = ".*"', f'address = "{proxy.address}"')
        local.start_server()
        for name in site_names(files):
            local.start_site(name)
        local.wait_online(site_names(files))
        yield local, proxy


def reached(local: LocalFederation, before: set[Path], number: int, phase: str) -> bool:
    for folder in folders(local) - before:
        try:
            now = json.loads((folder / "progress.json").read_text())
        except (OSError, ValueError):
            continue
        if (now["round"], now["phase"]) == (number, phase):
            return True
    return False


def charged_once(local: LocalFederation) -> None:
    for entries in ledgers_are_intact(local).values():
        commits = [e["body"]["reserve"] for e in entries if "outbox" in e["body"]]
        assert len(commits) == len(set(commits))


@pytest.mark.parametrize("phase", PHASES)
def test_a_site_killed_in_any_phase_is_back_for_the_next_run_and_the_federation_goes_on(world, phase):
    local, _ = world
    before = folders(local)
    program = run(local, "privacy.holdout=0", f"name=kill-{phase}")
    wait_until(lambda: reached(local, before, 1, phase), f"no {phase} in round 1", 200)
    os.killpg(child(local.site_process(VICTIM).pid), signal.SIGKILL)
    _, err = program.communicate(timeout=500)
    assert program.returncode == 0, err
    assert [record.answered >= 3 or bool(record.aborted) for record in newest(local).metrics()] == [True, True]
    local.wait_online([VICTIM], 120)
    charged_once(local)


@pytest.mark.parametrize("phase", PHASES)
def test_a_server_app_killed_in_any_phase_resumes_from_the_last_finished_round(world, phase):
    local, _ = world
    before = folders(local)
    program = run(local, "privacy.holdout=0", f"name=app-{phase}")
    wait_until(lambda: reached(local, before, 2, phase), f"no {phase} in round 2", 300)
    first = newest(local).metrics()[0]
    os.kill(server_app(local), signal.SIGKILL)
    _, err = program.communicate(timeout=300)
    assert program.returncode == 1, err
    program = fedcart("server", "resume", local.coordinator.path, "--json")
    out, err = program.communicate(timeout=500)
    assert program.returncode == 0, err
    assert json.loads(out)["rounds"] == 2
    assert newest(local).metrics()[0] == first
    charged_once(local)


def server_app(local: LocalFederation) -> int:
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except (OSError, ValueError):
            continue
        if b"flwr-serverapp" in command and str(local.coordinator.path).encode() in environment:
            return int(entry.name)
    raise AssertionError("no server app is running")


def test_a_line_cut_for_more_than_a_minute_costs_rounds_of_that_site_only(world):
    local, proxy = world
    before = folders(local)
    program = run(local, "training.rounds=3", "privacy.holdout=0", "name=cut")
    wait_until(lambda: reached(local, before, 1, "share"), "no round 1", 200)
    proxy.cut()
    time.sleep(75)
    proxy.mend()
    _, err = program.communicate(timeout=900)
    assert program.returncode == 0, err
    assert all(record.answered >= 3 for record in newest(local).metrics())
    local.wait_online([VICTIM], 120)
    charged_once(local)


def test_a_full_disk_at_a_site_loses_that_site_only_and_its_ledger_stays_intact(world):
    local, _ = world
    node = child(local.site_process(VICTIM).pid)
    worker = child(node)
    _, hard = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (64, hard))
    program = run(local, "privacy.holdout=0", "name=full")
    _, err = program.communicate(timeout=500)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (hard, hard))
    assert program.returncode == 0, err
    assert all(record.answered == 3 for record in newest(local).metrics())
    charged_once(local)
    program = run(local, "privacy.holdout=0", "name=full-again")
    _, err = program.communicate(timeout=500)
    assert program.returncode == 0, err
    assert all(record.answered == 4 for record in newest(local).metrics())
