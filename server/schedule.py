"""A schedule: one run a period, each from the last one's model. Where it stands is read from the run folders alone.

A period's run is called by its first day, so that a program that was killed, or a second one, finds it again. A period
whose time went by without a run is missed: it is named, and its budget stays unspent; nobody runs it later in silence.
"""

from __future__ import annotations

import json
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

from common.deployment import CoordinatorKit
from common.errors import ConfigError
from common.run import COMPLETED, FAILED, STOPPED, RunConfig, RunFolder, ScheduleSettings, Summary, run_is_held

DAYS = {"day": 1, "week": 7}
MONTHS = {"month": 1, "quarter": 3, "year": 12}

OVER = (COMPLETED, STOPPED, FAILED)  # however it ended: it is not done again, the sites have paid for it
UNDER_WAY, UNFINISHED, DUE, MISSED, LATER = "under way", "unfinished", "due", "missed", "later"
PENDING = (UNDER_WAY, UNFINISHED, DUE, LATER)


@dataclass(frozen=True)
class Period:
    """One period: from its ``first`` day to the day before ``until``, UTC."""

    number: int
    first: date
    until: date


@dataclass(frozen=True)
class Turn:
    """A period and what became of it. ``state``: how its run ended, or a word of this module; ``folder``: its run."""

    period: Period
    state: str
    folder: RunFolder | None = None

    @property
    def is_left(self) -> bool:
        """Whether its run may still be asked of the sites by this schedule."""
        return self.state in PENDING

    @property
    def spent(self) -> float | None:
        """Epsilon at the worst site after its run, None without one."""
        summary = self.folder.summary() if self.folder else None
        return max(summary.epsilon.values(), default=None) if summary else None


def periods_of(schedule: ScheduleSettings) -> list[Period]:
    """All periods, the first one first. Raises: ConfigError if the settings have none."""
    if not schedule.periods:
        raise ConfigError(
            "the settings have no schedule",
            hint='[schedule] every = "month", periods = 12, begins = 2026-01-01',
        )
    days = [_first_day(schedule, index) for index in range(schedule.periods + 1)]
    return [Period(number, first, until) for number, (first, until) in enumerate(pairwise(days), start=1)]


def _first_day(schedule: ScheduleSettings, index: int) -> date:
    """Of the period with this index. A 31st becomes the last day of shorter months, and comes back in longer ones."""
    begins = date.fromisoformat(schedule.begins)
    if schedule.every in DAYS:
        return begins + timedelta(days=index * DAYS[schedule.every])
    year, month = divmod(begins.year * 12 + begins.month - 1 + index * MONTHS[schedule.every], 12)
    return date(year, month + 1, min(begins.day, monthrange(year, month + 1)[1]))


def run_name(config: RunConfig, period: Period) -> str:
    """What the run of a period is called."""
    return f"{config.name}-{period.first.isoformat()}"


def standing(kit: CoordinatorKit, config: RunConfig, today: date) -> list[Turn]:
    """What became of every period so far, from the run folders. Raises: ConfigError, BadInputError (damaged folder)."""
    made = {}
    for folder in RunFolder.all_in(kit.runs):
        settings = folder.settings()
        if settings.schedule.period:
            made[settings.name] = folder
    return [_turn(period, made.get(run_name(config, period)), today) for period in periods_of(config.schedule)]


def _turn(period: Period, folder: RunFolder | None, today: date) -> Turn:
    current = period.first <= today < period.until
    if folder is None:
        return Turn(period, DUE if current else LATER if today < period.first else MISSED)
    summary = folder.summary() or Summary(UNFINISHED)
    if run_is_held(folder) and not summary.completed:  # one that has its model may still be handing it out
        return Turn(period, UNDER_WAY, folder)
    if summary.status in OVER:
        return Turn(period, summary.status, folder)
    return Turn(period, UNFINISHED if current else f"{MISSED}, {UNFINISHED}", folder)


def turn_to_take(turns: Sequence[Turn]) -> Turn | None:
    """Where there is something to do now: a run that is under way, or the one of today. None: nothing is due."""
    for state in (UNDER_WAY, UNFINISHED, DUE):
        for turn in turns:
            if turn.state == state:
                return turn
    return None


def next_day(turns: Sequence[Turn]) -> date | None:
    """First day of the next period that is not here yet; None: the schedule is over."""
    return min((turn.period.first for turn in turns if turn.state == LATER), default=None)


def last_model(turns: Sequence[Turn]) -> RunFolder | None:
    """The newest run of the schedule that left a model made of at least one sum."""
    for turn in reversed(turns):
        summary = turn.folder.summary() if turn.folder else None
        if turn.folder and summary and summary.status in (COMPLETED, STOPPED) and summary.sums:
            return turn.folder
    return None


def settings_of_turn(
    kit: CoordinatorKit, file: Path, overrides: Sequence[str], turn: Turn, turns: Sequence[Turn]
) -> RunConfig:
    """The settings of a period's run: the schedule's, under the period's name, from the last model if there is one.

    A task whose runs begin anew (sales: the released series is the whole model's input) has no model to begin from.
    Raises: ConfigError.
    """
    from common.tasks import task_named
    from server.planning import deployed_settings

    config = deployed_settings(kit, file, overrides)
    own: dict[str, str | int] = {"name": run_name(config, turn.period), "schedule.period": turn.period.number}
    earlier = last_model(turns)
    if earlier is not None and task_named(config.task).goes_on:
        own["start_from"] = str(earlier.path.resolve())
    values = {key: json.dumps(value, ensure_ascii=False, allow_nan=False) for key, value in own.items()}
    return deployed_settings(kit, file, [*overrides, *(f"{key}={value}" for key, value in values.items())])
