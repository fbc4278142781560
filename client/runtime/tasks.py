"""A site's messages on their way from the SuperNode to a process that answers them, and the answers back.

Flower gives each such process an HTTP interface of the SuperNode: a dozen requests a message, and a task that is installed
anew each time. Ours is forked by the worker and gets one socket: the request in, the answer out, the end of it closes both.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from signal import SIGTERM
from typing import Any

import common.flower as flower
import common.wire as wire
from client.runtime.killed import WORKER, note_end
from common.deployment import SiteKit
from common.flower import private
from common.processes import child_environment, python_command

RAISED, CRASHED = 2, 8  # Flower's codes for a client app that failed, and for one that is gone
REASON = "failed"  # all that the server learns of a failure
HEARTBEAT_S = 10.0  # Flower gives a task up that was not heard of for longer


@dataclass(frozen=True)
class TaskInput:
    """What a process that answers is given: Flower's own serialised context and message; ``app``: ``module:name``."""

    app: str
    task: int
    context: bytes
    message: bytes


@dataclass(frozen=True)
class TaskOutput:
    """What it gives back."""

    context: bytes
    message: bytes


@dataclass(frozen=True)
class _Taken:
    """A task of the SuperNode's that is under way: the message, the context that it is answered in."""

    app: str
    task: int
    message: Any
    context: Any


@dataclass
class Tasks:
    """The SuperNode's waiting messages. ``answered`` is set at every answer.

    Guarantee: each message that is taken gets one answer, an error if need be, before its task ends.
    """

    state: Any
    answered: threading.Event = field(default_factory=threading.Event)

    def take(self) -> _Taken | None:
        """The oldest message that nobody has taken, or None."""
        from client.runtime.bundle_check import client_app_in

        waiting = self.state.get_tasks(statuses=[private("Status").PENDING], order_by="pending_at", ascending=True)
        for task in waiting:
            if not self.state.claim_task(task.task_id) or not self.state.activate_task(task.task_id):
                continue
            messages = self.state.get_messages_legacy(run_ids=[task.run_id], is_reply=False, limit=1)
            run = self.state.get_run(task.run_id)
            if messages and run is not None:
                self.state.record_message_processing_start(message_id=messages[0].metadata.message_id)
                context = self.state.get_run_series_context(run.series_id)
                app = client_app_in(self.state.get_fab(run.fab_hash).content)
                return _Taken(app, task.task_id, self._whole(messages[0]), context)
            self.state.finish_task(task.task_id, private("SubStatus").FAILED, "no message")
        return None

    def still_answering(self, taken: _Taken) -> None:
        """Keep the SuperNode from giving the task up."""
        self.state.acknowledge_task_heartbeat(taken.task)

    def end(self, taken: _Taken, output: TaskOutput) -> None:
        """Store the answer, and the context for the next message. Raises: whatever Flower says to bytes that are none."""
        answer, context = flower.message_from(output.message), flower.context_from(output.context)
        run = self.state.get_run(context.run_id)
        if run is not None:
            self.state.set_run_series_context(run.series_id, context)
        self._end(taken, answer, private("SubStatus").COMPLETED)

    def fail(self, taken: _Taken) -> None:
        """There is no answer: store the error that says so."""
        flower.set_task_identity(taken.context.run_id, taken.context.node_id, taken.task)
        self._end(taken, flower.error_reply(taken.message, CRASHED, REASON), private("SubStatus").FAILED)

    def _end(self, taken: _Taken, answer: Any, status: str) -> None:
        self.state.record_message_processing_end(message_id=taken.message.metadata.message_id)
        self._store(answer)
        self.state.finish_task(taken.task, status, "")
        self.answered.set()

    def _whole(self, message: Any) -> Any:
        """The message with its content, whose parts leave the store."""
        name, store = message.metadata.message_id, self.state.object_store
        trees = private("iterate_object_tree")(store.get_object_tree(name))
        parts = {tree.object_id: store.get(tree.object_id) for tree in trees}
        whole = private("inflate_object_from_contents")(name, parts)
        store.delete(name)
        return flower.with_message_id(whole, name)

    def _store(self, answer: Any) -> None:
        """Parts first: once the message is there, the SuperNode sends all of it."""
        with private("no_object_id_recompute")():
            flower.with_message_id(answer, answer.object_id)
            self.state.object_store.preregister(answer.metadata.run_id, private("get_object_tree")(answer))
            for name, part in private("get_all_nested_objects")(answer).items():
                self.state.object_store.put(name, part.deflate())
        self.state.store_message(answer)


