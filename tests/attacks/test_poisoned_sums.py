"""One site sends what no honest site can make: the sum is refused, the model stays, and after two such rounds the run stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import client.session as session
import common.secagg.client as secagg_client
import simulations.engines as engines
from common.audit.verify import verify_path
from common.contribution import EVALUATE, METRICS, TRAIN, UPDATE
from common.run import COMPLETED, FAILED, IMPLAUSIBLE, RunFolder, RunPlan
from common.secagg.fixedpoint import slices
from server.cohort import ItemCoordinates
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
