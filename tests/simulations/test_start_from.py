"""A run that begins from an earlier model begins with what that cost the same consumers."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from common.audit.history import accounts_in, make_history
from common.audit.records import find_records
from common.audit.statement import make_statement
from common.audit.verify import verify_path
from common.errors import BadInputError
from common.privacy.accountant import PldAccountant
from common.privacy.entries import Charge, parse_line
from common.privacy.mechanism import SUB_SCOPES, TRAIN_SIDE, Losses
from common.run.files import RunFolder
from simulations.carried import LOG_DIGEST, carried_from
from simulations.prepare import deal_data
from simulations.run import simulate
from tests.tiny_federation import Recorder, tiny

EPSILON = ("privacy.epsilon=3", "training.rounds=1")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    assert simulate(tiny(*EPSILON), out).status == "completed"
    return out


def test_every_figure_of_the_second_run_counts_the_first_one(first: Path, tmp_path: Path) -> None:
    watcher, out = Recorder(), tmp_path / "second"
    assert simulate(tiny(*EPSILON, f"start_from={first}"), out, watcher).status == "completed"
    plan = RunFolder.open(out).plan()
    facts = RunFolder.open(out).facts()
    assert facts.epsilon_target >= max(watcher.records[-1].epsilon.values()) - 1e-3
    assert f"stops before epsilon {facts.epsilon_target:g}" in facts.budget
    assert "spent before this run" in facts.budget
    both = Losses.of([*RunFolder.open(first).plan().total_events(), *plan.total_events()])
    truth = PldAccountant(both).epsilon(1e-5)
    assert truth > 4  # each alone costs 3
    assert all(epsilon >= truth - 1e-6 for epsilon in watcher.records[-1].epsilon.values())
    assert min(watcher.records[0].epsilon.values()) > 3
    assert verify_path(out, every_round=True).ok
    together = make_history([account for run in (first, out) for account in accounts_in(find_records(run))])
    assert [len(total.accounts) for total in together.scopes] == [1] * len(plan.sites), (
        "the second holds the first"
    )
    assert together.epsilon == pytest.approx(max(watcher.records[-1].epsilon.values()), abs=2e-6)
    body = parse_line(RunFolder.open(out).ledger(plan.sites[0]).read_bytes().splitlines()[1]).body
    assert isinstance(body, Charge) and body.reason.startswith("run ")


@pytest.mark.full
def test_a_third_run_counts_both(first: Path, tmp_path: Path) -> None:
    second, third, watcher = tmp_path / "second", tmp_path / "third", Recorder()
    simulate(tiny(*EPSILON, f"start_from={first}"), second)
    simulate(tiny(*EPSILON, f"start_from={second}"), third, watcher)
    steps = 3 * RunFolder.open(first).plan().total_events()[0].steps
    spent = PldAccountant([dataclasses.replace(RunFolder.open(third).plan().total_events()[0], steps=steps)])
    assert min(watcher.records[-1].epsilon.values()) >= spent.epsilon(1e-5) - 1e-6


def test_where_the_hold_out_is_drawn_anew_everything_old_counts_on_every_side(first: Path) -> None:
    config = tiny(*EPSILON, f"start_from={first}", "privacy.holdout=0.3")
    carried = carried_from(config, RunFolder.open(first).plan())
    assert carried and all(every_side(owed.losses) for owed in carried.values())


def every_side(losses: Losses) -> bool:
    """Whether every step counts for every consumer."""
    sides = [
        {dataclasses.replace(e, sub_scope=TRAIN_SIDE) for e in losses if e.sub_scope == side}
        for side in SUB_SCOPES
    ]
    return sides[0] == sides[1] == sides[2] != set()


def test_where_the_sites_are_others_each_is_charged_the_largest_of_everything(first: Path) -> None:
    plan = RunFolder.open(first).plan()
    other = dataclasses.replace(plan, populations=(("somewhere", 128), ("else", 128), ("here", 128)))
    carried = carried_from(tiny(*EPSILON, f"start_from={first}"), other)
    assert set(carried) == {"somewhere", "else", "here"}
    assert all(every_side(owed.losses) for owed in carried.values())


@pytest.mark.parametrize("dealt", ["data.min_population=2", "data.split_by=consumers", "data.small_sites=drop"])
def test_the_same_synthetic_people_dealt_otherwise_are_the_same_people(first: Path, dealt: str) -> None:
    """Shown was 3.00; true for who is dealt to the sites in another way: what both runs cost."""
    carried = carried_from(tiny(*EPSILON, f"start_from={first}", dealt), RunFolder.open(first).plan())
    assert carried and all(every_side(owed.losses) for owed in carried.values())


def test_what_was_not_private_has_no_bound_to_add(tmp_path: Path) -> None:
    """Shown was 3.00; true: infinite."""
    out = tmp_path / "open"
    simulate(tiny("privacy.enabled=false", "training.rounds=1"), out)
    with pytest.raises(BadInputError, match="no bound"):
        simulate(tiny(*EPSILON, f"start_from={out}"), tmp_path / "second")
    assert carried_from(tiny(*EPSILON, f"start_from={out}", "seed=9"), RunFolder.open(out).plan()) == {}


def test_the_best_model_of_a_run_costs_what_the_run_cost(first: Path) -> None:
    """Shown was 3.00: a model within a run folder has its ledgers beside its folder."""
    plan = RunFolder.open(first).plan()
    carried = carried_from(tiny(*EPSILON, f"start_from={first / 'best'}"), plan)
    assert carried == carried_from(tiny(*EPSILON, f"start_from={first}"), plan) != {}


def test_a_run_whose_ledgers_are_gone_is_not_a_run_that_cost_nothing(first: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    shutil.rmtree(copy / "ledgers")
    with pytest.raises(BadInputError, match="are gone"):
        carried_from(tiny(*EPSILON, f"start_from={copy}"), RunFolder.open(first).plan())


@pytest.mark.parametrize(
    ("before", "now", "alike"),
    [
        (("data.split_by=country",), ("data.split_by=country",), True),
        (("data.split_by=country",), ("data.split_by=store",), False),
        (("data.split_by=country",), ("data.split_by=country", "data.min_population=7"), False),
        (("data.split_by=consumers",), ("data.split_by=consumers",), False),
        ((), (), False),
    ],
)
def test_only_a_named_column_deals_the_people_of_two_logs_alike(
    first: Path, before: tuple[str, ...], now: tuple[str, ...], alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that is dealt at random is dealt otherwise next month: a consumer may have been at any site."""
    earlier = tiny(*EPSILON, "data.events=january.csv", *before)
    monkeypatch.setattr(RunFolder, "settings", lambda _self: earlier)
    carried = carried_from(
        tiny(*EPSILON, f"start_from={first}", "data.events=february.csv", *now), RunFolder.open(first).plan()
    )
    assert carried and all(every_side(owed.losses) is not alike for owed in carried.values())


