"""What a service says to systemd, and what a unit says."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from common import supervisor
from common.deployment import SiteKit
from common.errors import BadInputError
from common.processes import child_environment
from common.supervisor import Supervisor
from common.systemd import ALIVE, READY, STOPPING, Unit, notify


@pytest.fixture
def manager(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def heard(manager: socket.socket) -> str:
    return manager.recv(100).decode()


def test_the_manager_hears_what_is_said_by_path_and_by_abstract_name(manager, monkeypatch):
    notify(READY)
    assert heard(manager) == READY
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind("\0fedcart-test-notify")
        monkeypatch.setenv("NOTIFY_SOCKET", "@fedcart-test-notify")
        notify(STOPPING)
        assert other.recv(100).decode() == STOPPING


@pytest.mark.parametrize("address", ["", "relative", "/no/such/socket"])
def test_without_a_manager_nothing_happens(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify(READY)


class Short:
    """A child that ends at once, and was well."""

    command, longest_delay_s = ("common.bounds",), 60.0
    environment = child_environment()

    def begins(self, *_): ...
    def look(self): ...
    def went_well(self):
        return True

    def farewell(self, *_):
        return ""


def test_a_supervisor_is_ready_alive_while_it_waits_and_says_that_it_stops(manager, tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "ALIVE_S", 0.02)
    monkeypatch.setattr(supervisor, "FIRST_DELAY_S", 60.0)
    kit = SiteKit(tmp_path / "kit")
    kit.state.mkdir(parents=True)
    watched = Supervisor(kit, Short(), lambda _: None)
    thread = threading.Thread(target=watched.run)
    thread.start()
    assert heard(manager) == READY
    assert [heard(manager) for _ in range(20)] == [ALIVE] * 20, "also in the wait before the next start"
    watched.stop()
    while (word := heard(manager)) == ALIVE:
        pass
    assert word == STOPPING
    thread.join(10)
    assert not thread.is_alive()


def test_a_unit_may_write_where_it_must_and_nowhere_else():
    text = Unit("fedcart-a", "a", "shop", ["python", "-m", "x"], [Path("/srv/a b")], [Path("/srv/a/state")]).text()
    lines = text.splitlines()
    for line in (
        "Type=notify",
        "NotifyAccess=main",
        "ProtectSystem=strict",
        "ReadWritePaths=/srv/a/state",
        "PrivateTmp=yes",
    ):
        assert line in lines
    assert not [line for line in lines if "/srv/a b" in line]
    odd = Unit("a", "a", "shop", ["x", "/srv/a$b"], [], [Path("/srv/a$b")]).text()
    assert (
        'ExecStart=x "/srv/a$$b"\n' in odd and 'ReadWritePaths="/srv/a$b"\n' in odd
    )  # variables: in commands only
    with pytest.raises(BadInputError, match="cannot stand in a unit"):
        Unit("a", "a\nExecStartPre=evil", "shop", ["x"], [], []).text()
