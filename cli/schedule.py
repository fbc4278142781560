"""``fedcart server schedule``: one run a period, from the last one's model, with one statement over all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cli.show as show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.deployment import CoordinatorKit
    from common.run import RunConfig
    from server.affordable import AfterRuns
    from server.schedule import Turn

LOOK_S = 30.0  # between two looks at the calendar; a clock that was set is noticed as soon


def schedule(
    kit: Annotated[Path, typer.Argument(help="folder of the coordinator's kit", metavar="KIT")],
    settings: Annotated[
        Path, typer.Argument(help="settings of the runs, with a [schedule] section", metavar="RUN.toml")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="any setting, for example schedule.periods=6", metavar="KEY=VALUE"),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="do what is due now and end, for cron; else wait for every period")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")] = False,
) -> None:
    """Run once a period, each time from the last model, if the sites can pay for all that is left of the schedule.

    Ends when the last period is over, or with the exit code of a run that did not complete. Started again, it goes on where
    it stood; a period that went by without a run is named and not made up for.
    """
    from common.deployment import open_coordinator_kit
    from common.supervisor import only_one
    from server.planning import deployed_settings
    from server.runtime.control import must_be_up
    from server.schedule import periods_of

    opened = open_coordinator_kit(kit)
    scheduled = Scheduled(
        opened, settings, tuple(set_ or []), deployed_settings(opened, settings, set_ or []), json
    )
    periods_of(scheduled.config.schedule)
    must_be_up(opened)
    with only_one(opened, "schedule", opened.state / "schedule.pid"), _told(scheduled):
        raise typer.Exit(_keep(scheduled, once=once))


@dataclass(frozen=True)
class Scheduled:
    """What the command was given: where, and the settings of its runs."""

    kit: CoordinatorKit
    file: Path
    overrides: tuple[str, ...]
    config: RunConfig
    as_json: bool

    @property
    def base(self) -> Path:
        """What paths in the settings are relative to."""
        return self.file.resolve().parent

    def turns(self) -> list[Turn]:
        """Where every period stands today."""
        from server.schedule import standing

        return standing(self.kit, self.config, today())


def today() -> date:
    """The day in UTC, which every site has at the same time."""
    return datetime.now(UTC).date()


def _keep(scheduled: Scheduled, *, once: bool) -> int:
    """Take what is due, wait for the next period, until the last one is over; return the exit code."""
    from server.schedule import next_day, turn_to_take

    while True:
        turns = scheduled.turns()
        _show(scheduled, turns)
        turn = turn_to_take(turns)
        if turn is not None:
            code = _take(scheduled, turn, turns)
            if once or code:
                return code
        elif (following := next_day(turns)) is None:
            show.note("the schedule is over")
            return 0
        else:
            show.note(f"nothing is due before {following.isoformat()}")
            if once:
                return 0
            while today() < following:
                time.sleep(LOOK_S)


def _take(scheduled: Scheduled, turn: Turn, turns: Sequence[Turn]) -> int:
    """Attend to a run that is under way, go on with one that was interrupted, or begin the one that is due."""
    from cli.attend import Manner, attach, is_under_way, submit_and_follow
    from server.runtime.control import must_be_up

    must_be_up(scheduled.kit)
    manner = Manner(aside=scheduled.as_json)
    if turn.folder is None:
        return _begin(scheduled, turn, turns, manner)
    if is_under_way(turn.folder):
        return attach(scheduled.kit, turn.folder, manner)
    show.note(f"going on with {turn.folder.path.name}")
    return submit_and_follow(scheduled.kit, turn.folder, manner, again=True)


def _begin(scheduled: Scheduled, turn: Turn, turns: Sequence[Turn], manner: Any) -> int:
    from cli.attend import submit_and_follow
    from server.planning import prepare_run, remark_on_stock
    from server.schedule import settings_of_turn

    _require_carried(scheduled, turns)
    config = settings_of_turn(scheduled.kit, scheduled.file, scheduled.overrides, turn, turns)
    if said := remark_on_stock(scheduled.kit, config, base=scheduled.base):
        show.note(said)
    folder = prepare_run(scheduled.kit, config, base=scheduled.base)
    begins = f"from the model of {Path(config.start_from).name}" if config.start_from else "from a new model"
    show.note(
        f"period {turn.period.number} of {config.schedule.periods}: run {folder.path.name}, known to the sites as "
        f"{folder.plan().run}, {begins}; folder {folder.path}"
    )
    return submit_and_follow(scheduled.kit, folder, manner)


def _require_carried(scheduled: Scheduled, turns: Sequence[Turn]) -> None:
    """Return if enough sites can pay for all that is left. Raises: RefusedError. Says who cannot, and who may not."""
    from server.affordable import USUAL_LIMIT, largest_that_fits, require_carried
    from server.planning import needed_sites

    config, after = scheduled.config, _after(scheduled, turns)

    def hint(carried: int) -> str:
        fits = largest_that_fits(scheduled.kit, config, base=scheduled.base, runs=len(after))
        shorter = f"schedule.periods = {len(turns) - len(after) + carried}, or " if carried else ""
        return (
            f"{shorter}{f'privacy.epsilon = {fits}, which all can pay' if fits else 'a smaller privacy.epsilon'}"
        )

    require_carried(after, len(scheduled.kit.read().sites), needed_sites(config), hint)
    for site in dict.fromkeys(site for one in after for site in one.cannot):
        first = next(one.number for one in after if site in one.cannot)
        show.warning(
            f"site {site} can pay for {first - 1} of the {len(after)} runs that are left and will refuse then"
        )
    doubtful = [one for one in after if one.unsure]
    if doubtful:
        show.warning(
            f"{', '.join(doubtful[-1].unsure)} attested no limit yet; at the usual one of {show.exact(USUAL_LIMIT)} there is budget for "
            f"{doubtful[0].number - 1} of these {len(after)} runs. After the first run their limits are known, and what "
            "cannot be paid to the end is refused"
        )


def _after(scheduled: Scheduled, turns: Sequence[Turn]) -> list[AfterRuns]:
    """How the sites stand after each of the runs that are left, the one that is due first."""
    from server.affordable import horizon
    from server.planning import plan_of_run

    plan = plan_of_run(scheduled.kit, scheduled.config, base=scheduled.base)
    return horizon(scheduled.kit, plan, sum(turn.is_left for turn in turns))


def _show(scheduled: Scheduled, turns: Sequence[Turn]) -> None:
    """The statement over the whole schedule, before anything is done; with --json only who is warned of what."""
    for turn in turns:
        if turn.state.startswith("missed"):
            go_on = f"; fedcart server resume KIT {turn.folder.path.name} ends its run" if turn.folder else ""
            show.warning(f"period {turn.period.first.isoformat()} was missed; it is not made up for{go_on}")
    if scheduled.as_json:
        return
    config = scheduled.config
    rows = _rows(scheduled, turns)
    show.table(
        f"{config.schedule.periods} runs, one a {config.schedule.every}, epsilon {show.exact(config.privacy.epsilon)} each",
        ("period", "first day", "state", "run", "ε at the worst site", "cannot pay"),
        [
            (
                str(row["number"]),
                row["first"],
                row["state"],
                row["run"] or "–",
                show.epsilon(row["epsilon"]),
                ", ".join([*row["cannot"], *(f"{site}?" for site in row["unsure"])]) or "–",
            )
            for row in rows
        ],
        words=("first day", "state", "run", "cannot pay"),
    )
    typer.echo("ε adds up: a consumer who is there in every period has lost what stands in the last one")


def _rows(scheduled: Scheduled, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """A row per period: what its run brought the worst site to, or, with those before it that are left, would."""
    after = iter(_after(scheduled, turns))
    rows = []
    for turn in turns:
        own = {"number": turn.period.number, "first": turn.period.first.isoformat(), "state": turn.state}
        own |= {"run": turn.folder.path.name if turn.folder else "", "epsilon": turn.spent}
        ahead = asdict(next(after)) if turn.is_left else {"worst": turn.spent, "cannot": (), "unsure": ()}
        rows.append({**own, "epsilon": ahead["worst"], "cannot": ahead["cannot"], "unsure": ahead["unsure"]})
    return rows


@contextmanager
def _told(scheduled: Scheduled) -> Iterator[None]:
    """Leave the statement as JSON on stdout, however the schedule ends."""
    try:
        yield
    finally:
        if scheduled.as_json:
            turns = scheduled.turns()
            newest = [turn.folder.summary() for turn in turns if turn.folder]
            last = newest[-1] if newest else None
            plain: dict[str, Any] = {
                "schedule": scheduled.config.schedule.model_dump(mode="json", exclude={"period"})
            }
            plain |= {"epsilon_of_a_run": scheduled.config.privacy.epsilon, "periods": _rows(scheduled, turns)}
            show.print_json(plain | {"last_run": last.to_json() if last else None})
