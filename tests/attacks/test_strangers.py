"""A stranger with nothing but the address, or a line that is down: the run waits, and goes on."""

from __future__ import annotations

import contextlib
import datetime
import resource
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from common import VERSION
from common.atomic import write_atomic
from common.errors import WorkFailedError
from common.flower import private, transport_errors
from common.run.files import RunFolder
from common.run.records import INTERRUPTED, STOPPED
from common.trust.certificates import (
    issue_server_certificate,
    load_node_key,
    make_authority,
    make_node_key,
    node_public_pem,
)
from common.trust.identity import Identity
from server import app, gathering
from server.admission import HeadsBook
from server.asking import TOO_FEW, Run
from server.exchange import Exchange
from server.rounds import evaluate, release_series, run_federation
from server.runtime.door import DoorLimits, Visitors, impatient, open_doors, raise_file_limit
from server.runtime.gate import BodyLimits, admitted_only
from server.state import ServerState, latest_checkpoint, save_checkpoint
from tests.guard_samples import COORDINATOR, IDENTITY
from tests.server.test_exchange import ScriptedGrid
from tests.signed_runs import signed_run
from tests.tiny_federation import Recorder

SITES = ("one", "two", "three")


class Line(ScriptedGrid):
    """Nodes that refuse what they are asked; the line is down for the first looks, then up, or down after some asking."""

    def __init__(self, *, down: int = 0, nobody: int = 0, falls_after: int = 10**6, word: str = "policy") -> None:
        super().__init__({number: {"error": word} for number in range(2, 2 + len(SITES))})
        self.down, self.nobody, self.falls_after, self.looks, self.asked = down, nobody, falls_after, 0, 0

    def get_node_ids(self) -> Any:
        self.looks += 1
        if self.down > 0:
            self.down -= 1
            raise transport_errors()[0]("connection refused")
        if self.nobody > 0:
            self.nobody -= 1
            return []
        return super().get_node_ids()

    def push_messages(self, messages: Any) -> Any:
        self.asked += 1
        if self.asked == self.falls_after:
            self.down = 3
        if self.down > 0:
            raise transport_errors()[0]("connection refused")
        return super().push_messages(messages)


class Watcher(Recorder):
    """Asks the run to stop after so many looks."""

    def __init__(self, stops_after: int = 10**6) -> None:
        super().__init__()
        self.left = stops_after

    def stop_is_asked(self) -> bool:
        self.left -= 1
        return self.left < 0


def run_over(folder: Path, line: Line, watcher: Watcher | None = None, *settings: str) -> tuple[Run, Watcher]:
    """A run in the clear over three sites that refuse everything, with its folder."""

    sites = {
        name: IDENTITY if name == "one" else Identity.from_seed(name, name.encode().ljust(32)) for name in SITES
    }
    made = signed_run(RunFolder.create(folder / "run"), sites, ["training.rounds=3", *settings], (1.0, 3.0))
    save_checkpoint(made.folder.checkpoints, ServerState.initial(np.zeros(4, np.float32), made.plan.digest()))
    watcher = watcher or Watcher()
    nodes = {name: 2 + number for number, name in enumerate(SITES)}
    book = HeadsBook.open(folder / "heads.json")
    return Run(
        made.plan, made.folder, Exchange(line, nodes), COORDINATOR, made.roster, book, None, watcher
    ), watcher


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "FIRST_PAUSE_S", 0.01)


# --- the server, or the line, was down


@pytest.mark.parametrize("outage", [{"down": 4}, {"nobody": 4}])
def test_no_round_is_asked_while_nobody_can_be_reached(tmp_path: Path, outage: dict[str, int]) -> None:
    line = Line(**outage)
    run, watcher = run_over(tmp_path, line)
    run_federation(run)
    assert watcher.records[0].round == 1
    assert {site.status for site in watcher.records[0].sites.values()} == {"refused"}
    said = [note for note in watcher.notes if note.startswith("round 1 ")]
    assert len(said) == 2
    assert "0 of 3 sites can be reached, 3 are needed; missing: one, two, three" in said[0]


