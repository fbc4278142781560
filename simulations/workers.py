"""A pool of worker processes that survives the death of a worker.

Workers come from a fork server that has imported the heavy modules once, so a worker costs milliseconds
and shares their memory. There are no threads here: whoever waits for results also hands out the jobs.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

from common.errors import FedcartError, WorkFailedError
from common.extensions import Registered, registered, take_over
from common.processes import SAFE_PATH, child_environment

PRELOAD = ("simulations.worker_modules",)
PATIENCE_S = 0.2  # so long a job waits for the worker that knows its site, before another one takes the site over
SHARED_KEPT = 2  # at a worker: the model of a round, and of the one before
START_S = 10.0  # the same for a worker's first job, which waits for the imports


def begin_imports() -> None:
    """Start the fork server and return at once: it imports the heavy modules while the caller does other things."""
    mp.get_context("forkserver").set_forkserver_preload(list(PRELOAD))
    with _nobodys_main(), _safe_path(), _deaf_children():
        forkserver.ensure_running()


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes started meanwhile, and theirs, never hear Ctrl-C, not even while they import: it is for the parent alone."""
    resource_tracker.ensure_running()  # of Python: it lifts the block where it must be started first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _nobodys_main() -> Iterator[None]:
    """Processes started meanwhile do not run the caller's script again.

    multiprocessing has each child import the parent's main module first, for functions that are defined there. Ours
    are not; a script without a main guard, or a notebook, would begin anew in every worker.
    """
    own = sys.modules.get("__main__")
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        if own is not None:
            sys.modules["__main__"] = own


@contextmanager
def _safe_path() -> Iterator[None]:
    """Interpreters started meanwhile find our packages, and do not begin with the current folder on their path."""
    own, safe = dict(os.environ), child_environment()
    try:
        for name in (SAFE_PATH, "PYTHONPATH"):
            os.environ.pop(name, None)
            if name in safe:
                os.environ[name] = safe[name]
        yield
    finally:
        for name in (SAFE_PATH, "PYTHONPATH"):
            os.environ.pop(name, None)
            if name in own:
                os.environ[name] = own[name]


@dataclass(frozen=True, eq=False)
class Shared:
    """An argument of several jobs, sent to each worker once; the jobs get the ``value``."""

    value: bytes = field(repr=False)


@dataclass(frozen=True)
class _Sent:
    """Stands for a ``Shared`` on the way to a worker, which has it under this number."""

    number: int


class _SharedValues:
    """The last few shared values that a worker has, or that it is known to have: both ends add alike."""

    def __init__(self) -> None:
        self._kept: dict[int, Any] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._kept

    def add(self, number: int, value: Any = None) -> None:
        while len(self._kept) >= SHARED_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[number] = value

    def resolved(self, argument: Any) -> Any:
        return self._kept[argument.number] if isinstance(argument, _Sent) else argument


@dataclass(frozen=True)
class Failure:
    """Why a job gave no value: a fixed word, our message and hint if it was one of our errors, and the log text."""

    code: str
    message: str = ""
    hint: str = ""
    exit_code: int = 1
    detail: str = ""


@dataclass(frozen=True)
class Done:
    """What became of a job: a ``value`` or a ``failure``."""

    job: int
    value: Any = None
    failure: Failure | None = None

    def unwrap(self) -> Any:
        """The value. Raises: FedcartError with the job's message, hint and exit code if it failed."""
        if self.failure is None:
            return self.value
        error = WorkFailedError(
            self.failure.message or f"a worker failed: {self.failure.code}", hint=self.failure.hint
        )
        error.exit_code, error.code = self.failure.exit_code, self.failure.code
        raise error


@dataclass(frozen=True)
class _Job:
    number: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    home: str


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    job: int | None = None
    since: float = 0.0
    started: bool = False  # has answered: until then it imports
    has: _SharedValues = field(default_factory=_SharedValues)

    def send(self, job: _Job) -> None:
        """Hand out a job, and the shared arguments that this worker does not have. Raises: OSError if it is dead."""
        arguments, news = [], []
        for argument in job.arguments:
            if isinstance(argument, Shared):
                number = id(argument)
                if number not in self.has:
                    news.append((number, argument.value))
                    self.has.add(number, argument)  # held, so that nothing else gets its number
                argument = _Sent(number)
            arguments.append(argument)
        self.pipe.send((job.function, tuple(arguments), news))


