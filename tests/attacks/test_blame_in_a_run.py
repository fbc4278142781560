"""Whole runs with a hostile site: they complete without it, name it, charge nobody twice, and invite it no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest

import client.session as client_session
import simulations.engines as engines
from cli.main import main
from client.site import Site
from common import wire
from common.audit.verify import verify_path
from common.contribution import MAX_QUERY_BYTES, Query
from common.run.files import RunFolder
from common.secagg.messages import Session
from simulations.grid import InProcessGrid
from simulations.run import simulate
from tests.hostile_sites import (
    Lie,
    corrupt_machines,
    false_complaint,
    garbage_boxes,
    other_shares_in_the_box,
    shares_of_a_higher_degree,
    shares_of_another_key,
    shares_of_no_polynomial,
    unsigned,
    wrong_shares,
)
from tests.tiny_federation import Recorder, tiny

pytestmark = pytest.mark.full
SITES = [f"merchant-{i}" for i in range(1, 9)]
RIVAL = "merchant-2"
EIGHT = ("data.sites=8", "data.consumers=480")

# Each way by one site of eight in one round; nobody is proven guilty twice.
TEN_ROUNDS: list[tuple[str, Lie, str]] = [
    ("merchant-1", garbage_boxes(RIVAL), "bad-box"),
    ("merchant-2", garbage_boxes(*SITES[:1], *SITES[2:]), "bad-box"),
    ("merchant-3", other_shares_in_the_box(RIVAL), "bad-box"),
    ("merchant-4", shares_of_no_polynomial, "bad-dealing"),
    ("merchant-5", shares_of_a_higher_degree, "bad-dealing"),
    ("merchant-6", shares_of_another_key, "bad-dealing"),
    ("merchant-7", false_complaint(), "false-complaint"),
    ("merchant-8", wrong_shares(), "wrong-share"),
    ("merchant-1", unsigned("share"), ""),
    ("merchant-1", unsigned("unmask"), ""),
]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer every message here, so that a test can make a site lie."""

    def grid(run_id, nodes, _pool, losses, server) -> InProcessGrid:
        return InProcessGrid(run_id, nodes, None, losses, server)

    monkeypatch.setattr(engines, "InProcessGrid", grid)


def test_ten_rounds_with_one_hostile_site_of_eight_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    def lie_of(site: str, session: Session) -> Lie | None:
        liar, lie, _ = TEN_ROUNDS[session.round - 1] if 1 <= session.round <= 10 else ("", None, "")
        return lie if site == liar else None

    corrupt_machines(monkeypatch, lie_of)
    out, watcher = tmp_path / "run", Recorder()
    assert simulate(tiny(*EIGHT, "training.rounds=10"), out, watcher).status == "completed"
    trained = [record for record in watcher.records if record.kind == "train"]
    assert [record.aborted for record in trained] == [""] * 10
    rounds_with: dict[str, int] = dict.fromkeys(SITES, 0)
    for record, (liar, _, kind) in zip(trained, TEN_ROUNDS, strict=True):
        assert {fault.culprit for fault in record.faults} == ({liar} if kind else set())
        assert {fault.kind for fault in record.faults} == ({kind} if kind else set())
        others = set(SITES) - {liar}
        assert {site for site in others if record.sites[site].status == "ok"} == others
        for site in rounds_with:
            rounds_with[site] += site in record.attestations
        if kind:
            assert record.sites[liar].reason == kind
            assert any(f"round {record.round}: {liar} " in note for note in watcher.notes)
    assert set(rounds_with.values()) == {10}  # one RESERVE a round, however many attempts
    by_sums: dict[int, set[float]] = {}
    for site, spent in watcher.records[-1].epsilon.items():
        sums = sum(record.sites[site].status == "ok" for record in watcher.records)
        by_sums.setdefault(sums, set()).add(spent)
    assert set(by_sums) == {9, 10, 11}  # all take part in all rounds but those in which they are left out
    assert all(len(charged) == 1 for charged in by_sums.values())  # the charge is that of the sums alone
    assert max(by_sums[11]) <= watcher.facts.epsilon_target + 1e-3
    verdict = verify_path(out)
    assert verdict.ok, verdict.findings
    assert len(verdict.faults) == sum(len(record.faults) for record in trained)
    assert main(["report", str(out)]) == 0
    assert "dealt merchant-2 a wrong share (proven)" in (out / "report.html").read_text()
    changed = next(RunFolder(out).proofs.glob("*.json"))
    assert f"proofs/{changed.name}" in RunFolder(out).manifest()["files"]
    changed.write_text(changed.read_text().replace("a", "b", 1))
    assert not verify_path(out).ok


