"""A site whose answers fail after they were charged: everybody sees the charge, and it is not asked for ever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.main import main
from cli.report.audit_view import read_audit
from client.site import load_site
from common.audit.verify import verify_path
from common.run.records import RoundRecord
from simulations.run import simulate
from tests.tiny_federation import Recorder, tiny


class Saboteur(Recorder):
    """Takes one site its outbox after round 1: what it computes cannot be stored, as on a full disk."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out
        self.victim = ""

    def round_done(self, record: RoundRecord) -> None:
        super().round_done(record)
        if record.round == 1:
            self.victim = sorted(record.sites)[0]
            outbox = self._out / "sites" / self.victim / "state" / "outbox"
            shutil.rmtree(outbox, ignore_errors=True)
            outbox.write_bytes(b"no folder")


@pytest.fixture(scope="module", params=["secure", pytest.param("plain", marks=pytest.mark.full)])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Saboteur]:
    out = tmp_path_factory.mktemp("failing") / "run"
    watcher = Saboteur(out)
    settings = (
        "data.sites=4",
        "training.rounds=4",
        f"aggregation.mode={request.param}",
        "aggregation.min_sites=2",
    )
    assert simulate(tiny(*settings), out, watcher).status == "completed"
    return out, watcher


def test_the_charge_of_a_failed_answer_is_in_the_record(run: tuple[Path, Saboteur]) -> None:
    out, watcher = run
    failed = watcher.records[1]
    assert failed.sites[watcher.victim].status == "lost"
    assert watcher.victim in failed.attestations
    ledger = load_site(
        out / "sites" / watcher.victim, simulated=True, ledger_path=out / "ledgers" / f"{watcher.victim}.jsonl"
    ).guard()
    assert ledger.status().forfeit == 1
    assert watcher.records[-1].epsilon[watcher.victim] == pytest.approx(ledger.status().epsilon, abs=1e-5)
    assert verify_path(out).ok


def test_it_pauses_after_one_failure_and_is_shown_as_paused(run: tuple[Path, Saboteur]) -> None:
    _, watcher = run
    assert watcher.records[2].sites[watcher.victim].status == "paused"
    for later in watcher.records[3:]:  # nothing more is asked, so nothing more is charged
        assert watcher.victim not in later.sites
        assert later.epsilon[watcher.victim] == watcher.records[1].epsilon[watcher.victim]
    assert any(f"{watcher.victim} stopped: paused" in note for note in watcher.notes)


def test_who_never_attested_is_listed_as_such(run: tuple[Path, Saboteur], tmp_path: Path, capsys) -> None:
    """Handed over without ledgers, and with an attestation removed: the round is listed, not forgotten."""
    out, watcher = run
    (tmp_path / "run").mkdir()
    for path in out.iterdir():
        if path.is_file():
            (tmp_path / "run" / path.name).write_bytes(path.read_bytes())
    lines = (out / "metrics.jsonl").read_text().splitlines()
    plain = [json.loads(line) for line in lines]
    for line in plain:
        line["attestations"].pop(watcher.victim, None)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in plain))
    missing = read_audit(tmp_path / "run").not_attested
    assert [(one.site, one.round) for one in missing] == [(watcher.victim, 1), (watcher.victim, 2)]
    main(["audit", "show", str(tmp_path / "run")])
    assert "Not attested" in capsys.readouterr().out
