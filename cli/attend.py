"""A deployed run before the eyes of whoever started it: submitted, followed to its end, stopped by Ctrl-C, reported."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cli.show as show

if TYPE_CHECKING:
    from cli.follow import Follower
    from common.deployment import CoordinatorKit
    from common.run import RunFolder, Summary
    from server.runtime.link_server import Control

SUBMIT_POLL_S = 0.1


@dataclass(frozen=True)
class Manner:
    """How a run is shown.

    ``as_json``: its summary as JSON on stdout; ``aside``: nothing of it on stdout, where the caller has more to say.
    ``patient``: Ctrl-C lets the round under way come to its end, and only a second one stops at once.
    """

    as_json: bool = False
    aside: bool = False
    patient: bool = True

    @property
    def to_stderr(self) -> bool:
        """Whether stdout is kept for something else."""
        return self.as_json or self.aside


def submit_and_follow(kit: CoordinatorKit, folder: RunFolder, manner: Manner, *, again: bool = False) -> int:
    """Submit a prepared run to the running server and show it to its end, return the exit code.

    ``again``: it has run before, what it did then is not shown again.
    Raises: KeyboardInterrupt when the run was stopped so; FedcartError as the server app said.
    """
    from common.run import hold_submission
    from server.runtime.control import open_control, submit

    with hold_submission(folder) as tell, open_control(kit) as control:
        follower = _follower(folder, to_stderr=manner.to_stderr)
        if again:
            follower.skip_past()
        folder.begin()
        number = submit(kit, control, folder.path.name)
        tell(number)
        return _attend(Attended(kit, folder, control, number), follower, manner)


def is_under_way(folder: RunFolder) -> bool:
    """Whether a run is at work, or submitted and about to be."""
    from common.run import run_is_held, run_is_submitted

    return run_is_held(folder) or run_is_submitted(folder)


def attach(kit: CoordinatorKit, folder: RunFolder, manner: Manner) -> int:
    """Show a run that is under way to its end, as ``submit_and_follow`` does."""
    from server.runtime.control import open_control

    show.note(f"{folder.path.name} is under way: showing it")
    follower = _follower(folder, to_stderr=manner.to_stderr)
    with open_control(kit) as control:
        return _attend(Attended(kit, folder, control, _number(folder)), follower, manner)


def _number(folder: RunFolder) -> int:
    """Flower's number for a run, which another screen may be about to learn. Raises: WorkFailedError."""
    from common.errors import WorkFailedError
    from common.run import run_is_submitted, submitted

    while (number := submitted(folder)) is None:
        if not run_is_submitted(folder):
            raise WorkFailedError("the run was not submitted after all", hint="fedcart server resume")
        time.sleep(SUBMIT_POLL_S)
    return number


def _follower(folder: RunFolder, *, to_stderr: bool) -> Follower:
    """A screen on which what is about to be trained is shown, and who tells it the rest."""
    from cli.follow import Follower, deployed_facts
    from cli.screen import Screen

    facts = deployed_facts(folder)
    screen = Screen(folder.settings(), folder.path, to_stderr=to_stderr)
    screen.prepared(facts)
    return Follower(folder, screen)


@dataclass(frozen=True)
class Attended:
    """A submitted run: kit, folder, connection to the server, Flower's number for it."""

    kit: CoordinatorKit
    folder: RunFolder
    control: Control
    number: int

    def word(self) -> str:
        """Flower's word for how the run stands; empty while the server starts again."""
        return _flower_word(self.control, self.number)


def _attend(run: Attended, follower: Follower, manner: Manner) -> int:
    with follower.screen:
        try:
            summary = follower.to_the_end(run.word)
        except KeyboardInterrupt:
            summary = _stop(run, follower, patient=manner.patient)
        return _close(run, follower, summary, as_json=manner.as_json)


def _stop(run: Attended, follower: Follower, *, patient: bool) -> Summary:
    from common.run import INTERRUPTED, Summary, ask_to_stop
    from server.runtime.control import stop_at_once

    if patient and follower.in_a_round():
        ask_to_stop(run.folder)
        show.note("stopping after the round under way; Ctrl-C again stops at once, and gives that round up")
        with suppress(KeyboardInterrupt):
            return follower.to_the_end(run.word)
    stop_at_once(run.control, run.folder, run.number)
    summary = Summary(INTERRUPTED)
    run.folder.write_summary(summary)
    return summary


def _flower_word(control: Control, flower_run: int) -> str:
    from common.errors import WorkFailedError

    try:
        return control.run_status(flower_run)[0].split(":")[0]
    except WorkFailedError:
        return ""  # the server may be starting again


def _close(run: Attended, follower: Follower, summary: Summary, *, as_json: bool) -> int:
    """Show how a run ended, return the exit code. Raises: FedcartError as the server app said, KeyboardInterrupt."""
    from common.errors import FedcartError
    from common.run import INTERRUPTED

    resume = f"fedcart server resume {run.kit.path}"
    _report(run.folder)
    if as_json:
        show.print_json(summary.to_json())
    if summary.error:
        failure = FedcartError(summary.error, hint=summary.hint or resume)
        failure.exit_code = summary.exit_code or 1
        raise failure
    if summary.status == INTERRUPTED:
        show.note(f"every finished round is kept, the sites go on waiting; to go on: {resume}")
        raise KeyboardInterrupt
    follower.screen.closing(summary)
    if summary.completed:
        return 0
    return 3 if any("budget" in note or "policy" in note for note in summary.notes) else 1


def _report(folder: RunFolder) -> None:
    from cli.report import write_report
    from common.errors import FedcartError

    try:
        write_report(folder.path)
    except FedcartError as error:
        show.warning(f"no report: {error.message}")
