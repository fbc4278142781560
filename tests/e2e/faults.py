"""A federation of real processes in which a fault can be planted at any step, and the check of its books."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from common.audit.verify import verify_path
from common.deployment import split_address
from common.run.files import RunFolder
from common.trust.identity import Roster
from server.runtime.bundle import bundle_text
from simulations.demo import site_names, write_demo
from simulations.processes import LocalFederation
from tests.e2e.test_deploy_story import edit, fedcart, folders, ledgers_are_intact, newest, run, wait_until

APPS = Path(__file__).parent / "apps"
BUNDLE = bundle_text("faulty_app:server_app", "faulty_app:client_app")
PHASES = ("advertise", "share", "accept", "mask", "confirm", "unmask")
VICTIM = "merchant-2"
SITES = ("merchant-1", "merchant-2", "merchant-3", "merchant-4")
PATIENCE_S = 600.0  # for one run under load; a run that is well takes a minute


class Line:
    """The line between one site and the server, which can be cut."""

    def __init__(self, address: str) -> None:
        self._target = split_address(address)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Nothing passes, and nobody is told: as if the cable was pulled."""
        self._cut = True
        for one in self._open:
            one.close()
        self._open.clear()

    def mend(self) -> None:
        """New connections pass again."""
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


@contextmanager
def faulty_world(folder: Path):
    """Four sites and a server, up and connected; the victim's line and the place for its faults."""
    files = write_demo(folder / "data", sites=len(SITES), consumers=1_000, rounds=2)
    edit(files.run, "exchange_deadline_s = 60.0", "exchange_deadline_s = 25.0")
    edit(files.run, r"\ndeadline_s = 120.0", "\ndeadline_s = 40.0")
    path = os.pathsep.join([str(APPS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "FEDCART_TEST_CLOCK": "1"}
    with LocalFederation(folder, environment) as local:
        local.provision(files.sites, BUNDLE)
        line = Line(local.coordinator.read().coordinator.address)
        for name in site_names(files):
            edit(local.site(name).policy, r"epsilon_max = .*", "epsilon_max = 1000.0")
        edit(local.site(VICTIM).settings, r'address = ".*"', f'address = "{line.address}"')
        local.start_server()
        for name in site_names(files):
            local.start_site(name)
        local.wait_online(site_names(files), 180)
        yield local, line


def plant(kit, number: int, phase: str, when: str, do: str) -> Path:
    """Let a fault strike at a step; returns the file that is gone once it has struck."""
    file = kit.state / "fault.json"
    file.write_text(json.dumps({"round": number, "phase": phase, "when": when, "do": do}))
    return file


def turn_clock(kit, seconds: float) -> None:
    """Let the clock of a party jump, by so many seconds from the right time; 0 sets it right again."""
    (kit.state / "clock").write_text(str(seconds))


def run_to_the_end(local: LocalFederation, name: str, *settings: str) -> tuple[int, RunFolder, str]:
    """Run to whatever end: exit code, run folder, what was said on stderr."""
    program = run(local, "privacy.holdout=0", f"name={name}", *settings)
    _, err = program.communicate(timeout=PATIENCE_S)
    return program.returncode, newest(local), err


def resume(local: LocalFederation) -> tuple[int, dict, str]:
    """Resume the newest run to its end: exit code, summary, what was said on stderr."""
    program = fedcart("server", "resume", local.coordinator.path, "--json")
    out, err = program.communicate(timeout=PATIENCE_S)
    return program.returncode, json.loads(out) if out.strip() else {}, err


def books_balance(local: LocalFederation, folder: RunFolder, *, lost_on_the_way: dict[str, list[int]]) -> None:
    """The run's record and all ledgers hold, and every site was charged once for each round it took part in.

    ``lost_on_the_way``: site -> rounds that were charged at the site although no sum has its contribution.
    """
    assert not verify_path(folder.path, roster=Roster.load(local.coordinator.roster)).findings
    audit = fedcart("audit", "verify", folder.path)
    assert audit.communicate(timeout=120) is not None
    assert audit.returncode == 0
    records = folder.metrics()
    for site, entries in ledgers_are_intact(local).items():
        reserves = {e["sequence"]: e["body"] for e in entries if e["body"]["kind"] == "reserve"}
        commits = [reserves[e["body"]["reserve"]] for e in entries if e["body"]["kind"] == "commit"]
        charged = [body["round"] for body in commits if body["run"] == plan_run(folder)]
        summed = [r.round for r in records if site in r.sites and r.sites[site].status == "ok"]
        assert Counter(charged) == Counter(summed + lost_on_the_way.get(site, [])), site


def plan_run(folder: RunFolder) -> str:
    """The name under which the ledgers know a run."""
    return str(json.loads((folder.path / "plan.json").read_text())["run"])


def left_open(local: LocalFederation, site: str) -> int:
    """Reservations of a site that are neither released nor given back."""
    entries = ledgers_are_intact(local)[site]
    closed = {e["body"]["reserve"] for e in entries if e["body"]["kind"] in ("commit", "void", "forfeit")}
    return sum(e["body"]["kind"] == "reserve" and e["sequence"] not in closed for e in entries)


def answered(folder: RunFolder) -> list[int]:
    """How many sites are in the sum of each round."""
    return [record.answered for record in folder.metrics()]


__all__ = [
    "PHASES",
    "SITES",
    "VICTIM",
    "answered",
    "books_balance",
    "faulty_world",
    "fedcart",
    "folders",
    "left_open",
    "newest",
    "plan_run",
    "plant",
    "resume",
    "run",
    "run_to_the_end",
    "turn_clock",
    "wait_until",
]
