"""Streams a deployed run from its folder: the same table as ``simulate``, and how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cli import show
from cli.live import PHASES, columns, facts_lines, fitting, header, progress_bar, progress_words, released_line
from common.config import RunConfig, load_config
from common.contribution import STATISTICS
from common.errors import BadInputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from common.run.files import RunFolder
    from common.run.records import RoundRecord

POLL_S = 0.2
QUIET_S = 10.0
ENDED_WORDS = ("finished", "failed", "stopped")
BEGIN_S = 180.0
GRACE_POLLS = 10  # a server app that has ended gets this long to leave its summary


class Follower:
    """Shows what is new in a run folder. Guarantee: a line is printed once and never rewritten."""

    def __init__(self, folder: RunFolder, config: RunConfig, *, to_stderr: bool) -> None:
        self._folder = folder
        self._config = config
        self._console = show.progress() if to_stderr else show.results()
        self._rounds = 0
        self._notes = 0
        self._said = (time.monotonic(), "")
        self._columns: list[Any] = []
        self._bar: Progress | None = None

    def __enter__(self) -> Follower:
        """Show a moving line of progress where there is a terminal."""
        self._bar = progress_bar()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def in_a_round(self) -> bool:
        """Whether a round is under way, as far as the run folder says."""
        now = self._now()
        return bool(now and now["round"] > sum(r.kind != STATISTICS for r in self._folder.metrics()))

    def look(self) -> None:
        """Print rounds and notes that have come since the last look; now and then, what is under way."""
        records = self._folder.metrics()
        for record in records[self._rounds :]:
            self._line(record)
        self._rounds = max(self._rounds, len(records))
        notes = self._folder.path / "notes.jsonl"
        lines = notes.read_text("utf-8").splitlines() if notes.exists() else []
        for line in lines[self._notes :]:
            self._console.print(f"note: {json.loads(line)['note']}", markup=False)
        self._notes = max(self._notes, len(lines))
        self._progress()

    def skip_past(self) -> None:
        """Do not show again what an earlier run of this program has shown."""
        self._rounds = len(self._folder.metrics())
        notes = self._folder.path / "notes.jsonl"
        self._notes = len(notes.read_text("utf-8").splitlines()) if notes.exists() else 0

    def _line(self, record: RoundRecord) -> None:
        if record.kind == STATISTICS:
            self._console.print(released_line(record))
            return
        if not self._columns:
            self._columns = fitting(columns(record, self._config), self._console.width)
            for line in header(self._columns):
                self._console.print(line, markup=False)
        if record.aborted:
            text = f"{record.round:>5}  no sum: {record.aborted}, {record.answered} sites answered"
        else:
            text = "  ".join(f"{column.cell(record):>{column.width}}" for column in self._columns)
        self._console.print(text, markup=False)
        self._said = (time.monotonic(), "")

    def _now(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._folder.path / "progress.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def _progress(self) -> None:
        now = self._now()
        if not now:
            return
        rounds = self._config.training.rounds
        text = (
            progress_words(now["round"], rounds, now["phase"])
            if now["round"] or now["phase"] in PHASES
            else f"waiting for {now['phase']}"
        )
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], description=text, completed=now["done"], total=max(now["total"], 1)
            )
            return
        said, before = self._said
        if time.monotonic() - said > QUIET_S and (text != before or time.monotonic() - said > 3 * QUIET_S):
            self._said = (time.monotonic(), text)
            show.note(f"{text} {now['done']}/{now['total']}")


def follow(follower: Follower, folder: RunFolder, flower_status: Callable[[], str]) -> dict[str, Any]:
    """Show a run until it has ended, return its summary.

    ``flower_status`` is Flower's word for the run, asked until the server app has begun.
    """
    from server.planning import run_is_held

    begun, gone, started = False, 0, time.monotonic()
    while True:
        follower.look()
        held = run_is_held(folder)
        begun = begun or held
        summary: dict[str, Any] = folder.read_json("summary.json")
        if summary["status"] != "running":
            follower.look()
            return summary
        ended = not held if begun else flower_status() in ENDED_WORDS or time.monotonic() - started > BEGIN_S
        gone = gone + 1 if ended else 0
        if gone > GRACE_POLLS:
            return {"status": "interrupted", "error": "the server app ended without a word",
                    "hint": "see the server's log, then: fedcart server resume", "exit_code": 1}  # fmt: skip
        time.sleep(POLL_S)


def announce(folder: RunFolder) -> RunConfig:
    """Print what is about to be trained, by whom, under which promise; write it into the run folder."""
    from common.plan import RunPlan
    from simulations import facts as facts_of
    from simulations.observer import SiteFacts

    config = load_config(folder.path / "run.toml")
    plan = RunPlan.from_json((folder.path / "plan.json").read_text("utf-8"))
    sites = [SiteFacts(name, population, _items(folder, name)) for name, population in plan.populations]
    facts = facts_of.run_facts(folder.path, config, plan, sites, {})
    facts = replace(
        facts,
        assumptions=(
            "populations are declared by the sites, not counted",
            "consumers of different sites are different people unless stated otherwise",
        ),
        budget="enforced by each site: its own policy and ledger decide",
    )
    folder.write_json("sites.json", facts_of.to_json(facts))
    for line in facts_lines(facts):
        show.note(_without_markup(line))
    return config


def _without_markup(line: str) -> str:
    from rich.text import Text

    return Text.from_markup(line).plain


def _items(folder: RunFolder, site: str) -> int:
    import numpy as np

    try:
        with np.load(folder.path / "masks.npz", allow_pickle=False) as masks:
            return int(masks[site].sum())
    except (OSError, KeyError, ValueError):
        raise BadInputError("masks.npz is damaged", hint="the run folder is incomplete") from None