@dataclass
class WorkerPool:
    """``size`` processes that run ``function(*arguments)`` jobs. Use as a context manager.

    Jobs of one ``home`` (a site) go to one worker, which keeps what it made of that site's data; sites are dealt
    evenly, and a worker without work takes over a site whose own worker is busy for long.
    Guarantee: every submitted job yields exactly one ``Done``, also when its process is killed.
    Functions must be importable by name; arguments and values must be plain data, or ``Shared``: at most ``SHARED_KEPT`` in a job.
    """

    size: int
    _workers: list[_Worker] = field(default_factory=list)
    _waiting: deque[_Job] = field(default_factory=deque)
    _homes: dict[str, int] = field(default_factory=dict)  # site -> place of its worker
    _finished: deque[Done] = field(default_factory=deque)
    _next: int = 0

    def __post_init__(self) -> None:
        self._context = mp.get_context("forkserver")

    def __enter__(self) -> WorkerPool:
        begin_imports()  # workers are started with the first jobs: starting one waits for the imports
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.pipe.close()  # the worker sees the end of its pipe and leaves
        deadline = time.monotonic() + 2
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.terminate()
                worker.process.join()
        self._workers.clear()

    def submit(self, function: Callable[..., Any], *arguments: Any, home: str = "") -> int:
        """Queue a job and return its number; jobs of one home start in the order of submission."""
        self._next += 1
        self._waiting.append(_Job(self._next, function, arguments, home))
        self._dispatch()
        return self._next

    def collect(self, timeout_s: float) -> list[Done]:
        """Results that are ready, waiting at most ``timeout_s`` for the first one."""
        self._dispatch()
        if not self._finished:
            busy = {w.pipe: w for w in self._workers if w.job is not None}
            for pipe in wait(list(busy), timeout_s) if busy else ():
                self._finish(busy[pipe])  # type: ignore[index]
            self._dispatch()
        ready = list(self._finished)
        self._finished.clear()
        return ready

    def run_all(
        self, jobs: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], homes: Sequence[str] = ()
    ) -> Iterator[Done]:
        """Run jobs and yield their results as they come; nothing else may be under way. ``homes``: of each job."""
        at = homes or [""] * len(jobs)
        pending = {
            self.submit(job, *arguments, home=home) for (job, arguments), home in zip(jobs, at, strict=True)
        }
        while pending:
            for done in self.collect(PATIENCE_S):
                pending.discard(done.job)
                yield done

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, registered()), daemon=True)
        with _nobodys_main():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _dispatch(self) -> None:
        if self._waiting and len(self._workers) < self.size:
            self._workers += [self._start() for _ in range(self.size - len(self._workers))]
        for place, worker in enumerate(self._workers):
            if worker.job is not None or (job := self._take(place)) is None:
                continue
            try:
                worker.send(job)
            except OSError:  # died while idle: replace it and try again
                worker = self._workers[place] = self._start()
                worker.send(job)
            worker.job, worker.since = job.number, time.monotonic()

    def _take(self, place: int) -> _Job | None:
        """The first waiting job that this worker should do, its home noted; None if all can wait for another one."""
        for job in self._waiting:
            if self._may_take(place, job.home):
                self._waiting.remove(job)
                if job.home:
                    self._homes[job.home] = place
                return job
        return None

    def _may_take(self, place: int, home: str) -> bool:
        if not home:
            return True
        dealt = list(self._homes.values())  # a new site goes where the fewest are
        own = self._homes.get(home, min(range(len(self._workers)), key=dealt.count))
        there = self._workers[own]
        patience = PATIENCE_S if there.started else START_S
        return own == place or (there.job is not None and time.monotonic() - there.since > patience)

    def _finish(self, worker: _Worker) -> None:
        job, worker.job = worker.job, None
        assert job is not None
        try:
            value, failure = worker.pipe.recv()
            worker.started = True
            self._finished.append(Done(job, value, failure))
        except (EOFError, OSError):
            worker.process.join(1)
            died = Failure("worker-died", f"a worker process died, exit code {worker.process.exitcode}")
            self._finished.append(Done(job, failure=died))
            worker.pipe.close()
            self._workers[self._workers.index(worker)] = self._start()


def _serve(pipe: Connection, extensions: Registered) -> None:
    """Body of a worker: run jobs until the pipe ends."""

    take_over(extensions)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    os.environ["OMP_NUM_THREADS"] = "1"
    shared = _SharedValues()
    while True:
        try:
            function, arguments, news = pipe.recv()
        except (EOFError, OSError):
            return
        answer: tuple[Any, Failure | None]
        for number, value in news:
            shared.add(number, value)
        try:
            answer = (function(*map(shared.resolved, arguments)), None)
        except FedcartError as error:
            failure = Failure(error.code, error.message, error.hint, error.exit_code, traceback.format_exc())
            answer = (None, failure)
        except Exception as error:  # the parent decides what a failed job means
            answer = (None, Failure(type(error).__name__, str(error), detail=traceback.format_exc()))
        try:
            pipe.send(answer)
        except OSError:
            return
