"""A schedule over months: what is due, what was missed, from which model a run begins, and who can pay to the end."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

import cli.attend
import cli.schedule
import server.runtime.control
import server.schedule
from cli.main import main
from client.runtime.approval import ApprovalPendingError
from client.site import load_site
from common.errors import ConfigError
from common.run import RunConfig, RunPlan, ScheduleSettings
from common.run.files import RunFolder
from common.run.records import COMPLETED, FAILED, INTERRUPTED, STOPPED, Summary
from common.supervisor import only_one
from common.trust.identity import Identity, Roster
from server.affordable import epsilon_of_runs, horizon
from server.planning import deployed_settings, plan_of_run
from server.result import write_model
from server.schedule import (
    DUE,
    LATER,
    MISSED,
    UNDER_WAY,
    UNFINISHED,
    last_model,
    next_day,
    periods_of,
    settings_of_turn,
    standing,
    turn_to_take,
)
from server.state import latest_checkpoint
from tests.attacks.test_budget_over_time import SETTINGS, federation, proposed, spend

__all__ = ["federation"]  # a fixture

JANUARY = date(2026, 1, 1)


def days(every: str, begins: str, periods: int) -> list[str]:
    made = periods_of(ScheduleSettings.model_validate({"every": every, "periods": periods, "begins": begins}))
    assert [period.number for period in made] == list(range(1, periods + 1))
    assert all(a.until == b.first for a, b in pairwise(made))
    return [period.first.isoformat() for period in made]


def test_periods_follow_the_calendar() -> None:
    assert days("day", "2026-02-27", 3) == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert days("week", "2026-12-28", 2) == ["2026-12-28", "2027-01-04"]
    assert days("month", "2026-11-15", 3) == ["2026-11-15", "2026-12-15", "2027-01-15"]
    assert days("quarter", "2026-10-01", 2) == ["2026-10-01", "2027-01-01"]
    assert days("year", "2028-02-29", 2) == ["2028-02-29", "2029-02-28"]


def test_a_31st_is_the_last_day_of_shorter_months_and_comes_back() -> None:
    assert days("month", "2026-01-31", 4) == ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]


@pytest.mark.parametrize(
    ("tree", "what"),
    [
        ({"periods": 2}, "first day"),
        ({"periods": 2, "begins": "soon"}, "begins"),
        ({"periods": 2, "begins": "9999-12-01"}, "out of reach"),
        ({"periods": 2, "begins": "2026-01-01", "period": 3}, "beyond"),
        ({"periods": 2, "begins": "2026-01-01", "every": "moon"}, "month"),
    ],
)
def test_a_schedule_that_says_nothing_clear_is_refused(tree: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ScheduleSettings.model_validate(tree)


def test_settings_without_a_schedule_are_no_schedule() -> None:
    with pytest.raises(ConfigError, match="no schedule"):
        periods_of(RunConfig().schedule)


@dataclass
class Months:
    """A federation whose runs take no time: what a real one leaves is written, the ledgers and the models are real."""

    kit: Any
    sites: list[Any]
    file: Path
    day: date = JANUARY
    begun: list[tuple[str, bool]] = field(default_factory=list)
    ends: str = COMPLETED
    sums: int = 1

    def __call__(self, kit: Any, folder: RunFolder, manner: Any, *, again: bool = False) -> int:
        """In place of ``cli.attend.submit_and_follow``."""
        self.begun.append((folder.path.name, again))
        if self.ends == INTERRUPTED:
            folder.write_summary(Summary(INTERRUPTED, error="no", exit_code=1))
            return 1
        plan = folder.plan()
        for site in self.sites:
            spend(site, kit, plan)
        roster = Roster.load(kit.roster)
        coordinator = Identity.load(roster.coordinator.name, kit.identity_key)
        trained = np.full(plan.parameters, len(self.begun) / 100, dtype=np.float32)
        write_model(folder.path, plan, trained, {"rounds": 1}, coordinator)
        folder.write_summary(Summary(self.ends, rounds=1, sums=self.sums, epsilon={"north": 1.5}))
        return 0 if self.ends == COMPLETED else 3

    def schedule(self, *words: str) -> int:
        try:
            return main(["server", "schedule", str(self.kit.path), str(self.file), *words])
        except SystemExit as end:
            return int(end.code or 0)

    def runs(self) -> list[RunFolder]:
        return RunFolder.all_in(self.kit.runs)

    def turns(self, day: date) -> Any:
        return standing(self.kit, deployed_settings(self.kit, self.file), day)


@pytest.fixture
def months(federation: Any, monkeypatch: pytest.MonkeyPatch) -> Months:
    kit, sites, file = federation
    tree = {**SETTINGS, "name": "shop", "privacy": {"epsilon": 1.0, "holdout": 0.2}}
    file.write_text(tomli_w.dumps({**tree, "schedule": {"every": "month", "periods": 4, "begins": JANUARY}}))
    made = Months(kit, sites, file)
    monkeypatch.setattr(cli.attend, "submit_and_follow", made)
    monkeypatch.setattr(server.runtime.control, "must_be_up", lambda _: None)
    monkeypatch.setattr(cli.schedule, "today", lambda: made.day)
    return made


def first_parameters(folder: RunFolder) -> Any:
    return latest_checkpoint(folder.checkpoints).parameters


def test_each_period_begins_from_the_model_of_the_one_before_and_is_named_by_its_first_day(months: Months) -> None:
    assert months.schedule("--once") == 0
    months.day = date(2026, 2, 11)
    assert months.schedule("--once") == 0
    first, second = months.runs()
    assert [run.settings().name for run in (first, second)] == ["shop-2026-01-01", "shop-2026-02-01"]
    assert [run.settings().schedule.period for run in (first, second)] == [1, 2]
    assert second.settings().start_from == str(first.path.resolve())
    assert not first.settings().start_from
    assert np.all(first_parameters(second) == np.float32(0.01))
    assert "schedule" in json.loads(second.plan().settings), "sites see which of how many runs they are asked for"


def test_a_period_is_run_once_however_often_the_program_is_started(
    months: Months, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in (date(2026, 1, 1), date(2026, 1, 31)):
        months.day = day
        assert months.schedule("--once") == 0
    assert len(months.begun) == 1
    assert "nothing is due before 2026-02-01" in capsys.readouterr().err


@pytest.mark.parametrize(("ends", "sums"), [(STOPPED, 1), (STOPPED, 0), (FAILED, 0)])
def test_a_run_that_ended_badly_is_not_charged_to_anybody_again(months: Months, ends: str, sums: int) -> None:
    months.ends, months.sums = ends, sums
    assert months.schedule("--once") == 3
    assert months.schedule("--once") == 0
    assert len(months.begun) == 1
    assert (last_model(months.turns(date(2026, 2, 1))) is None) == (not sums), "a model is made of sums"


def test_a_run_that_was_cut_off_is_gone_on_with_while_its_period_lasts_and_then_named(
    months: Months, capsys: pytest.CaptureFixture[str]
) -> None:
    months.ends = INTERRUPTED
    assert months.schedule("--once") == 1
    months.day = date(2026, 1, 20)
    assert months.schedule("--once") == 1
    name = months.runs()[0].path.name
    assert months.begun == [(name, False), (name, True)]
    months.day, months.ends = date(2026, 2, 1), COMPLETED
    capsys.readouterr()
    assert months.schedule("--once") == 0
    said = capsys.readouterr().err
    assert f"period 2026-01-01 was missed; it is not made up for; fedcart server resume KIT {name}" in said
    assert months.begun[-1][0].startswith("shop-2026-02-01")
    assert not months.runs()[-1].settings().start_from, "an unfinished run has no model to begin from"


def test_a_missed_period_is_named_and_not_made_up_for(months: Months, capsys: pytest.CaptureFixture[str]) -> None:
    months.schedule("--once")
    months.day = date(2026, 3, 2)
    capsys.readouterr()
    assert months.schedule("--once") == 0
    assert "warning: period 2026-02-01 was missed" in capsys.readouterr().err
    assert [name[:15] for name, _ in months.begun] == ["shop-2026-01-01", "shop-2026-03-01"]
    assert Path(months.runs()[1].settings().start_from).name == months.begun[0][0]


def test_the_states_of_a_schedule_follow_from_day_and_folders(months: Months) -> None:
    assert [turn.state for turn in months.turns(date(2025, 12, 31))] == [LATER] * 4
    assert next_day(months.turns(date(2025, 12, 31))) == JANUARY
    assert [turn.state for turn in months.turns(date(2026, 2, 28))] == [MISSED, DUE, LATER, LATER]
    assert [turn.state for turn in months.turns(date(2026, 5, 1))] == [MISSED] * 4
    assert next_day(months.turns(date(2026, 5, 1))) is None
    assert turn_to_take(months.turns(date(2026, 5, 1))) is None
    months.ends = INTERRUPTED
    months.schedule("--once")
    assert months.turns(date(2026, 1, 2))[0].state == UNFINISHED
    assert months.turns(date(2026, 2, 2))[0].state == f"{MISSED}, {UNFINISHED}"


@pytest.mark.parametrize(
    ("ends", "state"), [(COMPLETED, COMPLETED), (STOPPED, UNDER_WAY), (INTERRUPTED, UNDER_WAY)]
)
def test_a_run_that_still_hands_out_its_model_is_completed_and_one_that_goes_on_is_not(
    months: Months, monkeypatch: pytest.MonkeyPatch, ends: str, state: str
) -> None:
    months.ends = ends
    months.schedule("--once")
    monkeypatch.setattr(server.schedule, "run_is_held", lambda _: True)
    assert months.turns(JANUARY)[0].state == state


def test_left_alone_it_waits_for_every_period_and_ends_with_the_last(
    months: Months, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def a_week(_: float) -> None:
        months.day += timedelta(days=7)

    monkeypatch.setattr(cli.schedule.time, "sleep", a_week)
    months.day = date(2025, 12, 20)
    assert months.schedule() == 0
    assert [name[:15] for name, _ in months.begun] == [f"shop-2026-0{month}-01" for month in (1, 2, 3, 4)]
    assert "the schedule is over" in capsys.readouterr().err


def test_what_the_sites_cannot_pay_to_the_end_is_refused_before_anybody_is_asked(
    months: Months, capsys: pytest.CaptureFixture[str]
) -> None:
    months.schedule("--once")
    months.day = date(2026, 2, 1)
    capsys.readouterr()
    assert months.schedule("--once", "--set", "privacy.epsilon=5") == 3
    said = capsys.readouterr().err
    can = int(re.search(r"can pay for (\d) of the 3 runs that are left", said)[1])  # type: ignore[index]
    assert 0 < can < 3
    fits = re.search(
        rf"hint: schedule.periods = {1 + can}, or privacy.epsilon = ([\d.]+), which all can pay", said
    )
    assert fits
    assert len(months.begun) == 1
    turns = months.turns(date(2026, 2, 1))
    assert sum(turn.is_left for turn in turns) == 3
    cheap = deployed_settings(months.kit, months.file, [f"privacy.epsilon={fits[1]}"])
    assert not horizon(months.kit, plan_of_run(months.kit, cheap, base=months.file.parent), 3)[-1].cannot
    assert months.schedule("--once", "--set", "privacy.epsilon=5", "--set", f"schedule.periods={1 + can}") == 0


def test_sites_that_never_attested_are_taken_at_the_usual_limit_with_a_warning(
    months: Months, capsys: pytest.CaptureFixture[str]
) -> None:
    assert months.schedule("--once", "--set", "privacy.epsilon=5") == 0
    said = capsys.readouterr()
    assert (
        "north, south, east attested no limit yet; at the usual one of 8 there is budget for 2 of these 4"
        in said.err
    )
    assert "north?, south?, east?" in said.out


def test_the_statement_adds_up_what_a_consumer_of_every_period_loses(
    months: Months, capsys: pytest.CaptureFixture[str]
) -> None:
    months.schedule("--once")
    months.day = date(2026, 2, 1)
    capsys.readouterr()
    months.schedule("--once", "--json")
    plain = json.loads(capsys.readouterr().out)
    rows = plain["periods"]
    assert [row["state"] for row in rows] == [COMPLETED, COMPLETED, LATER, LATER]
    assert rows[2]["epsilon"] < rows[3]["epsilon"] <= 8
    assert plain["last_run"]["status"] == COMPLETED
    assert (plain["schedule"]["every"], plain["epsilon_of_a_run"]) == ("month", 1.0)
    third = dataclasses.replace(months.runs()[-1].plan(), run="shop-2026-03-01")
    for site in months.sites:  # what was promised for the third period is what it comes to
        spend(site, months.kit, third)

    assert load_site(months.sites[0].path).guard().status().epsilon == pytest.approx(rows[2]["epsilon"], abs=1e-5)


def test_a_kit_has_one_schedule_at_a_time(months: Months, capsys: pytest.CaptureFixture[str]) -> None:
    with only_one(months.kit, "schedule", months.kit.state / "schedule.pid"):
        assert months.schedule("--once") == 2
    assert "this schedule is already running as process" in capsys.readouterr().err
    assert not months.begun


def test_a_task_whose_runs_begin_anew_has_no_model_to_begin_from(months: Months) -> None:
    months.schedule("--once")
    turns = months.turns(date(2026, 2, 1))
    tree = {"task": "sales", "sales": {"start": JANUARY, "periods": 90, "categories": ["a"]}}
    months.file.write_text(tomli_w.dumps({**tree, "name": "shop"}))
    schedule = ["schedule.periods=4", 'schedule.begins="2026-01-01"']
    made = settings_of_turn(months.kit, months.file, schedule, turns[1], turns)
    assert (made.name, made.start_from, made.schedule.period) == ("shop-2026-02-01", "", 2)


def test_an_operator_sees_what_all_runs_of_a_schedule_would_come_to(
    months: Months, capsys: pytest.CaptureFixture[str]
) -> None:
    months.ends = INTERRUPTED
    months.schedule("--once", "--set", "privacy.epsilon=5")
    plan: RunPlan = months.runs()[0].plan()
    with pytest.raises(ApprovalPendingError):
        proposed(months.sites[0], months.kit, plan)
    capsys.readouterr()
    assert main(["site", "approve", str(months.sites[0].path)]) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("schedule"))
    assert "run 1 of 4, one a month from 2026-01-01, says the coordinator" in line
    assert "WARNING       the whole schedule does not fit" in said
    shown = float(re.search(r"left ([\d.]+) of 8 spent", line)[1])  # type: ignore[index]
    assert shown == pytest.approx(epsilon_of_runs(plan, 4), abs=1e-3)
