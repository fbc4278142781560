"""One site sends what no honest site can make: the sum is refused, the model stays, and after two such rounds the run stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file as load

import client.session as session
import common.secagg.client as secagg_client
import simulations.engines as engines
from cli.report import write_report
from common.audit.verify import verify_path
from common.contribution import EVALUATE, METRICS, TRAIN, UPDATE
from common.limits import COORDINATE, LENGTH, ROW, ItemCoordinates, UpdateLimits
from common.run import COMPLETED, FAILED, IMPLAUSIBLE, RoundRecord, RunFolder, RunPlan, Shortened
from common.secagg.fixedpoint import slices
from server.plausible import judge
from simulations.grid import InProcessGrid
from simulations.run import simulate
from tests.tiny_federation import Recorder, tiny

EVIL = "merchant-1"
Push = dict[str, tuple[slice, float]]
WHOLE = slice(None)

LIES: dict[str, Push] = {
    "a little everywhere": {UPDATE: (WHOLE, 1.5)},
    "as much as the ring holds, in one coordinate": {UPDATE: (slice(9, 10), 11.0)},
    "the row of one item": {UPDATE: (slice(8, 16), 5.0)},
    "nothing but hits": {METRICS: (slice(2, 3), 150.0)},
    "a loss below zero": {METRICS: (slice(1, 2), -150.0)},
    "more consumers than there are": {METRICS: (slice(0, 1), 450.0)},
}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer every message here, so that a test can make a site lie."""

    def grid(run_id, nodes, _pool, losses, server) -> InProcessGrid:
        return InProcessGrid(run_id, nodes, None, losses, server)

    monkeypatch.setattr(engines, "InProcessGrid", grid)


def pushing(monkeypatch: pytest.MonkeyPatch, plan_of: Callable[[], RunPlan], push: Push, rounds: set[int]) -> None:
    """Let one site add to its ring in these rounds what it likes."""
    honest, number = session._waiting, {"": 0}
    seen: set[bytes] = set()

    def ring(site, memory):
        waiting = honest(site, memory)
        if site.name != EVIL:
            return waiting
        true = np.frombuffer(waiting.ring, dtype=np.uint32)
        if waiting.ring not in seen:
            seen.add(waiting.ring)
            number[""] += 1
        plan = plan_of()
        blocks = plan.blocks(TRAIN)
        if number[""] not in rounds or len(true) != sum(block.length for block in blocks):
            return waiting
        false = true.astype(np.int64)
        for block, part in slices(blocks):
            if block.name in push:
                where, value = push[block.name]
                false[part][where] += round(value * 2**block.fractional_bits)
        return replace(waiting, ring=(false % 2**32).astype(np.uint32).tobytes())

    monkeypatch.setattr(session, "_waiting", ring)
    monkeypatch.setattr(secagg_client, "check_ring", lambda *_: None)  # a liar does not ask itself


@pytest.mark.full
@pytest.mark.parametrize("lie", LIES)
def test_a_sum_that_no_honest_sites_can_make_changes_nothing_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None, lie: str
) -> None:
    out, watcher = tmp_path / "run", Recorder()
    pushing(monkeypatch, lambda: RunFolder.open(out).plan(), LIES[lie], {2})
    summary = simulate(tiny("training.rounds=3"), out, watcher)
    assert (summary.status, summary.rounds, summary.sums) == (COMPLETED, 3, 2)
    first, refused, third = [record for record in watcher.records if record.kind == TRAIN]
    assert (first.aborted, refused.aborted, third.aborted) == ("", IMPLAUSIBLE, "")
    assert refused.released == {}
    assert refused.state == refused.model == first.state
    assert any("round 2: the sum is refused: " in note and "honest sites reach" in note for note in watcher.notes)
    assert not any(EVIL in note for note in watcher.notes)  # who it was cannot be seen
    assert set(refused.attestations) == set(refused.sites)  # what left is charged
    assert verify_path(out).ok


@pytest.mark.full
def test_two_in_a_row_end_the_run_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    out, watcher = tmp_path / "run", Recorder()
    pushing(monkeypatch, lambda: RunFolder.open(out).plan(), LIES["a little everywhere"], {2, 3, 4, 5})
    summary = simulate(tiny("training.rounds=5"), out, watcher)
    assert summary.status == FAILED
    assert [record.aborted for record in watcher.records] == ["", IMPLAUSIBLE, IMPLAUSIBLE]
    assert any("one site is enough to do this" in note for note in (*summary.notes, *watcher.notes))
    assert verify_path(out).ok


@pytest.mark.full
@pytest.mark.parametrize("privacy", ["true", "false"])
def test_a_tiny_model_whose_consumers_all_move_one_bias_is_not_refused(tmp_path: Path, privacy: str) -> None:
    settings = ("data.consumers=120", "data.items=20", "model.dim=4", "model.hidden=4", "training.local_steps=5")
    out = tmp_path / "run"
    summary = simulate(
        tiny(*settings, 'model.heads={"next-event"=1}', f"privacy.enabled={privacy}", "training.rounds=3"), out
    )
    assert (summary.status, summary.sums) == (COMPLETED, 3)


