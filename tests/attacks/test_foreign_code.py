"""Files that lie where somebody stands, or in a kit, are never code: neither in a command nor in what it starts."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import common.processes as processes
from common.deployment import CoordinatorKit, SiteKit
from common.processes import HOUSE, child_environment, empty_folder, python_command
from server.runtime.executor import start_task
from server.runtime.senders import MOST_BYTES, own_words, speaks_for_itself
from tests.server.test_provision import sites, write_federation

PACKAGES = ("common", "client", "server", "simulations", "cli", "fedcart")
# A module of the standard library, ours, of third parties; what the interpreter itself looks for; and settings files.
TRAPS = (
    "uvicorn.py", "client/__init__.py", "client/runtime/__init__.py", "server/__init__.py", "common/__init__.py",
    "difflib.py", "dataclasses.py", "torch/__init__.py", "numpy/__init__.py", "flwr/__init__.py", "click.py",
    "__future__.py", "typing.py", "runpy.py", "sitecustomize.py", "usercustomize.py", "polars.py", "multiprocessing.py",
)  # fmt: skip
NOT_THE_INTERPRETERS = ("uvicorn.py", "click.py", "difflib.py", "polars.py", "dataclasses.py", "flwr/__init__.py")
PLAIN = ("x.pth", ".env", "pyproject.toml", "setup.cfg", "pyvenv.cfg")


def set_traps(folder: Path, marker: Path, names: tuple[str, ...] = TRAPS) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(marker)!r}, 'a').write({name!r} + '\\n')\nraise ImportError({name!r})\n")
    for name in PLAIN:
        (folder / name).write_text(f"import os; open({str(marker)!r}, 'a').write({name!r})\n")
    return folder


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.fixture
def traps(tmp_path, marker):
    return set_traps(tmp_path / "traps", marker)


@pytest.fixture
def program(tmp_path):
    """What an installer writes as ``bin/fedcart``."""
    script = tmp_path / "bin/fedcart"
    script.parent.mkdir()
    script.write_text(
        "import sys\nfrom cli.main import start\nif __name__ == '__main__':\n    sys.exit(start())\n"
    )
    return script


def run(command: list[str], folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_traps_are_real(traps, marker):
    run([sys.executable, "-c", "import uvicorn"], traps, "")
    assert marker.exists()


def test_the_program_run_from_a_folder_of_traps_takes_nothing_from_it(traps, marker, program):
    done = run([sys.executable, str(program), "site", "check", "."], traps, str(HOUSE))
    assert "is not a site kit" in done.stderr
    assert not marker.exists()


ONE_OF_A_KIND = pytest.mark.full  # what is empty, and what names the folder, are in the quick tests


@pytest.mark.parametrize(
    "path",
    [
        "{house}:",
        pytest.param("{house}:.", marks=ONE_OF_A_KIND),
        pytest.param(":{house}", marks=ONE_OF_A_KIND),
        "{house}:{here}",
    ],
)
def test_nor_if_the_python_path_leads_there_by_accident(tmp_path, marker, program, path):
    """What the interpreter imports by itself, before any line of ours, is out of our hands: those traps are not set."""
    folder = set_traps(tmp_path / "few", marker, NOT_THE_INTERPRETERS)
    done = run([sys.executable, str(program), "site", "check", "."], folder, path.format(house=HOUSE, here=folder))
    assert "is not a site kit" in done.stderr
    assert not marker.exists()


def test_nor_if_it_is_run_as_a_module(tmp_path, marker):
    folder = set_traps(tmp_path / "few", marker, NOT_THE_INTERPRETERS)
    done = run([sys.executable, "-m", "cli.main", "site", "check", "."], folder, str(HOUSE))
    assert "is not a site kit" in done.stderr
    assert not marker.exists()


def test_a_child_takes_nothing_from_there_either(traps, marker, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", "traps", str(HOUSE)]))
    monkeypatch.setenv("PYTHONSTARTUP", str(traps / "click.py"))
    command = python_command("client.runtime.node", str(traps))
    done = subprocess.run(
        command, cwd=traps, env=child_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert "is not a site kit" in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize("name", processes.PATHS)
def test_every_folder_that_a_child_searches_is_absolute(monkeypatch, name):
    monkeypatch.setenv(name, os.pathsep.join(["", ".", "relative", "/usr/one", "~/two", "/usr/two", ""]))
    found = child_environment()[name].split(os.pathsep)
    assert [entry for entry in found if entry != str(HOUSE)] == ["/usr/one", "/usr/two"]


@pytest.mark.parametrize("name", processes.CODE)
def test_no_child_inherits_a_variable_that_names_code(monkeypatch, name):
    monkeypatch.setenv(name, "evil.py")
    assert name not in child_environment({name: "evil.py"})
    assert child_environment()["PYTHONSAFEPATH"] == "1"


def test_a_child_stands_in_a_folder_that_is_empty_whatever_was_there(tmp_path, marker):
    work = set_traps(tmp_path / "work", marker)
    assert list(empty_folder(work).iterdir()) == []
    elsewhere = set_traps(tmp_path / "elsewhere", marker)
    work.rmdir()
    work.symlink_to(elsewhere)
    assert list(empty_folder(work).iterdir()) == []
    assert len(list(elsewhere.iterdir())) > 10, "what a link points to is left alone"


def test_no_module_starts_an_interpreter_by_itself():
    for package in PACKAGES:
        for path in (HOUSE / package).rglob("*.py"):
            text = path.read_text("utf-8")
            if path != HOUSE / "common/processes.py":
                assert not ("sys.executable" in text and '"-m"' in text), (
                    f"{path}: use common.processes.python_command"
                )
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess."):
                    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    assert "env" in given, f"{path}:{node.lineno}: a child without an environment of ours"
                    assert "os.environ" not in given["env"], f"{path}:{node.lineno}"


@pytest.mark.full
@pytest.mark.parametrize("side", ["site", "server"])
def test_what_a_started_side_runs_stands_in_its_own_folder_and_takes_nothing_from_ours(
    traps, marker, program, tmp_path, side
):
    from server.provision import provision
    from server.runtime.link import free_port

    address = f"127.0.0.1:{free_port()}"
    kits = provision(
        write_federation(tmp_path, sites("a", "b", "c"), address=address, listen=address), tmp_path / "k"
    )
    kit = SiteKit(kits.kits / "sites/a") if side == "site" else CoordinatorKit(kits.kits / "coordinator")
    environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
    with subprocess.Popen(
        [sys.executable, str(program), side, "start", str(kit.path)], cwd=traps, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            needed = {"client.runtime.node", "client.runtime.worker"} if side == "site" else {
                "server.runtime.link", "server.runtime.executor"}  # fmt: skip
            found = _offspring(process.pid, needed)
        finally:
            process.terminate()
            process.wait(30)
    assert needed <= set(found)
    assert {folder for folder, _ in found.values()} == {str(kit.work)}
    assert all("-P" in command for _, command in found.values())
    assert not marker.exists()


def _offspring(ancestor: int, wanted: set[str]) -> dict[str, tuple[str, list[str]]]:
    """Module -> (current folder, command line) of the processes below one, once all that are wanted are there."""
    end, found = time.monotonic() + 40, {}
    while time.monotonic() < end and not wanted <= set(found):
        time.sleep(0.2)
        for pid in _below(ancestor):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if "-m" in command:
                    found[command[command.index("-m") + 1]] = (os.readlink(f"/proc/{pid}/cwd"), command)
            except OSError:
                continue
    return found


def _below(ancestor: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(a): int(b) for a, b in (line.split() for line in listed.splitlines())}
    below, grown = {ancestor}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        below, grown = below | more, bool(more)
    return sorted(below - {ancestor})


TOKEN = "7" * 64


def test_the_token_of_a_task_is_in_no_command_line_and_in_no_environment(tmp_path, monkeypatch):
    """Another user of the machine reads the first of all processes, and with the token would end the run."""
    seen, program = tmp_path / "seen", tmp_path / "program.py"
    program.write_text(
        "import sys, pathlib\n"
        "read = lambda name: pathlib.Path('/proc/self', name).read_bytes()\n"
        f"pathlib.Path({str(seen)!r}).write_bytes(b'<|>'.join([read('cmdline'), read('environ'), sys.stdin.buffer.read()]))"
    )
    monkeypatch.setattr(
        "server.runtime.executor.python_command", lambda *given: [sys.executable, str(program), *given]
    )
    task = start_task(CoordinatorKit(tmp_path), "127.0.0.1:1", TOKEN)
    assert task.wait(30) == 0
    command, environment, given = seen.read_bytes().split(b"<|>")
    assert b"server.runtime.task" in command and given.decode().strip() == TOKEN
    assert TOKEN.encode() not in command + environment


def _pushed(node: int, *senders: int) -> bytes:
    from flwr.proto.fleet_pb2 import PushMessagesRequest

    request = PushMessagesRequest()
    request.node.node_id = node
    for sender in senders:
        request.messages_list.add().metadata.src_node_id = sender
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("body", "fine"),
    [
        (_pushed(5, 5), True),
        (_pushed(5, 6), False),
        (_pushed(5, 5, 6), False),
        (_pushed(5, 0), False),
        (_pushed(5), True),
        (b"\xff\xff no such thing", False),
    ],
)
def test_a_site_speaks_for_its_own_node_only(body, fine):
    assert speaks_for_itself(body) is fine


def _status(path: str, parts: list[bytes]) -> tuple[int, bytes]:
    """What ``own_words`` answers, and what the program behind it got."""
    got: list[bytes] = []
    sent: list[dict] = []
    waiting = [{"type": "http.request", "body": p, "more_body": n < len(parts)} for n, p in enumerate(parts, 1)]

    async def behind(_scope, receive, send):
        more = True
        while more:
            part = await receive()
            got.append(part["body"])
            more = part.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return waiting.pop(0)

    async def send(part):
        sent.append(part)

    asyncio.run(own_words(behind)({"type": "http", "path": path}, receive, send))
    return sent[0]["status"], b"".join(got)


def test_a_message_in_the_name_of_another_node_does_not_reach_flower():
    push = "/v1/fleet/push-messages"
    honest, forged = _pushed(5, 5), _pushed(5, 6)
    assert _status(push, [honest[:3], honest[3:]]) == (200, honest)
    assert _status(push, [forged[:3], forged[3:]]) == (403, b"")
    assert _status(push, [bytes(MOST_BYTES), b"x"]) == (413, b"")
    assert _status("/v1/fleet/push-object", [forged]) == (200, forged)


@pytest.mark.full
def test_the_workers_of_a_simulation_take_nothing_from_the_current_folder(tmp_path, marker):
    """They come from a server process that multiprocessing starts with ``-c``: the current folder would be first."""
    names = (
        "uvicorn.py",
        "multiprocessing/__init__.py",
        "torch/__init__.py",
        "simulations/__init__.py",
        "signal.py",
    )
    folder = set_traps(tmp_path / "few", marker, names)
    program = tmp_path / "bin/run.py"
    program.parent.mkdir()
    program.write_text(
        "import os\nfrom simulations.workers import WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    with WorkerPool(1) as pool:\n"
        "        print([done.unwrap() for done in pool.run_all([(os.getcwd, ())])], 'PYTHONSAFEPATH' in os.environ)\n"
    )
    done = run([sys.executable, str(program)], folder, str(HOUSE))
    assert done.stdout.strip() == f"[{str(folder)!r}] False"
    assert not marker.exists()
