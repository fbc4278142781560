"""``status --check`` on both sides: prepared faults are named, each in a line with what to do, and only they."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

import client.runtime.check as checks
import client.runtime.health as health
import client.runtime.status as site_side
import server.runtime.health as coordinator_side
from cli.main import main
from client.runtime.killed import ANSWER, note_end
from client.runtime.last_session import remember
from client.runtime.reach import Reached
from common.deployment import CoordinatorKit, SiteKit
from common.privacy import SignedAttestation
from common.run import RunFolder, Summary
from common.trust import Identity
from common.trust.certificates import Authority, issue_server_certificate
from server.admission import HeadsBook
from server.provision import provision
from server.runtime.health import server_troubles
from server.runtime.status import server_status
from tests.cli.fake_run import make_run
from tests.cli.test_audit_command import make_audited_run
from tests.shared_kits import spend


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    sites = [{"name": name, "population": 200, "events": "events.csv"} for name in ("north", "south", "east")]
    tree = {"name": "t", "coordinator": {"address": "127.0.0.1:9"}, "sites": sites}
    (folder / "federation.toml").write_text(tomli_w.dumps(tree))
    provision(folder / "federation.toml", folder / "kits")
    return folder / "kits"


@pytest.fixture
def kits(provisioned, tmp_path) -> Path:
    return Path(shutil.copytree(provisioned, tmp_path / "kits"))


def certificate(kits: Path, days: int) -> bytes:
    folder = kits / "authority"
    authority = Authority((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())
    return issue_server_certificate(authority, ["127.0.0.1"], days)[0]


def reached(monkeypatch, kits: Path, *, days: int = 90, ahead: float = 0.0) -> None:
    seen = Reached(0.01, certificate(kits, days), ahead)
    monkeypatch.setattr(checks, "reach_server", lambda *_: seen)


@pytest.fixture
def site(kits, monkeypatch) -> SiteKit:
    """A site that runs, and that its server has let in."""
    kit = SiteKit(kits / "sites" / "north")
    reached(monkeypatch, kits)
    for module in (health, site_side):
        monkeypatch.setattr(module, "running_pid", lambda _kit: os.getpid())
    monkeypatch.setattr(checks, "FREE_BYTES_WISHED", 0)
    site_side.site_status(kit)  # its state is begun
    (kit.path / "events.csv").touch()
    remember(kit, 7)
    return kit


def of_site(kit: SiteKit, capsys) -> tuple[int, dict[str, dict]]:
    capsys.readouterr()
    code = main(["site", "status", str(kit.path), "--check", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] == (code == 0) == (not said["troubles"])
    assert all(one["todo"] for one in said["troubles"])
    return code, {one["name"]: one for one in said["troubles"]}


def not_running(kit, monkeypatch) -> None:
    for module in (health, site_side):
        monkeypatch.setattr(module, "running_pid", lambda _kit: None)


def unreachable(kit, monkeypatch) -> None:
    monkeypatch.undo()  # nothing listens at the address of the kit


def spent_to_the_limit(kit, monkeypatch) -> None:
    said = spend(kit, "run-one").attestation
    text = kit.policy.read_text()
    kit.policy.write_text(
        "\n".join(
            line if not line.startswith("epsilon_max") else f"epsilon_max = {1.05 * said.epsilon_after}"
            for line in text.splitlines()
        )
    )


def left_open(kit, monkeypatch) -> None:
    from client.site import load_site
    from tests.shared_kits import asked

    one = load_site(kit.path)
    one.guard().reserve(asked(one, "run-one"))
    monkeypatch.setattr(health, "OPEN_S", -1.0)


def left_open_and_stopped(kit, monkeypatch) -> None:
    left_open(kit, monkeypatch)
    monkeypatch.setattr(health, "OPEN_S", 3_600.0)
    not_running(kit, monkeypatch)


def damaged_ledger(kit, monkeypatch) -> None:
    spend(kit, "run-one")
    content = bytearray(kit.ledger.read_bytes())
    content[200] ^= 1
    kit.ledger.write_bytes(bytes(content))


FAULTS = {
    "not running": (not_running, {"running"}),
    "not connected": (lambda kit, _: (kit.state / "session.json").unlink(), {"connected"}),
    "certificate ends soon": (lambda kit, m: reached(m, kit.path.parent.parent, days=5), {"server certificate"}),
    "clock ahead": (lambda kit, m: reached(m, kit.path.parent.parent, ahead=100.0), {"clock"}),
    "key readable": (lambda kit, _: kit.identity_key.chmod(0o644), {"permissions", "settings"}),
    "roster missing": (lambda kit, _: kit.roster.unlink(), {"kit", "settings"}),
    "event log gone": (lambda kit, _: (kit.path / "events.csv").unlink(), {"data"}),
    "damaged ledger": (damaged_ledger, {"ledger", "budget"}),
    "budget nearly gone": (spent_to_the_limit, {"budget"}),
    "left open": (left_open, {"reservation"}),
    "left open and stopped": (left_open_and_stopped, {"reservation", "running"}),
    "killed": (lambda kit, _: note_end(kit, ANSWER, -9), {"killed"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_at_a_site_is_named_and_nothing_else(site, monkeypatch, capsys, fault):
    make, names = FAULTS[fault]
    make(site, monkeypatch)
    code, found = of_site(site, capsys)
    assert (code, set(found)) == (1, names), found


def test_a_server_that_cannot_be_reached_is_one_trouble_and_not_three(site, monkeypatch, capsys):
    unreachable(site, monkeypatch)
    found = of_site(site, capsys)[1]
    assert {"server", "running"} == set(found) - {"disk"}


def test_a_sound_site_is_well_and_an_open_reservation_of_a_running_round_is_no_fault(site, monkeypatch, capsys):
    assert main(["site", "status", str(site.path), "--check"]) == 0
    assert "ok            nothing is wrong" in capsys.readouterr().out
    left_open(site, monkeypatch)
    monkeypatch.setattr(health, "OPEN_S", 3_600.0)
    assert of_site(site, capsys) == (0, {})


def test_a_site_that_fails_or_is_asked_is_named(site):
    status = site_side.site_status(site)
    request = type("Asked", (), {"run": "spring", "status": "waiting"})()
    worse = replace(status, budget=replace(status.budget, paused=("autumn",)), requests=(request,))
    found = {one.name: one for one in health.site_troubles(site, worse)}
    assert set(found) == {"answers", "run"}
    assert "autumn" in found["answers"].found and "spring" in found["run"].found


def test_for_people_each_trouble_is_one_line_with_what_to_do(site, capsys):
    (site.state / "session.json").unlink()
    assert main(["site", "status", str(site.path), "--check"]) == 1
    out = capsys.readouterr().out
    assert "budget        epsilon" in out
    assert (
        f"WRONG         connected: the site runs and the server has not let it in; see {site.log}"
        in out.splitlines()
    )


@pytest.fixture
def coordinator(kits) -> CoordinatorKit:
    return CoordinatorKit(kits / "coordinator")


def of_server(kit: CoordinatorKit, capsys) -> dict[str, dict]:
    assert main(["server", "status", str(kit.path), "--check", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["ok"] and all(one["todo"] for one in said["troubles"])
    return {one["name"]: one for one in said["troubles"] if one["name"] != "disk"}


def ends_soon(kit: CoordinatorKit) -> None:
    kit.certificate.write_bytes(certificate(kit.path.parent, 5))


def interrupted_run(kit: CoordinatorKit) -> None:
    run = make_audited_run(kit.runs / "spring", rounds=1)
    RunFolder(run).write_summary(Summary("interrupted"))


def little_left(kit: CoordinatorKit) -> None:
    """Of the limit of 9 that the sites of this run attest."""
    run = make_audited_run(kit.path.parent / "other", rounds=3)
    plain = RunFolder(run).metrics()[-1].attestations["north"]
    signed = SignedAttestation.from_json(plain)
    book = HeadsBook.open(kit.state / "heads.json")
    book.heads.accept(signed, Identity.from_seed("north", b"north".ljust(32, b"-")).public_key)
    book.save()


SERVER_FAULTS = {
    "certificate ends soon": (ends_soon, {"certificate"}),
    "damaged certificate": (lambda kit: kit.certificate.write_bytes(b"x"), {"certificate"}),
    "token readable": (lambda kit: kit.control_token.chmod(0o644), {"permissions"}),
    "token missing": (lambda kit: kit.control_token.unlink(), {"files"}),
    "heads damaged": (
        lambda kit: (kit.state.mkdir(exist_ok=True), (kit.state / "heads.json").write_text("{")),
        {"status"},
    ),
    "interrupted run": (interrupted_run, {"run"}),
    "damaged run": (lambda kit: make_run(kit.runs / "autumn"), {"run"}),
    "little left": (little_left, {"budget"}),
}


@pytest.mark.parametrize("fault", SERVER_FAULTS)
def test_what_is_wrong_at_a_server_is_named_beside_that_it_is_down(coordinator, monkeypatch, capsys, fault):
    make, names = SERVER_FAULTS[fault]
    monkeypatch.setattr(coordinator_side, "LITTLE_LEFT", 0.95)
    make(coordinator)
    assert set(of_server(coordinator, capsys)) - {"server"} == names


def test_of_a_server_that_is_up_the_sites_that_are_away_are_named(coordinator):
    status = replace(server_status(coordinator), up=True, sites={"north": True, "south": False})
    found = [one for one in server_troubles(coordinator, status) if one.name != "disk"]
    assert [one.found for one in found] == ["south is not connected"]
