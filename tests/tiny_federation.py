"""A tiny federation for tests: three sites, a few dozen consumers, seconds to run."""

from __future__ import annotations

from pathlib import Path

from common.run import RunConfig, build_config
from common.run.facts import RunFacts
from common.run.observer import Observer
from common.run.records import (
    RoundRecord,
    Summary,
)
from simulations.run import simulate

TINY = (
    "data.sites=3",
    "data.consumers=240",
    "data.items=40",
    "data.min_population=1",
    "model.dim=8",
    "model.hidden=8",
    "training.rounds=2",
    "training.local_steps=2",
    "privacy.sampling_rate=0.3",
    "performance.workers=1",  # as many tests run side by side as there are cores; test_workers and test_simulate have two
)


class Recorder(Observer):
    """Remembers what a simulation said."""

    def __init__(self) -> None:
        self.records: list[RoundRecord] = []
        self.notes: list[str] = []
        self.facts: RunFacts | None = None
        self.phases: list[tuple[int, str]] = []

    def prepared(self, facts: RunFacts) -> None:
        self.facts = facts

    def progress(self, round_number: int, phase: str, done: int, total: int) -> None:
        self.phases.append((round_number, phase))

    def round_done(self, record: RoundRecord) -> None:
        self.records.append(record)

    def note(self, message: str) -> None:
        self.notes.append(message)


def tiny(*overrides: str) -> RunConfig:
    return build_config({}, [*TINY, *overrides])


def run_tiny(out: Path, *overrides: str) -> tuple[Summary, Recorder]:
    watcher = Recorder()
    return simulate(tiny(*overrides), out, watcher), watcher
