"""What an operator does: check a kit that has something wrong, approve, recover, rotate keys."""

import contextlib
import datetime
import http.server
import json
import os
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from client.guard import SitePolicy, open_guard
from client.runtime import check, last_session
from client.runtime.approval import (
    APPROVED,
    REJECTED,
    WAITING,
    ApprovalPendingError,
    RunRejectedError,
    decide,
    requests,
    require_approval,
)
from client.runtime.check import FAILED, OK, WARNING, check_site, verdict
from client.runtime.last_session import former_node, remember, was_connected
from client.runtime.ledgers import recover_site
from client.runtime.reach import Reached, reach_server
from client.runtime.status import site_status
from client.site import load_site
from common.deployment import SiteKit
from common.errors import BadInputError, VerificationError, WorkFailedError
from common.privacy.attestation import SignedAttestation
from common.privacy.mechanism import PrivacyEvent
from common.run import RunPlan, build_config
from common.supervisor import only_one, running_pid
from common.trust.certificates import Authority, issue_server_certificate, make_authority
from common.trust.identity import Identity, Roster
from common.trust.keyfiles import PublicKeys, make_site_keys
from server.provision import provision
from tests.guard_samples import proposal

pytestmark = pytest.mark.full


@pytest.fixture
def kit(tmp_path) -> SiteKit:
    events = tmp_path / "events.csv"
    rows = [
        f"c{n % 150},{kind},2026-01-{1 + n % 28:02d} 10:00:00,i{n % 9}" for n in range(900) for kind in ("view",)
    ]
    events.write_text("consumer,event,timestamp,item\n" + "\n".join(rows) + "\n")
    sites = [{"name": name, "population": 200, "events": str(events)} for name in ("north", "south", "east")]
    file = tmp_path / "federation.toml"
    file.write_text(tomli_w.dumps({"name": "t", "coordinator": {"address": "127.0.0.1:9"}, "sites": sites}))
    provision(file, tmp_path / "kits")
    return SiteKit(tmp_path / "kits/sites/north")


def rows_of(kit: SiteKit) -> dict[str, check.Row]:
    return {row.name: row for row in check_site(kit, timeout_s=1.0)}


def serve(authority: Authority, folder: Path, days: int = 30, names: Sequence[str] = ("127.0.0.1",)):
    """A TLS server on loopback that answers everything with 404."""
    certificate, key = issue_server_certificate(authority, list(names), days)
    (folder / "s.crt").write_bytes(certificate)
    (folder / "s.key").write_bytes(key)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "s.crt", folder / "s.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_a_kit_without_a_reachable_server_fails_in_that_row_only(kit):
    rows = rows_of(kit)
    assert [row.name for row in rows.values() if row.status == FAILED] == ["server"]
    assert "firewall" in rows["server"].todo
    assert "150 consumers" in rows["consumers"].found
    assert verdict(list(rows.values())) == FAILED


@pytest.mark.parametrize(
    ("damage", "row", "word"),
    [
        (lambda kit: kit.identity_key.chmod(0o644), "permissions", "identity.key"),
        (lambda kit: kit.node_key.unlink(), "kit", "node.key"),
        (lambda kit: kit.node_key.write_text("no key"), "node key", "not a readable"),
        (lambda kit: kit.policy.write_text("epsilon_max = -1"), "settings", "epsilon_max"),
        (lambda kit: kit.settings.write_text("[site]"), "settings", "federation"),
        (lambda kit: edit(kit.settings, "events.csv", "gone.csv"), "data", "gone.csv"),
        (lambda kit: edit(kit.settings, "population = 200", "population = 50"), "consumers", "min_consumers 100"),
        (lambda kit: (kit.state / "ledger.jsonl").write_text("{}\n"), "ledger", ""),
        (lambda kit: edit(kit.settings, 'catalogue = ""', 'catalogue = "none.json"'), "catalogue", "none.json"),
    ],
)  # fmt: skip
def test_each_thing_that_is_wrong_is_found_and_says_what_to_do(kit, damage, row, word):
    damage(kit)
    found = rows_of(kit)[row]
    assert (found.status, word in found.found) == (FAILED, True)
    assert found.todo


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_server_of_another_authority_is_refused(kit, tmp_path):
    server = serve(make_authority("other"), tmp_path)
    with pytest.raises(WorkFailedError, match="refused"):
        reach_server(f"127.0.0.1:{server.server_port}", kit.authority, 5.0)
    server.shutdown()


