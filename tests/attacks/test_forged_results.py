"""A coordinator who signs again when the run is over: summary, models, facts, catalogue. What follows from the records is compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.audit.export import export_records
from common.audit.results import oracle_problems
from common.audit.verify import verify_path
from common.run import CLOSINGS_FILE, FAREWELL, Closing, line_of
from common.run.files import RunFolder
from common.run.manifest import seal_run
from common.run.records import RoundRecord, SiteRound, Summary
from common.trust.identity import Identity, Roster
from tests.forged_runs import Edit, coordinator_of, lines, put, sign_again

pytestmark = pytest.mark.full
NAMED = "site merchant-2 stopped: two proven faults"


def sealed_again(change: Callable[[Summary], Summary] = lambda summary: summary) -> Edit:
    """Another summary, and a manifest over all that is there now."""

    def edit(run: Path) -> None:
        folder = RunFolder.open(run)
        summary = folder.summary()
        assert summary is not None
        summary = change(summary)
        folder.write_summary(summary)
        seal_run(folder, summary, coordinator_of(run))

    return edit


def then(*edits: Edit) -> Edit:
    def edit(run: Path) -> None:
        for one in edits:
            one(run)

    return edit


def said_of_the_model(**changes: Any) -> Edit:
    """The true parameters under another description, signed as the true one was."""

    def edit(run: Path) -> None:
        from common.model.parameters import load_model, save_model

        vector, layout, metadata = load_model(run)
        save_model(run, vector, layout, {**metadata, **changes}, coordinator_of(run))

    return then(edit, sealed_again())


def called_the_best(**changes: Any) -> Edit:
    """The model after round 1, as the best of the run by a figure that nobody has released."""

    def edit(run: Path) -> None:
        from common.model.parameters import load_model, save_model
        from server.state import latest_checkpoint

        _, layout, metadata = load_model(run)
        folder = RunFolder.open(run)
        measured = folder.metrics()[-1]  # the closing evaluation, of the last model
        facts = {"which": "best", "rounds": measured.round - 1, "chosen_by": "recall@20", "bar": 0.001}
        true = {"value": measured.released["recall@20"]}
        state = latest_checkpoint(folder.checkpoints)
        save_model(
            folder.best_model, state.average, layout, {**metadata, **facts, **true, **changes}, coordinator_of(run)
        )

    return then(edit, sealed_again())


def in_file(name: str, change: Callable[[Any], object]) -> Edit:
    def edit(run: Path) -> None:
        plain = json.loads((run / name).read_text())
        change(plain)
        (run / name).write_text(json.dumps(plain, sort_keys=True, separators=(",", ":")))

    return edit


def of_merchant_2(record: RoundRecord, status: str, reason: str) -> RoundRecord:
    return replace(record, sites=record.sites | {"merchant-2": SiteRound(status, reason, "unmask")})


def rows_turned(run: Path) -> None:
    np.save(run / "item_of.npy", np.load(run / "item_of.npy")[::-1].copy())


def a_market(run: Path) -> None:
    (run / "market.json").write_text('{"kind":"released","series":{},"trend":{}}')


SIGNED_AGAIN: dict[str, tuple[Edit, str]] = {
    "a smaller epsilon in the summary": (
        sealed_again(lambda s: replace(s, epsilon=dict.fromkeys(s.epsilon, 0.1))),
        "summary.json: shows another epsilon than the last record",
    ),
    "better figures in the summary": (
        sealed_again(lambda s: replace(s, metrics=s.metrics | {"released": dict.fromkeys(s.metrics["released"], 0.999)})),
        "summary.json: shows other released figures than the last record",
    ),
    "more consumers in the summary": (
        sealed_again(lambda s: replace(s, metrics=s.metrics | {"public": {"held_out": 1e6}})),
        "summary.json: shows other public figures than the last record",
    ),
    "said to be not private": (sealed_again(lambda s: replace(s, private=False)), "says that the run is not private"),
    "said to be plain": (sealed_again(lambda s: replace(s, aggregation="plain")), "says that sums are plain"),
    "said to be stopped": (sealed_again(lambda s: replace(s, status="stopped")), "says stopped; the records show"),
    "said to have failed": (
        sealed_again(lambda s: replace(s, status="failed", metrics={})), "says failed; the records show",
    ),
    "a rival said to be a culprit": (
        sealed_again(lambda s: replace(s, notes=(*s.notes, NAMED))), "says what no record shows: site merchant-2 stopped",
    ),
    "a rival said to be silent": (
        sealed_again(lambda s: replace(s, notes=("site merchant-2 did not attest round 3: counted as charged",))),
        "says what no record shows: site merchant-2 did not attest",
    ),
    "no epsilon in a record": (
        lambda run: sign_again(run, lambda rs: [rs[0], replace(rs[1], epsilon={}), *rs[2:]]),
        "metrics.jsonl, line 2: shows epsilon 0.0 for merchant-1",
    ),
    "less in the last record, for one that was not in it": (
        lambda run: sign_again(run, lambda rs: [*rs[:-1], replace(rs[-1], attestations={}, sites={}, epsilon={})]),
        "metrics.jsonl, line 4: shows epsilon 0.0 for merchant-1",
    ),
    "a survivor said to be a culprit": (
        lambda run: sign_again(run, lambda rs: [rs[0], of_merchant_2(rs[1], "ok", "revealed a wrong share"), *rs[2:]]),
        "says of merchant-2 what nothing proves: ok, revealed a wrong share",
    ),
    "a site said to have lied, and lost for it": (
        lambda run: sign_again(run, lambda rs: [rs[0], of_merchant_2(rs[1], "lost", "wrong-share"), *rs[2:]]),
        "says of merchant-2 what nothing proves: lost, wrong-share",
    ),
    "a site said to be shut out": (
        lambda run: sign_again(run, lambda rs: [rs[0], of_merchant_2(rs[1], "stopped", "two proven faults"), *rs[2:]]),
        "says of merchant-2 what nothing proves: stopped, two proven faults",
    ),
    "a model of more rounds": (said_of_the_model(rounds=1_000), "model.json: says rounds 1000, the records say 3"),
    "a model of fewer sites": (said_of_the_model(sites=["merchant-1"]), "model.json: says that other sites made it"),
    "a model said to be not private": (said_of_the_model(private=False), "model.json: says private False"),
    "a model said to be the best": (said_of_the_model(which="best"), "model.json: says which best"),
    "a model of another catalogue": (said_of_the_model(sizes={"item": 9}), "model.json: says sizes"),
    "a best model by a figure of nobody": (called_the_best(value=0.999), "best/model.json: says value 0.999"),
    "a best model of another round": (
        called_the_best(rounds=1), "best/model.json: says that another round than the records' measured it",
    ),
    "a smaller epsilon among the facts": (
        then(in_file("sites.json", lambda plain: plain.update(epsilon_target=0.1)), sealed_again()),
        "sites.json: says other epsilon than the plan",
    ),
    "more noise among the facts": (
        then(in_file("sites.json", lambda plain: plain.update(noise_multiplier=99.0)), sealed_again()),
        "sites.json: says other noise than the plan",
    ),
    "more consumers among the facts": (
        then(in_file("sites.json", lambda plain: plain["sites"][0].update(population=10**6)), sealed_again()),
        "sites.json: says other sites than the plan",
    ),
    "other names in the catalogue": (
        then(in_file("catalogue.json", lambda plain: plain["items"].reverse()), sealed_again()),
        "catalogue.json: is not the catalogue that the plan names",
    ),
    "no catalogue": (
        then(lambda run: (run / "catalogue.json").unlink(), sealed_again()),
        "catalogue.json: is missing, but the plan names a catalogue",
    ),
    "a catalogue of nothing": (
        then(lambda run: (run / "catalogue.json").write_text("{}"), sealed_again()), "catalogue.json: ",
    ),
    "item rows in another order": (then(rows_turned, sealed_again()), "item_of.npy: is not the one that the first record"),
    "market series of nobody": (then(a_market, sealed_again()), "market.json: is not the one that the first record"),
    "said to be an export without what is there": (
        lambda run: (run / "left-out.json").write_text('{"left_out":["model.safetensors"]}'),
        "left-out.json: says that model.safetensors is left out",
    ),
    "said to be an export without what no export lacks": (
        lambda run: (run / "left-out.json").write_text('{"left_out":["evidence","plan.json"]}'),
        "left-out.json: says that evidence, plan.json is left out",
    ),
}  # fmt: skip


def found(run: Path, **known: Any) -> str:
    trusted = Roster.load(run / "roster.json")
    return " | ".join(str(finding) for finding in verify_path(run, roster=trusted, **known).findings)


@pytest.mark.parametrize("name", SIGNED_AGAIN)
def test_what_a_coordinator_signs_again_is_compared_with_the_records(copy: Path, name: str) -> None:
    edit, words = SIGNED_AGAIN[name]
    edit(copy)
    assert words in found(copy)


def test_what_is_signed_again_as_it_was_is_intact(copy: Path) -> None:
    sealed_again()(copy)
    assert found(copy) == ""
    called_the_best()(copy)
    assert found(copy) == ""


@pytest.mark.parametrize(
    "name",
    ["notes.jsonl", "delivered.json", "INTACT.txt", "model.onnx", "evidence/Round-00001.JSON", "evidence/note.txt",
     "best/verdict.json", "ledgers/merchant-1.JSONL", "proofs/of-everything.txt"],
)  # fmt: skip
def test_what_nobody_has_signed_is_named(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text('{"time":1.0,"note":"verified: epsilon 0.01"}\n')
    notes = [str(note) for note in verify_path(copy).notes]
    assert f"{name}: nobody signs what stands there" in notes


def test_many_such_names_are_counted(copy: Path) -> None:
    for number in range(20):
        (copy / f"x{number:02d}").write_text("x")
    assert "x07, 12 more: nobody signs" in " | ".join(str(note) for note in verify_path(copy).notes)


def rewritten(records: list[RoundRecord]) -> list[RoundRecord]:
    return [replace(record, released=dict.fromkeys(record.released, 0.999)) for record in records]


def cut(records: list[RoundRecord]) -> list[RoundRecord]:
    return records[:2]


@pytest.mark.parametrize("change", [rewritten, cut])
def test_a_record_that_is_rewritten_after_the_close_shows_from_what_a_site_was_told(
    copy: Path, tmp_path: Path, change: Callable[[list[RoundRecord]], list[RoundRecord]]
) -> None:
    """All is signed anew and the sites' last word thrown away: without a site's own files there is a note and no more."""
    ledger = told_at_the_close(copy, tmp_path / "state", coordinator_of(copy))
    assert found(copy, ledgers=[ledger]) == ""
    (copy / "countersigned.json").write_text('{"last":"","sites":{}}')
    sign_again(copy, change)
    said = found(copy, ledgers=[ledger])
    assert "state/closings.jsonl: the coordinator signed another end of round 4 to this site" in said


def test_no_site_makes_up_what_it_was_told(copy: Path, tmp_path: Path) -> None:
    """Nor does a record look rewritten that only goes on: a run is closed once in each of its lives."""
    records = RunFolder.open(copy).metrics()
    ledger = told_at_the_close(copy, tmp_path / "state", Identity.generate("coordinator"), "ab" * 32)
    assert found(copy, ledgers=[ledger]) == ""
    ledger = told_at_the_close(copy, tmp_path / "earlier", coordinator_of(copy), records[1].digest)
    assert found(copy, ledgers=[ledger]) == ""


def told_at_the_close(run: Path, state: Path, coordinator: Identity, last: str = "") -> Path:
    state.mkdir()
    folder = RunFolder.open(run)
    closing = Closing(folder.plan().run, 4, last or folder.last_record())
    (state / CLOSINGS_FILE).write_bytes(
        b"half a line\n" + line_of(closing, coordinator.sign(closing.statement(FAREWELL)))
    )
    for name in ("merchant-1.jsonl", "merchant-1.head.json"):
        shutil.copy(run / "ledgers" / name, state / name)
    return state / "merchant-1.jsonl"


def test_figures_of_an_oracle_in_a_run_of_real_sites_are_made_up(copy: Path) -> None:
    """Nobody signs them, as a simulation alone knows them; so where real sites attest, they stand nowhere."""
    simulated = RunFolder.open(copy)
    records, summary = simulated.metrics(), simulated.summary()
    assert list(oracle_problems(simulated, records, summary)) == []
    plain = lines(copy)
    for record in plain:
        for said in record["attestations"].values():
            said["attestation"]["simulated"] = False
    put(copy, plain)
    where = [
        name for name, what in oracle_problems(simulated, simulated.metrics(), summary) if "made them up" in what
    ]
    assert where == ["metrics.jsonl", "summary.json", "oracle/"]
    quiet = [replace(record, oracle={}) for record in simulated.metrics()]
    shutil.rmtree(copy / "oracle")
    assert list(oracle_problems(simulated, quiet, Summary("completed"))) == []


@pytest.mark.parametrize("name", ["best", "checkpoints", "masks.npz"])
def test_a_run_is_exported_whatever_its_folder_is_called(copy: Path, tmp_path: Path, name: str) -> None:
    """These are names of what an export leaves out, inside of a run."""
    copy.rename(tmp_path / name)
    export_records(tmp_path / name, tmp_path / "exported")
    assert found(tmp_path / "exported") == ""
