"""kill -9 at any instant of a round without training: the ledger never counts less than what left."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.audit.verify import verify_path
from common.privacy.accountant import ScopeAccountant
from tests.guard_samples import RELEASE, ROSTER, drive, guard_in

WRITES = ("write", "fdatasync", "fsync", "replace", "unlink", "open", "ftruncate", "chmod")
ROUNDS = 2


class Killer:
    """Counts the calls that change the disk and kills this process at one of them.

    ``moment``: before the call, after it, or in the middle (a write of a part of the bytes).
    """

    def __init__(self, at: int, moment: str) -> None:
        self.names: list[str] = []
        self._at, self._moment = at, moment

    def install(self) -> None:
        for name in WRITES:
            setattr(os, name, self._wrap(getattr(os, name), name))

    def _wrap(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.names.append(name)
            if len(self.names) != self._at:
                return real(*arguments, **options)
            if self._moment == "middle" and name == "write":
                real(arguments[0], arguments[1][: random.Random(self._at).randrange(1, len(arguments[1]))])
            elif self._moment == "after":
                real(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("still alive")

        return call


def run_and_kill(folder: Path, at: int, moment: str, *, first: int = 1, rounds: int = ROUNDS) -> bool:
    """Drive rounds in a child that kills itself at call number ``at``; True if it did."""
    child = os.fork()
    if child == 0:
        try:
            Killer(at, moment).install()
            drive(folder, first, rounds)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def left_the_process(folder: Path) -> set[int]:
    return {int(path.name) for path in (folder / "left").glob("*")}


def check(folder: Path, crashes: int) -> None:
    """After a restart: a verified ledger that charges all that left, and at most one more per crash."""
    guard = guard_in(folder)
    guard.restart()
    left, state = left_the_process(folder), guard.ledger.state
    committed = {r.sequence for r in state.reservations.values() if r.state == "committed"}
    assert left <= committed
    assert len(committed) - len(left) <= crashes
    assert not state.open_reservations()
    assert guard.status().epsilon >= ScopeAccountant([RELEASE] * len(left)).epsilon(1e-5)
    outbox = folder / "outbox"
    assert not outbox.exists() or not list(outbox.iterdir())
    verdict = verify_path(folder / "ledger.jsonl", roster=ROSTER)
    assert verdict.ok, verdict.findings


def calls_of_a_run(folder: Path, rounds: int = ROUNDS) -> list[str]:
    """The calls that change the disk in an undisturbed run, in order."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            killer, say = Killer(-1, "before"), os.write
            killer.install()
            drive(folder, 1, rounds)
            say(write, " ".join(killer.names).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    names = os.read(read, 1 << 16).decode().split()
    os.close(read)
    os.close(write)
    return names


def series(folder: Path, points: list[tuple[int, str]]) -> None:
    """Crash after crash on the same ledger, each followed by a restart and all checks."""
    ScopeAccountant([RELEASE]).epsilon(1e-5)  # loaded before the forks
    for number, (at, moment) in enumerate(points, start=1):
        run_and_kill(folder, at, moment, first=100 * number)
        check(folder, number)


def some_points(folder: Path, count: int, seed: int) -> list[tuple[int, str]]:
    total, chosen = len(calls_of_a_run(folder)), random.Random(seed)
    return [(chosen.randint(1, total), chosen.choice(("before", "middle", "after"))) for _ in range(count)]


def test_a_few_crashes(tmp_path: Path) -> None:
    series(tmp_path / "site", some_points(tmp_path / "dry", 12, seed=1))


@pytest.mark.full
def test_a_crash_at_every_write_of_a_fresh_site(tmp_path: Path) -> None:
    names = calls_of_a_run(tmp_path / "dry", rounds=1)
    points = [(at, "before") for at in range(1, len(names) + 1)]
    points += [(at, "middle") for at, name in enumerate(names, start=1) if name == "write"]
    for at, moment in points:
        folder = tmp_path / f"{at}-{moment}"
        folder.mkdir()
        assert run_and_kill(folder, at, moment, rounds=1)
        check(folder, 1)
    assert {"write", "fdatasync", "fsync", "replace", "unlink"} <= set(names)


@pytest.mark.full
def test_two_hundred_crashes_of_one_site(tmp_path: Path) -> None:
    series(tmp_path / "site", some_points(tmp_path / "dry", 200, seed=2))