UNUSUAL: dict[str, tuple[Push, str]] = {
    "a push of one item": ({UPDATE: (slice(8, 16), 0.35)}, ROW),
    "a push of one coordinate of no item": ({UPDATE: (slice(400, 401), 1.1)}, COORDINATE),
}


@pytest.mark.full
@pytest.mark.parametrize("push", UNUSUAL)
def test_a_push_that_honest_sites_could_make_moves_the_model_by_no_more_than_is_usual_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None, push: str
) -> None:
    out, watcher, (lie, kind) = tmp_path / "run", Recorder(), UNUSUAL[push]
    pushing(monkeypatch, lambda: RunFolder.open(out).plan(), lie, {2, 3})
    summary = simulate(tiny("training.rounds=3"), out, watcher)
    assert (summary.status, summary.sums) == (COMPLETED, 3)
    first, *pushed = [record for record in watcher.records if record.kind == TRAIN]
    assert not first.shortened
    before, after = (
        load(out / f"checkpoints/round-{n:05d}.safetensors")["parameters"] for n in (2, 3)
    )  # the last two are kept
    where, _ = lie[UPDATE]
    moved = float(np.linalg.norm((after - before)[where]))
    for record in pushed:
        assert record.shortened.keys() == {kind}
        assert record.shortened[kind].seen > record.shortened[kind].became
    assert moved == pytest.approx(pushed[1].shortened[kind].became, rel=1e-3)
    notes = [note for note in watcher.notes if "shortened from" in note]
    assert len(notes) == 1  # once in a run
    assert notes[0].startswith(f"round 2: {kind} shortened from")
    assert any("2 of 3 updates were shortened" in note for note in summary.notes)
    assert "2 of 3 updates were shortened" in write_report(out).read_text()
    assert verify_path(out).ok


@pytest.mark.full
@pytest.mark.parametrize("steps", [1, 2])
def test_a_log_of_which_one_item_is_everything_is_not_refused(tmp_path: Path, steps: int) -> None:
    days = [f"2024-01-{day:02d}T10:00:00Z" for day in range(1, 9)]
    lines = [f"c{consumer},{day},purchase,item-1" for consumer in range(900) for day in days]
    (tmp_path / "log.csv").write_text("\n".join(["consumer_id,timestamp,event_type,item_id", *lines]) + "\n")
    log = (f"data.events={tmp_path / 'log.csv'}", "data.split_by=consumers")
    strong = ("privacy.epsilon=50", "privacy.sampling_rate=0.5", f"training.local_steps={steps}")
    summary = simulate(tiny(*log, *strong, "training.rounds=3"), tmp_path / "run")
    assert (summary.status, summary.sums) == (COMPLETED, 3)
    assert verify_path(tmp_path / "run").ok


# --- what is judged, without a run


def plan() -> RunPlan:
    config = tiny("data.sites=3", "model.dim=8")
    return RunPlan("run", config.public_json(), (("a", 300), ("b", 200), ("c", 100)), "{}", 5_000, 1.2, 3.0)


def honest(seed: int = 0) -> dict[str, np.ndarray]:
    """Noise as the plan has it, and counts that agree with it."""
    drawn, public = np.random.default_rng(seed), plan()
    update = sum(
        public.weight(site)
        * public.task.reach(public, site, public.parameters).noise
        * drawn.normal(size=public.parameters)
        for site in public.sites
    )
    count = 0.2 * 600
    metrics = count * np.array([1.0, 0.6, 0.3, 0.2, 0.5][: len(public.metrics)]) + 3 * drawn.normal(
        size=len(public.metrics)
    )
    return {UPDATE: np.asarray(update), METRICS: metrics}


def test_noise_alone_is_plausible_and_its_length_is_predicted_to_a_tenth() -> None:
    public = plan()
    for seed in range(50):
        sums = honest(seed)
        judged = judge(public, TRAIN, sums, public.sites, None)
        assert judged.why_not == ""
    only_noise = np.sqrt(
        sum((public.weight(s) * public.task.reach(public, s, public.parameters).noise) ** 2 for s in public.sites)
    )
    assert np.linalg.norm(sums[UPDATE]) == pytest.approx(only_noise * np.sqrt(public.parameters), rel=0.1)


@pytest.mark.parametrize(
    ("block", "where", "value", "says"),
    [
        (UPDATE, WHOLE, 2.0, "length of the update"),
        (UPDATE, 5, 50.0, "largest coordinate"),
        (UPDATE, 5, np.nan, "length of the update"),
        (METRICS, 0, 700.0, "first number of the metrics"),
        (METRICS, 0, -900.0, "first number of the metrics, below zero"),
        (METRICS, 2, 400.0, "largest number of the metrics"),
        (METRICS, 1, -400.0, "smallest number of the metrics, below zero"),
    ],
)
def test_what_is_beyond_is_told_with_what_was_seen(block, where, value, says) -> None:
    sums = honest()
    sums[block][where] += value
    assert says in judge(plan(), TRAIN, sums, plan().sites, None).why_not