def test_an_expired_certificate_is_refused_and_one_for_another_host_too(kit, tmp_path):
    folder = tmp_path / "kits/authority"
    authority = Authority((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())
    expired = serve(authority, tmp_path, days=0)
    with pytest.raises(WorkFailedError, match="expired"):
        reach_server(f"127.0.0.1:{expired.server_port}", kit.authority, 5.0)
    expired.shutdown()
    good = serve(authority, tmp_path)
    assert reach_server(f"127.0.0.1:{good.server_port}", kit.authority, 5.0).clock_ahead_s == 0.0
    with pytest.raises(WorkFailedError, match="refused"):
        reach_server(f"localhost:{good.server_port}", kit.authority, 5.0)
    good.shutdown()


class Tunnels(http.server.BaseHTTPRequestHandler):
    """A web proxy that takes every tunnel to one port of this machine, or refuses it."""

    port, asked = 0, []

    def do_CONNECT(self):
        self.asked.append(self.path)
        if not self.port:
            self.send_error(403)
            return
        with socket.create_connection(("127.0.0.1", self.port)) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=pass_on, args=(far, self.connection), daemon=True)
            back.start()
            pass_on(self.connection, far)

    def log_message(self, *_):
        pass


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_a_server_behind_a_proxy_is_looked_at_through_it_and_the_proxy_is_named(kit, tmp_path, monkeypatch):
    folder = tmp_path / "kits/authority"
    authority = Authority((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())
    server = serve(authority, tmp_path, names=("shop.example",))
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tunnels)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.setattr(Tunnels, "port", server.server_port)
    found = reach_server("shop.example:9092", kit.authority, 5.0)
    assert found.proxy == f"127.0.0.1:{proxy.server_port}"
    assert Tunnels.asked == ["shop.example:9092"]
    monkeypatch.setattr(Tunnels, "port", 0)
    with pytest.raises(WorkFailedError, match=f"through the proxy 127.0.0.1:{proxy.server_port}.*403"):
        reach_server("shop.example:9092", kit.authority, 5.0)
    server.shutdown()
    proxy.shutdown()


@pytest.mark.parametrize(
    ("ahead", "status"), [(0.0, OK), (4.0, OK), (6.0, FAILED), (-200.0, OK), (-400.0, FAILED)]
)
def test_a_clock_that_would_keep_the_site_out_is_found(kit, monkeypatch, ahead, status):
    pem = kit.authority.read_bytes()
    monkeypatch.setattr(check, "reach_server", lambda *_: Reached(0.01, pem, ahead))
    assert rows_of(kit)["clock"].status == status


def test_a_certificate_near_its_end_is_a_warning(kit, monkeypatch, tmp_path):
    folder = tmp_path / "kits/authority"
    authority = Authority((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())
    pem, _ = issue_server_certificate(authority, ["127.0.0.1"], 10)
    monkeypatch.setattr(check, "reach_server", lambda *_: Reached(0.01, pem, 0.0))
    row = rows_of(kit)["server certificate"]
    assert row.status == WARNING
    assert str((datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=10)).date()) in row.found


def asked(kit: SiteKit, plan: RunPlan, mode: str = "ask") -> None:
    require_approval(kit, mode, plan.run, plan.digest().hex(), plan.to_json())


def test_a_run_is_allowed_only_under_the_digest_that_was_approved(kit):
    settings = build_config({}, []).public_json()
    first = RunPlan("run-1", settings, (("north", 200), ("south", 200), ("east", 200)), "{}", 1000, 1.5, 3.0)
    second = replace(first, parameters=first.parameters + 1)
    with pytest.raises(ApprovalPendingError):
        asked(kit, first)
    assert [r.status for r in requests(kit)] == [WAITING]
    assert decide(kit, "run-1", approve=True).status == APPROVED
    asked(kit, first)
    with pytest.raises(ApprovalPendingError):
        asked(kit, second)
    assert decide(kit, second.digest().hex(), approve=False).status == REJECTED
    with pytest.raises(RunRejectedError):  # not "pending": the coordinator need not wait for a person any more
        asked(kit, second)
    asked(kit, first)
    asked(kit, replace(first, run="run-2"), mode="auto")


def test_only_one_process_holds_a_kit(kit):
    assert running_pid(kit) is None
    with only_one(kit, "site"):
        assert running_pid(kit) is not None
        with pytest.raises(BadInputError, match="already running"), only_one(kit, "site"):
            pass
    assert running_pid(kit) is None


def spend(kit: SiteKit, number: int = 1) -> SignedAttestation:
    site = load_site(kit.path)
    guard = site.guard()
    grant = guard.reserve(proposal(number, population=200, events=(PrivacyEvent(2.0, 0.1, 10),)))
    guard.store(grant, b"contribution", grant.attestation.attestation.events)
    guard.commit(grant)
    return grant.attestation


def test_a_lost_ledger_is_replaced_by_one_that_charges_all_that_was_attested(kit, tmp_path):
    signed = spend(kit)
    file = tmp_path / "north.attestation.json"
    file.write_text(json.dumps(signed.to_json()))
    (kit.state / "ledger.jsonl").unlink()
    status = recover_site(kit, file)
    assert status.epsilon == pytest.approx(signed.attestation.epsilon_after, abs=1e-5)
    assert load_site(kit.path).guard().status().epsilon == status.epsilon