def test_a_line_that_falls_while_the_sites_are_asked_uses_up_no_number(tmp_path: Path) -> None:
    line = Line(falls_after=1)
    run, watcher = run_over(tmp_path, line)
    run_federation(run)
    assert [record.round for record in watcher.records] == [1]
    assert {site.status for site in watcher.records[0].sites.values()} == {"refused"}


def test_patience_ends_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gathering.PATIENCE_VARIABLE, "0.05")
    run, watcher = run_over(tmp_path, Line(down=10**6))
    with pytest.raises(WorkFailedError, match="0 of 3 sites can be reached") as caught:
        run_federation(run)
    assert "resume" in caught.value.hint
    assert not watcher.records
    assert latest_checkpoint(run.folder.checkpoints).round == 0


def test_the_coordinator_can_stop_a_run_that_waits(tmp_path: Path) -> None:
    run, watcher = run_over(tmp_path, Line(down=10**6), Watcher(stops_after=3))
    assert run_federation(run).status == INTERRUPTED
    assert not watcher.records


# --- the public port


class Echo:
    """An app that says how long the body was, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        size, more = 0, True
        while more:
            part = await receive()
            size, more = size + len(part.get("body", b"")), part.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
        await send({"type": "http.response.body", "body": b"%8d" % size})


REFUSED = b"hung up"


class Port:
    """A public port with small limits, over TLS, in a thread; and a site that may speak to it."""

    def __init__(self, folder: Path) -> None:
        authority = make_authority("t")
        certificate, key = issue_server_certificate(authority, ["localhost", "127.0.0.1"], 30)
        (folder / "server.crt").write_bytes(certificate)
        write_atomic(folder / "server.key", key, mode=0o600)
        secret, public = make_node_key()
        write_atomic(folder / "node.key", secret, mode=0o600)
        self.key, self.pem = load_node_key(folder / "node.key"), node_public_pem(public)
        self.app = Echo()
        bounds = BodyLimits(object_bytes=200_000, other_bytes=100_000, grace_s=0.5, bytes_per_s=1e6)
        protocol = impatient(AutoHTTPProtocol, 0.5)
        config = uvicorn.Config(
            admitted_only(self.app, [self.pem], bounds), lifespan="off", log_level="critical", http=protocol, loop="asyncio",
            ssl_certfile=folder / "server.crt", ssl_keyfile=folder / "server.key",
        )  # fmt: skip
        self.doors = open_doors(("127.0.0.1", 0), DoorLimits(per_address=20))
        self.address = self.doors[0].getsockname()[:2]
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: self._server.run(list(self.doors)), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    def connect(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        raw = socket.create_connection(self.address, timeout=5, source_address=(source, 0))
        return context.wrap_socket(raw)

    def headers(self) -> str:
        """What a site that was admitted signs."""
        said = datetime.datetime.now(datetime.UTC).isoformat()
        signature = self.key.sign(said.encode(), ec.ECDSA(hashes.SHA256()))
        return (
            f"flwr-public-key: {b64encode(self.pem).decode()}\r\n{private('TIMESTAMP_HEADER')}: {said}\r\n"
            f"flwr-signature: {b64encode(signature).decode()}\r\n"
        )

    def post(
        self, body: bytes, *, signed: bool = True, path: str = "/v1/fleet/pull-messages", **extra: str
    ) -> bytes:
        size = f"content-length: {len(body)}\r\n"
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{self.headers() if signed else ''}{size}\r\n"
        return self.send(head, body, **extra)

    def send(self, head: str, body: bytes, **extra: str) -> bytes:
        """What is answered, or REFUSED: who is refused may be hung up on before he has read why."""
        with self.connect(**extra) as at:
            try:
                at.sendall(head.encode() + body)
                return at.recv(4_000) or REFUSED
            except OSError:
                return REFUSED


def hung_up(connection: socket.socket) -> bool:
    """Whether the other side has ended a connection on which nothing was said."""
    connection.settimeout(0.02)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    made = Port(tmp_path)
    yield made
    made.stop()


def test_an_admitted_site_is_heard(port: Port) -> None:
    assert b"200" in port.post(b"x" * 50_000)[:20]
    assert port.app.asked == 1


def test_of_a_stranger_nothing_but_the_headers_is_read(port: Port) -> None:
    assert b"403" in port.post(b"", signed=False)[:20]
    with port.connect() as at:  # an endless body, before anything is proven
        at.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 10:
                at.sendall(b"10000\r\n" + bytes(65_536) + b"\r\n")
                time.sleep(0.01)
    assert time.monotonic() - began < 5, "the connection was not ended"
    assert port.app.asked == 0


@pytest.mark.parametrize(
    "change", [("flwr-signature: ", "flwr-signature: AAAA"), ("flwr-public-key: ", "flwr-public-key: AAAA")]
)
def test_another_key_or_signature_is_a_strangers(port: Port, change: tuple[str, str], monkeypatch: Any) -> None:
    honest = port.headers()
    monkeypatch.setattr(port, "headers", lambda: honest.replace(*change))
    assert b"403" in port.post(b"x")[:20]
    assert port.app.asked == 0


def test_a_body_over_its_cap_is_refused_by_its_length_and_by_its_bytes(port: Port) -> None:
    answer = port.post(bytes(100_001))
    assert answer == REFUSED or b"413" in answer[:20]
    assert port.app.asked == 0
    assert b"200" in port.post(bytes(150_000), path="/v1/fleet/push-object")[:20]
    head = f"POST /v1/fleet/get-run HTTP/1.1\r\nhost: x\r\n{port.headers()}transfer-encoding: chunked\r\n\r\n"
    answer = port.send(head, (b"10000\r\n" + bytes(65_536) + b"\r\n") * 3 + b"0\r\n\r\n")
    assert answer == REFUSED or b"413" in answer[:20]


def test_a_body_that_does_not_come_is_not_waited_for(port: Port) -> None:
    with port.connect() as at:
        at.sendall(
            f"POST /v1/fleet/get-run HTTP/1.1\r\nhost: x\r\n{port.headers()}content-length: 9\r\n\r\nx".encode()
        )
        assert b"408" in at.recv(100)


@pytest.mark.parametrize("word", [b"", b"POST /v1/fl", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_who_does_not_come_to_the_point_is_hung_up_on(port: Port, word: bytes) -> None:
    with port.connect() as at:
        if word:
            at.sendall(word)
        began = time.monotonic()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert at.recv(100) == b""
        assert time.monotonic() - began < 3


def test_idle_connections_of_one_address_shut_out_nobody_else(port: Port) -> None:
    idle: list[socket.socket] = []
    for _ in range(60):  # some with a handshake, some without
        with contextlib.suppress(OSError):
            idle.append(socket.create_connection(port.address, timeout=2))
    assert b"200" in port.post(b"x", source="127.0.0.2")[:20]
    assert sum(hung_up(one) for one in idle) >= 40
    for one in idle:
        one.close()
    end = time.monotonic() + 5
    while port.doors[0].visitors.open.total() and time.monotonic() < end:
        time.sleep(0.05)
    assert not port.doors[0].visitors.open, "a connection that is over is still counted"
    assert b"200" in port.post(b"x")[:20]


def test_a_proxy_may_bring_more_than_one_address_may_and_all_together_have_a_limit() -> None:
    visitors = Visitors(DoorLimits(per_address=2, proxies=("10.0.0.1",)), most=5)
    assert [visitors.enter("10.0.0.9") for _ in range(3)] == [True, True, False]
    assert [visitors.enter("10.0.0.1") for _ in range(4)] == [True, True, True, False]
    visitors.leave("10.0.0.9")
    assert visitors.enter("10.0.0.1")


def test_the_file_limit_is_raised_to_what_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- nobody is left


def test_a_run_whose_sites_all_refuse_stops_and_says_who_said_what(tmp_path: Path) -> None:
    run, watcher = run_over(tmp_path, Line(word="budget"))
    outcome = run_federation(run)
    assert outcome.status == STOPPED
    assert "0 of 3 sites are left, 3 are needed (one: budget" in outcome.reason
    assert outcome.evaluation is None
    assert [record.kind for record in watcher.records] == ["train"]


@pytest.mark.parametrize("mode", ["plain", "secure"])
@pytest.mark.parametrize("left", [0, 1, 2])
def test_an_evaluation_of_too_few_sites_gives_no_numbers_and_no_error(
    tmp_path: Path, left: int, mode: str
) -> None:
    run, _ = run_over(tmp_path, Line(), None, f"aggregation.mode={mode}")
    state = latest_checkpoint(run.folder.checkpoints)
    for site in SITES[left:]:
        run.exchange.nodes.pop(site)
    record = evaluate(run, state)
    assert record is not None
    assert record.aborted == TOO_FEW
    assert not record.released
    assert set(record.sites) == set(SITES[:left])


def test_all_rounds_done_and_nobody_left_to_evaluate_is_a_completed_run(tmp_path: Path) -> None:
    run, watcher = run_over(tmp_path, Line())
    state = latest_checkpoint(run.folder.checkpoints)
    done = ServerState(state.parameters, state.average, state.plan, 3, stopped=dict.fromkeys(SITES, "budget"))
    save_checkpoint(run.folder.checkpoints, done)
    outcome = run_federation(run)
    assert outcome.evaluation is None
    assert "there is no closing evaluation: 0 of 3 sites are left" in outcome.reason
    assert not watcher.records


def test_series_of_too_few_sites_end_the_run_with_a_word_and_no_market(tmp_path: Path) -> None:
    run, watcher = run_over(
        tmp_path,
        Line(),
        None,
        "task=sales",
        "sales.window=14",
        "sales.test=14",
        "sales.start=2024-01-01",
        "sales.periods=100",
    )
    outcome = run_federation(run)
    assert outcome.status == "failed"
    assert "gave no sum" in outcome.reason
    assert [record.kind for record in watcher.records] == ["statistics"]
    run.exchange.nodes.clear()
    assert release_series(run, outcome.state).aborted == TOO_FEW


# --- the greeting


class Greeted(ScriptedGrid):
    """Nodes that prove who they are, after having been silent for the first questions."""

    def __init__(self, run: str, identities: dict[int, Identity], silent_s: float) -> None:
        super().__init__(dict.fromkeys(identities))
        self.identities, self.run_name, self.speaks_at = identities, run, time.monotonic() + silent_s
        self.asked = 0

    def push_messages(self, messages: Any) -> Any:
        self.asked += 1
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Any) -> Any:
        if time.monotonic() > self.speaks_at:
            for node, identity in self.identities.items():
                signature = identity.sign(app.HELLO + f"{self.run_name}/{node}".encode())
                self.script[node] = {"site": SITES[node - 2], "signature": signature, "version": VERSION}
        return super().pull_messages(message_ids)


@pytest.mark.parametrize(("silent_s", "there"), [(0.0, True), (1.0, True), (60.0, False)])
def test_a_connected_site_that_still_works_for_a_round_that_was_cut_off_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_s: float, there: bool
) -> None:
    monkeypatch.setattr(app, "GREETING_S", 0.1)
    short = ["aggregation.exchange_deadline_s=0.3", "aggregation.deadline_s=2.0"]
    run, watcher = run_over(tmp_path, Line(), None, *short)
    identities = {
        2 + n: IDENTITY if s == "one" else Identity.from_seed(s, s.encode().ljust(32)) for n, s in enumerate(SITES)
    }
    grid = Greeted(run.plan.run, identities, silent_s)
    if there:
        assert set(app.greet(grid, run.plan, run.roster, watcher)) == set(SITES)
    else:
        with pytest.raises(WorkFailedError, match="0 of 3 sites are there"):
            app.greet(grid, run.plan, run.roster, watcher)


def test_nodes_that_answer_and_prove_nothing_are_neither_waited_for_nor_asked_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "GREETING_S", 0.1)
    run, watcher = run_over(tmp_path, Line(), None, "aggregation.exchange_deadline_s=0.6")
    grid = Greeted("another-run", {2: IDENTITY}, 0.0)
    began = time.monotonic()
    with pytest.raises(WorkFailedError, match="0 of 3 sites are there"):
        app.greet(grid, run.plan, run.roster, watcher)
    assert time.monotonic() - began < 60.0  # the deadline of training, 600 s, is not waited for
    assert grid.asked <= 3
