"""A whole federation: what comes out, what stays, and what happens when things go wrong."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import pytest

from client.guard import SitePolicy
from client.site import load_site
from common.audit import verify
from common.errors import BadInputError, FedcartError, WorkFailedError
from common.privacy.accountant import epsilon_of
from common.run import build_config, load_config
from common.run.files import RunFolder
from common.run.observer import Observer
from server.state import latest_checkpoint
from simulations import run as runs
from simulations.jobs import in_its_folder, new_job
from simulations.prepare import deal_data
from simulations.run import oracle_is_due, simulate
from tests.tiny_federation import Recorder, run_tiny, tiny


def _digest(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def private_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    out = tmp_path_factory.mktemp("private") / "run"
    return out, run_tiny(out)[1]


def test_a_private_run_is_complete_and_secure(private_run: tuple[Path, Recorder]) -> None:
    out, watcher = private_run
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["status"], summary["aggregation"], summary["private"]) == ("completed", "secure", True)
    for name in (
        "run.toml",
        "metrics.jsonl",
        "model.safetensors",
        "model.json",
        "model-card.md",
        "sites.json",
        "plan.json",
        "roster.json",
    ):
        assert (out / name).stat().st_size > 0, name
    assert [record.kind for record in watcher.records] == ["train", "train", "evaluate"]
    written = (out / "metrics.jsonl").read_text().splitlines()
    assert [record.to_json() for record in watcher.records] == written
    assert all(record.answered == 3 for record in watcher.records)
    assert load_config(out / "run.toml") == tiny()
    assert {"popularity", "markov", "repeat-last"} <= summary["baselines"].keys()


def test_epsilon_shown_is_the_one_that_the_ledgers_say(private_run: tuple[Path, Recorder]) -> None:
    out, watcher = private_run
    plan = RunFolder.open(out).plan()
    two_rounds = 2 * plan.events("train") + plan.events("evaluate")
    for site, shown in watcher.records[-1].epsilon.items():
        ledger = load_site(out / "sites" / site, simulated=True, ledger_path=out / "ledgers" / f"{site}.jsonl")
        status = ledger.guard().status()
        assert status.open == 0
        assert status.committed == 3
        assert shown == pytest.approx(status.epsilon)
        assert shown >= epsilon_of(tuple(two_rounds), plan.config.privacy.delta) - 1e-6
        assert shown <= plan.config.privacy.epsilon


@pytest.mark.parametrize(
    ("rounds", "every", "due"),
    [
        (3, 0, [1, 2, 3]),
        (100, 0, [1, *range(5, 101, 5)]),
        (7, 3, [1, 3, 6, 7]),
        (1, 0, [1]),
        (41, 0, [1, *range(2, 41, 2), 41]),
    ],
)
def test_exact_metrics_are_had_at_the_ends_and_evenly_between(rounds: int, every: int, due: list[int]) -> None:
    config = build_config({}, [f"training.rounds={rounds}", f"oracle_every={every}"])
    assert [number for number in range(1, rounds + 1) if oracle_is_due(number, config)] == due


def test_the_run_verifies_offline(private_run: tuple[Path, Recorder]) -> None:
    out, _ = private_run
    assert verify.verify_path(out).ok


def test_no_consumer_and_no_secret_is_in_what_the_server_keeps(private_run: tuple[Path, Recorder]) -> None:
    out, _ = private_run
    secrets = [path.read_bytes() for path in out.glob("sites/*/identity.key")]
    secrets += [path.read_bytes() for path in out.glob("sites/*/state/consumers.key")]
    kept = [
        p
        for p in out.rglob("*")
        if p.is_file() and not p.is_relative_to(out / "sites") and p.parent.name != "coordinator"
    ]
    assert len(kept) > 10
    for path in kept:
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), path


def test_the_same_seed_without_privacy_gives_the_same_model_whatever_the_workers(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        run_tiny(tmp_path / name, "privacy.enabled=false", f"performance.workers={workers}", "training.rounds=1")
    assert _digest(tmp_path / "one") == _digest(tmp_path / "two")


def test_merged_merchants_stock_what_their_members_did() -> None:
    world = deal_data(tiny("data.sites=8", "data.consumers=300", "data.min_population=64"))
    assert "rest" in world.partition.names
    assert world.masks["rest"].sum() > 0
    assert world.masks.keys() == set(world.partition.names)


@pytest.mark.full
def test_plain_and_secure_sums_give_the_same_model(tmp_path: Path) -> None:
    for mode in ("plain", "secure"):
        run_tiny(tmp_path / mode, "privacy.enabled=false", f"aggregation.mode={mode}", "training.rounds=1")
    found = [(tmp_path / mode / "checkpoints").glob("*.safetensors") for mode in ("plain", "secure")]
    plain, secure = (latest_checkpoint(next(iter(sorted(paths))).parent) for paths in found)
    assert (plain.parameters == secure.parameters).all()


@pytest.mark.full
def test_two_private_runs_never_share_their_noise(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_tiny(tmp_path / name, "training.rounds=1")
    assert _digest(tmp_path / "a") != _digest(tmp_path / "b")


class _Interrupt(Observer):
    """Presses Ctrl-C in round 2, while sites train."""

    def progress(self, round: int, phase: str, done: int, total: int) -> None:
        if round == 2 and phase == "advertise" and done >= 1:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.full
def test_an_interrupted_run_resumes_to_the_model_of_an_uninterrupted_one(tmp_path: Path) -> None:
    plain = ("privacy.enabled=false", "training.rounds=3")
    run_tiny(tmp_path / "whole", *plain)
    with pytest.raises(KeyboardInterrupt):
        simulate(tiny(*plain), tmp_path / "cut", _Interrupt())
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["status"] == "interrupted"
    summary = simulate(tiny(), tmp_path / "cut", resume=True)
    assert summary.status == "completed"
    assert _digest(tmp_path / "whole") == _digest(tmp_path / "cut")


@pytest.mark.full
def test_an_interrupted_private_run_pays_for_nothing_that_did_not_leave(tmp_path: Path) -> None:
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        simulate(tiny(), out, _Interrupt())
    summary = simulate(tiny(), out, resume=True)
    assert summary.status == "completed"
    assert summary.rounds == 2
    assert max(summary.epsilon.values()) <= tiny().privacy.epsilon
    assert verify.verify_path(out).ok
    again = simulate(tiny(), out, resume=True)  # nothing is left to do, and nothing is paid twice
    assert again.epsilon == summary.epsilon


@pytest.mark.full
def test_a_budget_that_is_spent_stops_the_site_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = runs.make_federation

    def one_is_stingy(*arguments: object) -> object:
        prepared = true(*arguments)  # type: ignore[arg-type]
        path = prepared.kits["merchant-4"] / "policy.toml"
        policy = SitePolicy.load(path)
        policy.model_copy(update={"epsilon_max": 6.0}).save(path)
        return prepared

    monkeypatch.setattr(runs, "make_federation", one_is_stingy)
    summary, watcher = run_tiny(tmp_path / "run", "data.sites=4", "data.consumers=320", "training.rounds=3")
    assert summary.status == "completed"
    stopped = [r.sites["merchant-4"].status for r in watcher.records if "merchant-4" in r.sites]
    assert "stopped" in stopped
    assert stopped.index("stopped") >= 1
    assert any("merchant-4" in note and "budget" in note for note in watcher.notes)
    assert summary.epsilon["merchant-4"] <= 6.0 < summary.epsilon["merchant-1"]


@pytest.mark.full
def test_lost_sites_abort_a_round_and_not_the_run(tmp_path: Path) -> None:
    summary, watcher = run_tiny(
        tmp_path / "run", "data.sites=5", "data.consumers=300", "drop=0.25", "training.rounds=4", "seed=3"
    )
    assert summary.status == "completed"
    assert any(record.answered < 5 for record in watcher.records)
    assert verify.verify_path(tmp_path / "run").ok


@pytest.mark.full
def test_rounds_that_keep_failing_end_the_run_with_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(WorkFailedError, match="in a row"):
        run_tiny(tmp_path / "run", "drop=0.95", "training.rounds=6")
    assert latest_checkpoint(tmp_path / "run" / "checkpoints").round >= 1


@pytest.mark.parametrize(
    "override",
    [
        "data.events=/nowhere/none.csv",
        "start_from=/nowhere/model",
        "privacy.epsilon=1e-6",
        "data.split_by=consumers data.sites=0",
        "data.min_population=100000",
    ],
)
def test_impossible_runs_are_refused_before_anything_is_written(tmp_path: Path, override: str) -> None:
    with pytest.raises(FedcartError) as caught:
        run_tiny(tmp_path / "run", *override.split())
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_named_at_resume(private_run: tuple[Path, Recorder], tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "copy"
    shutil.copytree(private_run[0], out)
    newest = max((out / "checkpoints").glob("round-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-3] + b"abc")
    with pytest.raises(BadInputError, match="damaged"):
        simulate(tiny(), out, resume=True)
    with pytest.raises(BadInputError, match="not a run folder"):
        simulate(tiny(), tmp_path / "nothing", resume=True)


def test_a_run_whose_rounds_gave_no_sum_has_failed_and_leaves_no_model(tmp_path: Path) -> None:
    summary, _ = run_tiny(tmp_path / "run", "drop=0.97")
    assert (summary.status, summary.rounds, summary.sums) == ("failed", 2, 0)
    assert "2 of 2 rounds gave no sum" in summary.notes[0]
    assert not list((tmp_path / "run").glob("model.*"))
    assert summary.metrics == {}


def test_a_folder_that_was_taken_for_a_run_that_never_began_is_gone_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = new_job(None, {})
    with pytest.raises(ZeroDivisionError), in_its_folder(job):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with in_its_folder(job) as mine, in_its_folder(job) as other:
        assert mine.out != other.out
        (mine.out / "file").write_text("x")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [mine.out.name]
    named = new_job(None, {}, out=tmp_path / "mine")
    named.out.mkdir()
    with in_its_folder(named) as mine:
        assert mine is named
    assert named.out.exists()