def test_synthetic_people_of_another_seed_are_other_people(first: Path) -> None:
    plan = RunFolder.open(first).plan()
    assert carried_from(tiny(*EPSILON, f"start_from={first}", "seed=9"), plan) == {}
    assert carried_from(tiny(*EPSILON, "privacy.enabled=false", f"start_from={first}"), plan) == {}
    assert make_statement([], secure=True, private=False).private is False


def model_alone(run: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in run.glob("model.*"):
        shutil.copy(path, folder)
    return folder


def test_a_copied_model_costs_all_that_its_plan_may_have_cost_anybody(first: Path, tmp_path: Path) -> None:
    """Shown was 3.00: a model without its ledgers does not say who its consumers were, so they may be these."""
    copy, out, watcher = model_alone(first, tmp_path / "copy"), tmp_path / "second", Recorder()
    simulate(tiny(*EPSILON, f"start_from={copy}"), out, watcher)
    plan = RunFolder.open(first).plan()
    both = Losses.of([*plan.total_events(), *RunFolder.open(out).plan().total_events()])
    assert min(watcher.records[-1].epsilon.values()) >= PldAccountant(both).epsilon(1e-5) - 1e-6 > 4
    assert verify_path(out).ok
    third = carried_from(tiny(*EPSILON, f"start_from={model_alone(out, tmp_path / 'again')}"), plan)
    assert all(owed.losses.covers(both) for owed in third.values())  # its header says what came before it


def test_a_model_of_other_people_costs_nothing_if_that_is_said(first: Path, tmp_path: Path) -> None:
    plan, copy = RunFolder.open(first).plan(), model_alone(first, tmp_path / "copy")
    assert carried_from(tiny(*EPSILON, f"start_from={copy}", "start_from_others=true"), plan) == {}
    with pytest.raises(BadInputError, match="are those of the earlier run"):
        carried_from(tiny(*EPSILON, f"start_from={first}", "start_from_others=true"), plan)


def test_a_copied_model_that_was_not_private_or_says_nothing_has_no_bound(tmp_path: Path, first: Path) -> None:
    plan = RunFolder.open(first).plan()
    simulate(tiny("privacy.enabled=false", "training.rounds=1"), tmp_path / "open")
    copy = model_alone(tmp_path / "open", tmp_path / "copy")
    with pytest.raises(BadInputError, match="no bound"):
        carried_from(tiny(*EPSILON, f"start_from={copy}"), plan)
    (copy / "model.json").write_text('{"metadata": {}}')
    with pytest.raises(BadInputError, match="does not say what it cost"):
        carried_from(tiny(*EPSILON, f"start_from={copy}"), plan)


@pytest.mark.parametrize("before", ["data.source=shop.toml", "data.events=january.csv"])
def test_the_people_of_a_database_are_the_same_under_another_seed(
    first: Path, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown was 3.00: a log was known by its file name only."""
    earlier = tiny(*EPSILON, before)
    monkeypatch.setattr(RunFolder, "settings", lambda _self: earlier)
    now = tiny(*EPSILON, f"start_from={first}", "data.source=shop.toml", "seed=9")
    carried = carried_from(now, RunFolder.open(first).plan(), "digest")
    assert carried and all(every_side(owed.losses) for owed in carried.values())


@pytest.mark.parametrize(("digest", "alike"), [("as before", True), ("one consumer more", False), ("", False)])
def test_a_log_that_has_grown_is_dealt_otherwise_under_the_same_name(
    first: Path, digest: str, alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = tiny(*EPSILON, "data.events=log.csv", "data.split_by=consumers")
    monkeypatch.setattr(RunFolder, "settings", lambda _self: earlier)
    facts = dataclasses.replace(RunFolder.open(first).facts(), data={LOG_DIGEST: "as before"})
    monkeypatch.setattr(RunFolder, "facts", lambda _self: facts)
    now = tiny(*EPSILON, f"start_from={first}", "data.events=log.csv", "data.split_by=consumers")
    carried = carried_from(now, RunFolder.open(first).plan(), digest)
    assert carried and all(every_side(owed.losses) is not alike for owed in carried.values())


def test_consumers_that_are_read_from_another_column_may_be_on_any_side(
    first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ("data.events=log.csv", "data.split_by=country")
    monkeypatch.setattr(RunFolder, "settings", lambda _self: tiny(*EPSILON, *named, 'data.map=["consumer=card"]'))
    now = tiny(*EPSILON, *named, f"start_from={first}", 'data.map=["consumer=household"]')
    carried = carried_from(now, RunFolder.open(first).plan())
    assert carried and all(every_side(owed.losses) for owed in carried.values())


def test_the_digest_of_a_log_follows_its_events(tmp_path: Path) -> None:
    lines = [f"c{i % 60},2024-05-{1 + i % 27:02d},view,i{i % 25},a{i % 2}" for i in range(600)]
    log = tmp_path / "log.csv"
    digests = []
    for more in ([], [], ["zz,2024-05-05,view,i3,a1"]):
        log.write_text("\n".join(["consumer,timestamp,event,item,site", *lines, *more]))
        world = deal_data(tiny(f"data.events={log}", "data.split_by=consumers"))
        digests.append(world.data[LOG_DIGEST])
    assert digests[0] == digests[1] != digests[2]
