"""A pool that answers for every job, whatever happens to its processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest

from common.errors import FedcartError, PolicyRefusedError
from simulations import workers
from simulations.workers import WorkerPool


def double(value: int) -> int:
    return 2 * value


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(kind: str) -> None:
    if kind == "ours":
        raise PolicyRefusedError("clip_max", "clipping norm 9 is above 1", hint="lower it")
    raise ZeroDivisionError("secret detail")


def own_process(_: int) -> int:
    return os.getpid()


def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    monkeypatch.setattr(workers, "PRELOAD", ())  # these jobs need no torch
    with WorkerPool(2) as opened:
        yield opened


def test_every_job_gives_its_value(pool: WorkerPool) -> None:
    found = sorted(done.unwrap() for done in pool.run_all([(double, (i,)) for i in range(20)]))
    assert found == [2 * i for i in range(20)]


def test_a_killed_worker_costs_its_job_only(pool: WorkerPool) -> None:
    jobs = [(double, (1,)), (die, (0,)), (double, (2,)), (die, (0,)), (double, (3,))]
    results = list(pool.run_all(jobs))
    assert sorted(d.value for d in results if d.failure is None) == [2, 4, 6]
    assert [d.failure.code for d in results if d.failure] == ["worker-died"] * 2
    assert next(pool.run_all([(double, (5,))])).unwrap() == 10


def test_our_errors_keep_message_hint_and_exit_code(pool: WorkerPool) -> None:
    with pytest.raises(FedcartError, match="clipping norm 9") as caught:
        next(pool.run_all([(fail, ("ours",))])).unwrap()
    assert (caught.value.hint, caught.value.exit_code, caught.value.code) == ("lower it", 3, "policy")


def test_foreign_errors_become_a_failed_job(pool: WorkerPool) -> None:
    done = next(pool.run_all([(fail, ("theirs",))]))
    assert done.failure is not None
    assert done.failure.code == "ZeroDivisionError"
    assert "secret detail" in done.failure.detail


def test_jobs_run_side_by_side(pool: WorkerPool) -> None:
    first, second = pool.submit(slow, 0.6), pool.submit(double, 4)
    order = []
    while len(order) < 2:
        order += [done.job for done in pool.collect(5.0)]
    assert order == [second, first]


def test_a_site_stays_with_its_worker(pool: WorkerPool) -> None:
    homes = ["a", "b", "c", "d"] * 5
    done = sorted(pool.run_all([(own_process, (0,))] * 20, homes), key=lambda d: d.job)
    served = {home: {d.value for d, h in zip(done, homes, strict=True) if h == home} for home in "abcd"}
    assert all(len(processes) == 1 for processes in served.values())
    assert sorted(list(served.values()).count({p}) for p in set.union(*served.values())) == [2, 2]


def test_a_site_does_not_wait_for_a_worker_that_is_busy_for_long(pool: WorkerPool) -> None:
    list(pool.run_all([(double, (i,)) for i in range(2)]))  # both have begun
    first, second = pool.submit(slow, 1.5, home="a"), pool.submit(slow, 0.0, home="b")
    waiting = [
        pool.submit(slow, 0.0, home="a"),
        pool.submit(slow, 0.0, home="c"),
        pool.submit(slow, 0.0, home="d"),
    ]
    order: list[int] = []
    while len(order) < 5:
        order += [done.job for done in pool.collect(0.05)]
    assert order[0] == second
    assert order[-1] == first
    assert set(order[1:-1]) == set(waiting)


def test_no_worker_is_started_before_there_is_work(pool: WorkerPool) -> None:
    assert pool._workers == []
    assert next(pool.run_all([(double, (4,))])).unwrap() == 8
    assert len(pool._workers) == 2


def kept_and_length(value: bytes) -> tuple[int, int, int]:
    return os.getpid(), id(value), len(value)


def test_a_shared_value_reaches_each_worker_once_and_a_new_one_after_it(pool: WorkerPool) -> None:
    first = workers.Shared(bytes(100_000))
    found = [done.unwrap() for done in pool.run_all([(kept_and_length, (first,))] * 8)]
    assert {length for _, _, length in found} == {100_000}
    assert len({(process, place) for process, place, _ in found}) == len({process for process, _, _ in found})
    for size in range(10):  # more than are kept
        jobs = [(kept_and_length, (workers.Shared(bytes(size)),)), (kept_and_length, (first,))]
        assert sorted(done.unwrap()[2] for done in pool.run_all(jobs)) == [size, 100_000]


def test_a_new_worker_is_sent_what_the_dead_one_had(pool: WorkerPool) -> None:
    value = workers.Shared(bytes(1_000))
    list(pool.run_all([(kept_and_length, (value,))] * 4))
    list(pool.run_all([(die, (0,)), (die, (0,))]))
    assert {done.unwrap()[2] for done in pool.run_all([(kept_and_length, (value,))] * 4)} == {1_000}


def blocked(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the mask of another process is read from /proc"
)
def test_nothing_that_is_started_hears_ctrl_c_not_even_while_it_imports() -> None:
    workers.begin_imports()
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    bit = 1 << (signal.SIGINT - 1)
    assert blocked(server) & bit
    assert not blocked(os.getpid()) & bit, "the parent hears it"