def test_an_evaluation_is_judged_by_its_counts() -> None:
    sums = {METRICS: honest()[METRICS]}
    assert judge(plan(), EVALUATE, sums, plan().sites, None).why_not == ""
    sums[METRICS][2] += 500.0
    assert "largest number" in judge(plan(), EVALUATE, sums, plan().sites, None).why_not


def test_the_mean_is_judged_where_few_sites_stock_an_item() -> None:
    """Eight deviations of the noise of all sites, in a row that only the smallest one answers for, is eight times its own."""
    public, sums = plan(), honest()
    item = np.full(public.parameters, -1, dtype=np.int32)
    item[:8] = 0
    everybody, one = (
        {s: np.ones(1, dtype=np.bool_) for s in public.sites},
        dict.fromkeys(public.sites, np.zeros(1, dtype=np.bool_)),
    )
    one["c"] = np.ones(1, dtype=np.bool_)
    shared, rare = ItemCoordinates(item, everybody), ItemCoordinates(item, one)
    sums[UPDATE][:8] = 0.0
    row = "longest row of an item"
    limit = judge(public, TRAIN, sums, public.sites, shared).figures[row][1] * sum(
        map(public.weight, public.sites)
    )
    sums[UPDATE][0] = 0.95 * limit  # as a sum it would pass
    assert row not in judge(public, TRAIN, sums, public.sites, shared).why_not
    assert row in judge(public, TRAIN, sums, public.sites, rare).why_not


def item_rows() -> ItemCoordinates:
    """Two items of eight coordinates each, at every site."""
    item = np.full(plan().parameters, -1, dtype=np.int32)
    item[:16] = np.repeat([0, 1], 8)
    return ItemCoordinates(item, {site: np.ones(2, dtype=np.bool_) for site in plan().sites})


def weighted(mean: np.ndarray) -> dict[str, np.ndarray]:
    return honest() | {UPDATE: mean * sum(map(plan().weight, plan().sites))}


def test_a_row_between_what_is_usual_and_what_is_possible_is_shortened_and_nothing_else() -> None:
    public, rows = plan(), item_rows()
    limits = UpdateLimits.of(public, public.sites, rows)
    usual, possible = limits.usual.row[1], limits.possible.row[1]
    assert usual < possible
    mean = np.zeros(public.parameters)
    mean[8:16], mean[0], mean[20] = (usual + possible) / 2 / np.sqrt(8), 0.01, -0.01
    judged = judge(public, TRAIN, weighted(mean), public.sites, rows)
    assert judged.why_not == ""
    ordinary = limits.ordinary_row[1]
    assert ordinary < usual  # or a push that is loud would bring as much as the best that is not
    assert judged.shortened == {ROW: Shortened(pytest.approx((usual + possible) / 2), pytest.approx(ordinary), 1)}
    assert np.linalg.norm(judged.update[8:16]) == pytest.approx(ordinary)
    assert len(set(judged.update[8:16])) == 1  # it points where it did
    mean[8:16] = judged.update[8:16]
    assert judged.update == pytest.approx(mean)


def test_an_update_that_is_too_long_is_shortened_as_a_whole() -> None:
    public = plan()
    limits = UpdateLimits.of(public, public.sites, None)
    longest = (limits.usual.whole + limits.possible.whole) / 2
    mean = np.full(public.parameters, longest / np.sqrt(public.parameters))
    judged = judge(public, TRAIN, weighted(mean), public.sites, None)
    assert judged.why_not == ""
    assert judged.shortened == {LENGTH: Shortened(pytest.approx(longest), pytest.approx(limits.usual.whole), 1)}
    assert judged.update == pytest.approx(mean * limits.usual.whole / longest)


def test_what_is_impossible_is_not_shortened_but_refused() -> None:
    public = plan()
    mean = np.full(public.parameters, 1.01 * UpdateLimits.of(public, public.sites, None).possible.whole)
    judged = judge(public, TRAIN, weighted(mean), public.sites, None)
    assert judged.why_not
    assert (judged.shortened, len(judged.update)) == ({}, 0)


def test_a_record_in_which_nothing_was_shortened_is_signed_as_before_that_was_done() -> None:
    record = RoundRecord(1)
    assert "shortened" not in record.to_json()
    told = replace(record, shortened={ROW: Shortened(2.0, 1.0, 3)})
    assert RoundRecord.from_json(told.to_json()) == told
    assert len({record.digest, told.digest}) == 2


def test_a_site_is_judged_by_the_size_of_its_own_model() -> None:
    """Which has the rows of its mask, and row 0, the unknown item's, in any case."""
    item = np.array([-1, 0, 0, 1, 1, 2, 2], dtype=np.int32)
    masks = {"a": np.array([False, True, False]), "b": np.array([True, True, True])}
    rows = ItemCoordinates(item, masks)
    assert (rows.coordinates_of("a"), rows.coordinates_of("b")) == (5, 7)
    assert ItemCoordinates(item).coordinates_of("a") == 7
