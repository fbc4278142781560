"""The whole story with real processes: provision, check, start, approve, run, audit; then crashes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from client.runtime.approval import WAITING, requests
from client.runtime.check import FAILED, check_site
from client.runtime.health import site_troubles
from client.runtime.status import site_status
from common.audit.verify import verify_path
from common.run.files import RunFolder
from common.run.hold import run_is_submitted
from common.trust.identity import Roster
from server.runtime.health import server_troubles
from server.runtime.status import server_status
from simulations.demo import site_names, write_demo
from simulations.processes import LocalFederation

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    files = write_demo(folder / "data", sites=4, consumers=1_000, rounds=1)
    edit(files.run, "exchange_deadline_s = 60.0", "exchange_deadline_s = 25.0")
    edit(files.run, r"\ndeadline_s = 120.0", "\ndeadline_s = 60.0")
    with LocalFederation(folder, {"OMP_NUM_THREADS": "1"}) as local:
        local.provision(files.sites)
        for name in site_names(files):
            edit(local.site(name).policy, r"epsilon_max = .*", "epsilon_max = 100.0")
        edit(local.site("merchant-4").policy, 'approve = "auto"', 'approve = "ask"')
        local.start_server()
        for name in site_names(files):
            local.start_site(name)
        local.wait_online(site_names(files))
        yield local


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count == 1
    path.write_text(text)


def fedcart(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(federation: LocalFederation, *settings: str) -> subprocess.Popen:
    kit, run_file = federation.coordinator.path, federation.folder / "data/run.toml"
    return fedcart("server", "run", kit, run_file, "--json", *[x for s in settings for x in ("--set", s)])


def newest(federation: LocalFederation) -> RunFolder:
    return RunFolder(
        max(federation.coordinator.runs.glob("*/run.toml"), key=lambda p: p.stat().st_mtime_ns).parent
    )


def wait_until(condition, what: str, timeout_s: float = 150.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def rounds_done(federation: LocalFederation, before: set[Path]) -> int:
    new = {p.parent for p in federation.coordinator.runs.glob("*/summary.json")} - before
    return sum(r.kind == "train" for r in RunFolder(new.pop()).metrics()) if new else 0


def folders(federation: LocalFederation) -> set[Path]:
    return {p.parent for p in federation.coordinator.runs.glob("*/run.toml")}


def approve_when_asked(federation: LocalFederation, stop: threading.Event) -> None:
    kit = federation.site("merchant-4")
    while not stop.is_set():
        for request in requests(kit):
            if request.status == WAITING:
                assert fedcart("site", "approve", kit.path, request.run).wait() == 0
        time.sleep(0.3)


@pytest.fixture
def operator(federation):
    """A person at merchant-4 who says yes."""
    stop = threading.Event()
    thread = threading.Thread(target=approve_when_asked, args=(federation, stop))
    thread.start()
    yield
    stop.set()
    thread.join()


def last_words(federation: LocalFederation) -> str:
    """What the logs of the parties say last: all that is left of a failure in CI."""
    names = [party.name for party in Roster.load(federation.coordinator.roster).sites]
    logs = [federation.coordinator.log, *(federation.site(name).log for name in names)]
    return "".join(
        f"\n--- {log.parent.name}/{log.name}\n{log.read_text()[-3_000:]}" for log in logs if log.exists()
    )


def ledgers_are_intact(federation: LocalFederation) -> dict[str, list[dict]]:
    roster = Roster.load(federation.coordinator.roster)
    found = {}
    for party in roster.sites:
        path = federation.site(party.name).state / "ledger.jsonl"
        assert not verify_path(path, roster=roster).findings
        found[party.name] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


def child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_a_provisioned_site_checks_itself_and_finds_nothing_wrong(federation):
    rows = check_site(federation.site("merchant-1"))
    assert [row for row in rows if row.status == FAILED] == []
    assert {"server", "server certificate", "clock", "data", "budget", "ledger"} <= {row.name for row in rows}


def test_a_federation_that_runs_is_in_no_trouble_on_either_side(federation):
    kit = federation.site("merchant-1")
    at_server = server_troubles(federation.coordinator, server_status(federation.coordinator))
    troubles = [*site_troubles(kit, site_status(kit)), *at_server]
    assert [str(one) for one in troubles if one.name != "disk"] == []


def test_a_run_waits_for_the_operators_word_then_trains_and_leaves_a_record_that_holds(federation, operator):
    program = run(federation)
    out, err = program.communicate(timeout=300)
    assert program.returncode == 0, err + last_words(federation)
    summary = json.loads(out)
    assert (summary["status"], summary["rounds"], summary["aggregation"]) == ("completed", 1, "secure")
    folder = newest(federation)
    assert {p.name for p in folder.path.iterdir()} >= {
        "model.safetensors",
        "model.json",
        "run.toml",
        "report.html",
        "model-card.md",
    }
    assert not verify_path(folder.path, roster=Roster.load(federation.coordinator.roster)).findings
    assert [record.answered for record in folder.metrics()] == [4, 4]
    assert all(0 < epsilon < 6.001 for epsilon in summary["epsilon"].values())
    assert {request.status for request in requests(federation.site("merchant-4"))} == {"approved"}
    ledgers_are_intact(federation)


def test_a_site_killed_in_a_round_comes_back_and_the_federation_goes_on_without_charging_it_twice(
    federation, operator
):
    before = folders(federation)
    program = run(federation, "training.rounds=3", "name=site-killed")
    wait_until(lambda: rounds_done(federation, before) >= 1, "no first round")
    supervisor = federation.site_process("merchant-1").pid
    os.killpg(child(supervisor), signal.SIGKILL)
    _, err = program.communicate(timeout=300)
    assert program.returncode == 0, err + last_words(federation)
    answered = [record.answered for record in newest(federation).metrics() if record.kind == "train"]
    assert len(answered) == 3
    assert min(answered) >= 3
    for entries in ledgers_are_intact(federation).values():
        commits = [
            e["body"]["reserve"] for e in entries if e["body"].get("kind") == "commit" or "outbox" in e["body"]
        ]
        assert len(commits) == len(set(commits))


def test_a_run_goes_on_after_the_server_was_killed_with_no_round_lost_or_done_twice(federation, operator):
    before = folders(federation)
    program = run(federation, "training.rounds=2", "name=server-killed")
    wait_until(lambda: rounds_done(federation, before) >= 1, "no first round")
    first = newest(federation).metrics()[0]
    os.kill(child(federation.server_process.pid), signal.SIGKILL)
    _, err = program.communicate(timeout=300)
    assert program.returncode == 1, err
    assert "fedcart server resume" in err or '"hint"' in err
    names = [party.name for party in Roster.load(federation.coordinator.roster).sites]
    federation.wait_online(names)
    program = fedcart("server", "resume", federation.coordinator.path, "--json")
    out, err = program.communicate(timeout=300)
    assert program.returncode == 0, err + last_words(federation)
    assert json.loads(out)["rounds"] == 2
    records = [record for record in newest(federation).metrics() if record.kind == "train"]
    assert [record.round for record in records] == [1, 2]
    assert records[0] == first
    ledgers_are_intact(federation)


def in_round(federation: LocalFederation, before: set[Path], number: int) -> bool:
    for folder in folders(federation) - before:
        try:
            return json.loads((folder / "progress.json").read_text())["round"] == number
        except (OSError, ValueError):
            return False
    return False


def resume(federation: LocalFederation) -> subprocess.Popen:
    return fedcart("server", "resume", federation.coordinator.path, "--json")


def test_ctrl_c_lets_the_round_come_to_its_end_a_second_one_does_not_and_both_runs_resume(federation, operator):
    names = [party.name for party in Roster.load(federation.coordinator.roster).sites]
    before = folders(federation)
    program = run(federation, "training.rounds=4", "name=ctrl-c")
    wait_until(lambda: in_round(federation, before, 1), "no first round")
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=120)
    assert program.returncode == 130, err
    assert "stopping after the round under way" in err
    assert "to go on: fedcart server resume" in err
    assert (json.loads(out)["status"], json.loads(out)["rounds"]) == ("interrupted", 1)
    federation.wait_online(names, 1)

    program = resume(federation)
    wait_until(lambda: in_round(federation, before, 3), "no third round")
    program.send_signal(signal.SIGINT)
    wait_until(lambda: list((folders(federation) - before).pop().glob("stop.asked")), "no stop", 30)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 130, err
    assert len(newest(federation).metrics()) == 2
    federation.wait_online(names, 1)

    program = resume(federation)
    wait_until(lambda: run_is_submitted(newest(federation)), "it does not begin")
    second_screen = resume(federation)  # shows what is submitted or under way, and starts nothing
    out, err = program.communicate(timeout=300)
    assert program.returncode == 0, err + last_words(federation)
    assert (json.loads(out)["status"], json.loads(out)["rounds"]) == ("completed", 4)
    shown, err = second_screen.communicate(timeout=60)
    assert second_screen.returncode == 0, err
    assert json.loads(shown) == json.loads(out)
    assert "is under way: showing it" in err
    assert [record.round for record in newest(federation).metrics()] == [1, 2, 3, 4, 5]
    for entries in ledgers_are_intact(federation).values():
        commits = [e["body"]["reserve"] for e in entries if e["body"]["kind"] == "commit"]
        assert len(commits) == len(set(commits))
    assert fedcart("audit", "verify", newest(federation).path).wait(60) == 0
    assert resume(federation).wait(60) == 2, "a completed run is not resumed"
