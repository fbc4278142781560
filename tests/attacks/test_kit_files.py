"""Files of a kit that keep their reader, take his memory, lie elsewhere too, or have names that an interpreter reads."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from client.runtime.check import FAILED, check_site
from client.runtime.kit_check import require_sound_kit
from client.site import load_site
from common.errors import FedcartError
from common.kit_files import strange_files
from tests.delivered_kits import point, write

OF_A_KIT = (
    "site.toml", "policy.toml", "roster.json", "ca.crt", "identity.key", "node.key", "state/own.json", "state/consumers.key",
    "state/ledger.jsonl", "state/log.txt",
)  # fmt: skip


def terabyte(path: Path) -> None:
    """A file that takes no place on the disk, and all of the memory of whoever reads it whole."""
    path.touch(mode=0o600)
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "special file"), (terabyte, "file of nothing but holes")])
@pytest.mark.parametrize("name", OF_A_KIT)
def test_no_file_of_a_kit_keeps_its_reader_or_takes_his_memory(kit, name, make, kind):
    (kit.path / name).unlink(missing_ok=True)
    (kit.path / name).parent.mkdir(exist_ok=True)
    make(kit.path / name)
    with memory_of_bytes(3 << 30):
        assert f"{name}: a {kind}" in strange_files(kit)
        rows = {row.name: row for row in check_site(kit, timeout_s=0.1)}
        assert rows["files"].status == FAILED
        with pytest.raises(FedcartError):
            require_sound_kit(kit)
        if name not in ("ca.crt", "node.key", "policy.toml", "state/log.txt"):
            with pytest.raises(FedcartError):
                load_site(kit.path).guard()


@contextmanager
def memory_of_bytes(size: int):
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", [*OF_A_KIT, "state/journal.jsonl", "state/outbox/1.contribution"])
def test_a_file_of_ours_that_is_another_name_of_one_elsewhere_is_strange(kit, tmp_path, name):
    """What the site writes there would change the other: an operator's own, or one of another user."""
    write(tmp_path / "elsewhere", "x")
    (kit.path / name).unlink(missing_ok=True)
    (kit.path / name).parent.mkdir(exist_ok=True)
    os.link(tmp_path / "elsewhere", kit.path / name)
    assert f"{name}: a file with another name elsewhere" in strange_files(kit)


def test_two_names_of_a_file_inside_a_kit_are_what_a_crash_leaves(kit, tmp_path):
    write(kit.state / "consumers.key", "k" * 32)
    os.link(kit.state / "consumers.key", kit.state / ".consumers.key.abc_123")
    write(tmp_path / "big.csv")
    os.link(tmp_path / "big.csv", kit.path / "events.csv")  # data are only read
    assert strange_files(kit) == []


PLACES = (".", "data", "data/deep/er", "state", "state/outbox", "state/models/run-r00001", "state/approvals")
NAMES = (
    "pyvenv.cfg", "sitecustomize.py", "x.pth", "python3._pth", ".env", "__pycache__/x.cpython-313.pyc", "x.PY", "x.sO", "run.Sh",
    "conftest.py", "bin/activate.sh",
)  # fmt: skip
OURS_ONLY = (
    "Policy.toml", "policy.toml ", "policy.toml\u200b", "r\u043ester.json", "roster\u0301.json", "roster.json\n", "roster.json~",
    "ledger\uff0ejsonl", "\u00e9.json", "e\u0301.json", "$(id).json", "a;b.json", "x\x1b[2J.json", "x\u202e.json", ".git/config",
    "pip.conf", "setup.cfg",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", [*NAMES, *OURS_ONLY])
def test_hostile_names_are_strange_wherever_they_lie(kit, place, name):
    """Where an operator's own data lie, any name is good that no interpreter reads."""
    point(kit, events="data")
    write(kit.path / "data/events.csv")
    load_site(kit.path).secret()
    write(kit.path / place / name)
    named = strange_files(kit)
    assert bool(named) == (name in NAMES or not place.startswith("data"))