def test_an_attestation_that_this_site_did_not_sign_recovers_nothing(kit, tmp_path):
    signed = spend(kit)
    forged = SignedAttestation.sign(replace(signed.attestation, epsilon_after=0.0), Identity.generate("north"))
    file = tmp_path / "forged.json"
    file.write_text(json.dumps(forged.to_json()))
    with pytest.raises(VerificationError):
        recover_site(kit, file)


def test_a_site_that_rotates_its_keys_carries_its_budget_over(kit, tmp_path):
    signed = spend(kit)
    file = tmp_path / "north.attestation.json"
    file.write_text(json.dumps(signed.to_json()))
    old = tmp_path / "old.keys.json"
    roster = Roster.load(kit.roster)
    old.write_text(PublicKeys("north", roster.party("north").public_key, node_line(kit)).to_json())
    new = make_site_keys(tmp_path / "new", "north")
    for name in ("identity.key", "node.key"):
        (kit.path / name).write_bytes((tmp_path / "new" / name).read_bytes())
    sites = [(p.name, new.identity if p.name == "north" else p.public_key) for p in roster.sites]
    coordinator = Identity.load("coordinator", kit.path.parents[1] / "coordinator/identity.key")
    Roster.signed_by(coordinator, sites, roster).save(kit.roster)
    with pytest.raises(BadInputError, match="was not begun by this site"):
        recover_site(kit, file)
    assert recover_site(kit, file, old).epsilon == pytest.approx(signed.attestation.epsilon_after, abs=1e-5)
    again = spend(kit, number=2)
    assert again.attestation.epsilon_before == pytest.approx(signed.attestation.epsilon_after, abs=1e-5)


def node_line(kit: SiteKit) -> str:
    from common.trust.certificates import node_public_line

    return node_public_line(kit.node_key).decode()


def test_a_simulated_ledger_does_not_serve_a_real_site(kit):
    site = load_site(kit.path)
    open_guard(kit.state, site.identity, SitePolicy.load(kit.policy), "north", simulated=True)
    with pytest.raises(BadInputError):
        site.guard()


def test_a_site_remembers_its_last_connection_and_goes_on_if_it_cannot(kit, monkeypatch):
    assert (former_node(kit), was_connected(kit, os.getpid())) == (0, False)
    remember(kit, 77)
    assert (former_node(kit), was_connected(kit, os.getpid()), was_connected(kit, 1)) == (77, True, False)
    (kit.state / "session.json").write_text("[1")
    assert former_node(kit) == 0
    monkeypatch.setattr(last_session, "write_atomic", raising_full_disk)
    remember(kit, 78)
    assert former_node(kit) == 0


def raising_full_disk(*_: object) -> None:
    raise WorkFailedError("no space left on device")


def test_the_last_lines_of_a_log_are_shown_without_colours_and_without_empty_ones(kit):
    kit.state.mkdir(exist_ok=True)
    kit.log.write_text(
        "2026-01-01T00:00:00Z connected\n\x1b[92mINFO \x1b[0m:      \n\n\x1b[92mINFO \x1b[0m:      Sent\n"
    )
    assert site_status(kit).log == ("2026-01-01T00:00:00Z connected", "INFO : Sent")


def _other_roster(kit: SiteKit, before: Roster | None, **keys: bytes) -> None:
    """A roster that the true coordinator has signed, with other keys for some sites."""
    coordinator = Identity.load("coordinator", kit.path.parents[1] / "coordinator/identity.key")
    old = Roster.load(kit.roster)
    Roster.signed_by(coordinator, [(p.name, keys.get(p.name, p.public_key)) for p in old.sites], before).save(
        kit.roster
    )


def test_a_site_refuses_a_second_roster_of_one_number_and_one_of_another_federation(kit: SiteKit) -> None:
    true, fake = Roster.load(kit.roster), Identity.generate("x").public_key
    load_site(kit.path)
    _other_roster(kit, None, south=fake)
    with pytest.raises(VerificationError, match="another federation"):
        load_site(kit.path)
    coordinator = Identity.load("coordinator", kit.path.parents[1] / "coordinator/identity.key")
    twin = replace(Roster.load(kit.roster), federation=true.federation, version=true.version)
    replace(twin, signature=coordinator.sign(replace(twin, signature=b"").digest)).save(kit.roster)
    with pytest.raises(VerificationError, match="second roster of version 1"):
        load_site(kit.path)
    true.save(kit.roster)
    assert load_site(kit.path).roster == true


def test_a_site_takes_a_newer_roster_and_no_older_one(kit: SiteKit) -> None:
    first = Roster.load(kit.roster)
    load_site(kit.path)
    _other_roster(kit, first, south=Identity.generate("x").public_key)
    assert load_site(kit.path).roster.version == 2
    first.save(kit.roster)
    with pytest.raises(VerificationError, match="version 2 already"):
        load_site(kit.path)


def test_the_check_shows_the_six_words(kit: SiteKit) -> None:
    rows = {row.name: row for row in check_site(kit, timeout_s=0.2)}
    assert Roster.load(kit.roster).fingerprint in rows["roster"].found
    assert "compare" in rows["roster"].todo