class Dispatcher:
    """Hands each waiting message to a process that the worker forks for it."""

    _tasks: Tasks
    _worker: socket.socket

    def __init__(self, kit: SiteKit) -> None:
        self._kit = kit

    def start(self, tasks: Tasks) -> None:
        """Start the worker process. Without one no message can be answered, so its end ends the session."""
        self._worker, theirs = socket.socketpair()
        command, self._tasks = python_command("client.runtime.worker"), tasks
        worker = subprocess.Popen(command, env=child_environment(), stdin=theirs.fileno())
        theirs.close()
        threading.Thread(target=_end_with, args=(self._kit, worker), name="worker-watch", daemon=True).start()

    def task_waits(self) -> None:
        """Have all messages answered that wait, each by a thread of its own that waits for the answer."""
        while (taken := self._tasks.take()) is not None:
            threading.Thread(target=self._answered, args=(taken,), name="answer", daemon=True).start()

    def _answered(self, taken: _Taken) -> None:
        context, message = flower.context_bytes(taken.context), flower.message_bytes(taken.message)
        given = TaskInput(taken.app, taken.task, context, message)
        try:
            self._tasks.end(taken, ask(self._worker, given, lambda: self._tasks.still_answering(taken)))
        except Exception as error:  # whatever it is, the server hears now that this site is out of the round
            sys.stderr.write(f"a message was not answered: {type(error).__name__}\n")
            self._tasks.fail(taken)


def _end_with(kit: SiteKit, worker: subprocess.Popen[bytes]) -> None:
    note_end(kit, WORKER, worker.wait())
    os.kill(os.getpid(), SIGTERM)


def ask(worker: socket.socket, given: TaskInput, waiting: Callable[[], None] = lambda: None) -> TaskOutput:
    """Let a process that the worker forks answer; ``waiting`` is called now and then.

    Raises: OSError, RemoteProtocolError if it ends without an answer.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            socket.send_fds(worker, [b"\1"], [theirs.fileno()])
        ours.sendall(wire.encode(given))
        ours.shutdown(socket.SHUT_WR)
        ours.settimeout(HEARTBEAT_S)
        return wire.restore(TaskOutput, _to_the_end(ours, waiting))


def _to_the_end(connection: socket.socket, waiting: Callable[[], None] = lambda: None) -> bytes:
    parts: list[bytes] = []
    while True:
        try:
            part = connection.recv(1 << 20)
        except TimeoutError:
            waiting()
            continue
        if not part:
            return b"".join(parts)
        parts.append(part)


def answer_task(descriptor: int) -> None:
    """Answer one message in this process: read it from the socket, write the answer to it.

    Guarantee: what the server learns of a failure is the word ``failed``, and what the log learns is the type
    of the error and its place in the program, never its text.
    """
    with socket.socket(fileno=descriptor) as connection:
        given = wire.restore(TaskInput, _to_the_end(connection))
        context, message = flower.context_from(given.context), flower.message_from(given.message)
        flower.set_task_identity(context.run_id, context.node_id, given.task)
        try:
            answer = _client_app(given.app)(message, context)
        except Exception as error:
            sys.stderr.write(f"client app failed: {_place_of(error)}\n")
            answer = flower.error_reply(message, RAISED, REASON)
        connection.sendall(wire.encode(TaskOutput(flower.context_bytes(context), flower.message_bytes(answer))))


def _client_app(named: str) -> Any:
    """An installed client app, and nothing else that a bundle may name. Raises: TypeError, and what an import raises."""
    from flwr.clientapp import ClientApp

    module, _, name = named.partition(":")
    app = getattr(import_module(module), name)
    if not isinstance(app, ClientApp):
        raise TypeError(named)
    return app


def _place_of(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__} in " + "".join(f"{Path(f.filename).name}:{f.lineno}" for f in last)