class StopAfter(Recorder):
    """Ends the run after some rounds, to be resumed."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds

    def stop_is_asked(self) -> bool:
        return len(self.records) >= self.rounds


def test_two_proven_faults_end_the_invitations_also_over_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    corrupt_machines(monkeypatch, lambda site, session: garbage_boxes(RIVAL) if site == "merchant-1" else None)
    out, config = tmp_path / "run", tiny("data.sites=5", "training.rounds=4")
    assert simulate(config, out, StopAfter(1)).status == "interrupted"
    watcher = Recorder()
    assert simulate(config, out, watcher, resume=True).status == "completed"
    records = RunFolder.open(out).metrics()[:4]
    assert [bool(record.faults) for record in records] == [True, True, False, False]
    assert ["merchant-1" in record.sites for record in records] == [True, True, False, False]
    assert all(record.sites[RIVAL].status == "ok" and not record.aborted for record in records)
    assert any("merchant-1 stopped: two proven faults" in note for note in watcher.notes)
    assert records[-1].epsilon["merchant-1"] == records[1].epsilon["merchant-1"]
    assert verify_path(out).ok


def broken_down(_reply: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError("a fault of the hostile site's own")


Change = Callable[[dict[str, Any]], dict[str, Any]]
# Each by another site, or the same one later; nobody's word on it is a proof, so nobody is excluded.
TEN_MESSAGES: list[tuple[str, str, Change]] = [
    ("merchant-1", "advertise", lambda reply: reply | {"attestation": "[" * 200_000}),
    ("merchant-2", "advertise", lambda reply: {"message": reply["message"]}),
    ("merchant-3", "advertise", lambda reply: reply | {"message": bytes(10_000_000)}),
    ("merchant-4", "share", lambda _: {"message": cbor2.dumps([10**5_000, "ShareBundle", []])}),
    ("merchant-5", "share", lambda _: {}),
    ("merchant-6", "accept", lambda _: {"message": 5}),
    ("merchant-7", "mask", lambda reply: {"message": reply["message"][:-4]}),
    ("merchant-1", "mask", broken_down),
    ("merchant-2", "confirm", lambda _: {"message": b"\x81" * 5_000}),
    ("merchant-3", "unmask", lambda _: {"error": "\x1b[2J=1+1"}),
]


def send_other_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of ``TEN_MESSAGES`` in the round of its number."""

    def lying(phase: str, true: Callable[..., Any]) -> Callable[..., Any]:
        def step(site: Site, request: dict[str, Any], memory: Any) -> Any:
            if phase == "advertise":
                number = wire.decode(Query, request["query"], MAX_QUERY_BYTES).round
            else:
                number = client_session._machine(site, memory).params.session.round
            reply, after = true(site, request, memory)
            liar, when, change = TEN_MESSAGES[number - 1] if number <= 10 else ("", "", dict)
            return (change(reply) if (liar, when) == (site.name, phase) else reply), after

        return step

    for phase in {phase for _, phase, _ in TEN_MESSAGES}:
        monkeypatch.setattr(client_session, phase, lying(phase, getattr(client_session, phase)))


def test_ten_rounds_with_one_malformed_message_each_cost_nobody_else_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    honest, watcher = Recorder(), Recorder()
    assert simulate(tiny(*EIGHT, "training.rounds=10"), tmp_path / "honest", honest).status == "completed"
    send_other_messages(monkeypatch)
    assert simulate(tiny(*EIGHT, "training.rounds=10"), tmp_path / "run", watcher).status == "completed"
    trained = [record for record in watcher.records if record.kind == "train"]
    assert [(record.aborted, record.faults) for record in trained] == [("", ())] * 10
    for record, (liar, phase, _) in zip(trained, TEN_MESSAGES, strict=True):
        others = set(SITES) - {liar}
        assert {site for site in others if record.sites[site].status == "ok"} == others
        if phase in ("confirm", "unmask"):  # its vector is in the sum already
            assert record.sites[liar].status == "ok"
            assert record.attestations.keys() == set(SITES)
            continue
        assert (record.sites[liar].status, record.sites[liar].phase) == ("lost", phase)
        assert record.attestations.keys() >= others
        if phase != "mask" or liar != "merchant-1":  # one breaks down, and says so itself
            assert any(f"round {record.round}: site {liar} is lost" in note for note in watcher.notes)
    never_lied = "merchant-8"
    charged = [record.epsilon[never_lied] for record in watcher.records]
    assert charged == [record.epsilon[never_lied] for record in honest.records]
    assert max(watcher.records[-1].epsilon.values()) == charged[-1]
    assert verify_path(tmp_path / "run").ok
    assert not any("\x1b" in text for text in (*watcher.notes, *map(str, watcher.records)))
