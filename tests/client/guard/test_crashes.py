"""kill -9 at any instant of a round without training: the ledger never counts less than what left."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.privacy.accountant import ScopeAccountant
from common.verify import verify_path
from tests.guard_samples import RELEASE, ROSTER, drive, guard_in

WRITES = ("write", "fdatasync", "fsync", "replace", "unlink", "open", "ftruncate", "chmod")
ROUNDS = 2


class Killer:
    """Counts the calls that change the disk and kills this process at one of them.

    ``moment``: before the call, after it, or in the middle (a write of a part of the bytes).
    """

    def __init__(self, at: int, moment: str) -> None:
        self.calls, self._at, self._moment = 0, at, moment

    def install(self) -> None:
        for name in WRITES:
            setattr(os, name, self._wrap(getattr(os, name), name))

    def _wrap(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls != self._at:
                return real(*arguments, **options)
            if self._moment == "middle" and name == "write":
                real(arguments[0], arguments[1][: random.Random(self._at).randrange(1, len(arguments[1]))])
            elif self._moment == "after":
                real(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("still alive")

        return call


def run_and_kill(folder: Path, first: int, at: int, moment: str) -> bool:
    """Drive rounds in a child that kills itself at call number ``at``; True if it did."""
    child = os.fork()
    if child == 0:
        try:
            Killer(at, moment).install()
            drive(folder, first, ROUNDS)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def left_the_process(folder: Path) -> list[int]:
    path = folder / "left"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def check(folder: Path, crashes: int) -> None:
    """After a restart: a verified ledger that charges all that left, and at most one more per crash."""
    guard = guard_in(folder)
    guard.restart()
    left, state = left_the_process(folder), guard.ledger.state
    committed = {r.sequence for r in state.reservations.values() if r.state == "committed"}
    assert set(left) <= committed and len(set(left)) == len(left)
    assert len(committed) - len(left) <= crashes
    assert not state.open_reservations()
    assert guard.status().epsilon >= ScopeAccountant([RELEASE] * len(left)).epsilon(1e-5)
    outbox = folder / "outbox"
    assert not outbox.exists() or not list(outbox.iterdir())
    verdict = verify_path(folder / "ledger.jsonl", roster=ROSTER)
    assert verdict.ok, verdict.problems


def calls_of_a_run(folder: Path) -> int:
    """How many calls change the disk in an undisturbed run."""
    at = 1
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            killer = Killer(-1, "before")
            say = os.write
            killer.install()
            drive(folder, 1, ROUNDS)
            say(write, b"%d" % killer.calls)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    at = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    return at


def series(folder: Path, points: list[tuple[int, str]]) -> None:
    """Crash after crash on the same ledger, each followed by a restart and all checks."""
    ScopeAccountant([RELEASE]).epsilon(1e-5)  # loaded before the forks
    for number, (at, moment) in enumerate(points, start=1):
        run_and_kill(folder, 100 * number, at, moment)
        check(folder, number)


def test_a_few_crashes(tmp_path: Path) -> None:
    total = calls_of_a_run(tmp_path / "dry")
    chosen = random.Random(1)
    points = [(chosen.randint(1, total), chosen.choice(("before", "middle", "after"))) for _ in range(12)]
    series(tmp_path / "site", points)


@pytest.mark.full
def test_a_crash_at_every_write_of_a_fresh_site(tmp_path: Path) -> None:
    total, killed = calls_of_a_run(tmp_path / "dry"), 0
    for at in range(1, total + 1):
        for moment in ("before", "middle", "after"):
            folder = tmp_path / f"{at}-{moment}"
            folder.mkdir()
            killed += run_and_kill(folder, 1, at, moment)
            check(folder, 1)
    assert killed == 3 * total > 150


@pytest.mark.full
def test_two_hundred_crashes_of_one_site(tmp_path: Path) -> None:
    total = calls_of_a_run(tmp_path / "dry")
    chosen = random.Random(2)
    moments = ("before", "middle", "after")
    series(tmp_path / "site", [(chosen.randint(1, total), chosen.choice(moments)) for _ in range(200)])
