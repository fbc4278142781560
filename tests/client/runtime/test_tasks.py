"""Messages between the SuperNode and the processes that answer them: each gets one answer, whatever becomes of its process."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.clientapp import ClientApp

import client.app
import common.flower as flower
import common.wire as wire
from client.runtime.tasks import CRASHED, RAISED, Dispatcher, TaskInput, TaskOutput, Tasks, answer_task, ask
from common.deployment import SiteKit
from common.errors import RemoteProtocolError
from common.flower import private
from server.runtime.bundle import build_bundle, bundle_text

RUN, NODE, SERIES = 7, 5, 3


def context(**state: bytes) -> flower.Context:
    made = flower.new_context(RUN, NODE, {"site": "a"}, {})
    made.state["kept"] = flower.body(state)[flower.BODY]
    return made


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    """A SuperNode that holds one message nobody has taken."""
    states = private("NodeStateFactory")(objectstore_factory=private("ObjectStoreFactory")())
    state = states.state()
    state.set_node_id(NODE)
    state.store_run(SimpleNamespace(run_id=RUN, series_id=SERIES, fab_hash="pinned"))
    content = build_bundle(bundle_text())
    monkeypatch.setattr(state, "get_fab", lambda _: private("Fab")("pinned", content, {}))
    state.set_run_series_context(SERIES, context(secret=b"before"))
    flower.set_task_identity(RUN)
    message = flower.instruction(NODE, "query.hello", {"question": b"?" * 1_000}, "1.1")
    with private("no_object_id_recompute")():
        flower.with_message_id(message, message.object_id)
        state.object_store.preregister(RUN, private("get_object_tree")(message))
        for name, part in private("get_all_nested_objects")(message).items():
            state.object_store.put(name, part.deflate())
    bare = flower.header_only(message)
    state.store_message(bare)
    state.create_task(task_type=private("TaskType").CLIENT_APP, run_id=RUN, fab_hash="0" * 64)
    return Tasks(state)


def answer_in(state: Any) -> Any:
    """The one answer that the SuperNode would send, made whole from its parts."""
    (message,) = state.get_messages_legacy(is_reply=True)
    tree = state.object_store.get_object_tree(message.metadata.message_id)
    parts = {one.object_id: state.object_store.get(one.object_id) for one in private("iterate_object_tree")(tree)}
    assert all(parts.values())
    return private("inflate_object_from_contents")(message.metadata.message_id, parts)


def test_a_message_is_taken_once_and_its_answer_is_there_whole(tasks: Tasks) -> None:
    taken = tasks.take()
    assert taken is not None
    assert tasks.take() is None
    assert flower.parts_of(taken.message.content) == {"question": b"?" * 1_000}
    assert tasks.state.object_store.get(taken.message.metadata.message_id) is None  # nothing of it stays
    flower.set_task_identity(RUN, NODE, taken.task)
    reply = flower.reply(taken.message, {"answer": b"!" * 1_000})
    tasks.end(taken, TaskOutput(flower.context_bytes(context(secret=b"after")), flower.message_bytes(reply)))
    assert tasks.answered.is_set()
    answer = answer_in(tasks.state)
    assert flower.parts_of(answer.content) == {"answer": b"!" * 1_000}
    kept = tasks.state.get_run_series_context(SERIES).state["kept"]
    assert kept["secret"] == b"after"


def test_a_task_without_an_answer_is_an_error_that_says_no_more(tasks: Tasks) -> None:
    taken = tasks.take()
    assert taken is not None
    tasks.fail(taken)
    (answer,) = tasks.state.get_messages_legacy(is_reply=True)
    assert (answer.error.code, answer.error.reason) == (CRASHED, "failed")
    assert tasks.take() is None


def fake_worker(behave: Any) -> socket.socket:
    """The node's end of a worker that hands each message's socket to ``behave``."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            told, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
            if told:
                behave(descriptors[0])

    threading.Thread(target=serve, daemon=True).start()
    return ours


def test_a_process_that_is_killed_is_noticed_at_once_and_its_message_is_answered(
    tasks: Tasks, tmp_path: Path
) -> None:
    with fake_worker(lambda descriptor: socket.socket(fileno=descriptor).close()) as worker:
        given = TaskInput("client.app:app", 1, b"", b"")
        with pytest.raises((RemoteProtocolError, OSError)):
            ask(worker, given)
    with fake_worker(lambda descriptor: socket.socket(fileno=descriptor).close()) as worker:
        dispatcher = Dispatcher(SiteKit(tmp_path))
        dispatcher._tasks, dispatcher._worker = tasks, worker
        dispatcher.task_waits()
        assert tasks.answered.wait(10)
    (answer,) = tasks.state.get_messages_legacy(is_reply=True)
    assert answer.error.code == CRASHED


def test_of_an_app_that_fails_the_server_learns_one_word_and_the_log_the_place(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(ClientApp):
        def __call__(self, *_: Any) -> Any:
            raise ValueError("consumer 4711 bought a tent")

    monkeypatch.setattr(client.app, "app", Failing())
    taken = tasks.take()
    assert taken is not None
    assert taken.app == "client.app:app"
    answer = answered(taken, taken.app)
    assert (answer.error.code, answer.error.reason) == (RAISED, "failed")
    said = capsys.readouterr().err
    assert "ValueError in test_tasks.py" in said
    assert "4711" not in said


def answered(taken: Any, app: str) -> Any:
    given = TaskInput(app, taken.task, flower.context_bytes(taken.context), flower.message_bytes(taken.message))
    with fake_worker(answer_task) as worker:
        return flower.message_from(ask(worker, given).message)


def test_nothing_but_a_client_app_is_called_whatever_the_bundle_names(
    tasks: Tasks, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tasks.take()
    assert answered(taken, "os:fspath").error.reason == "failed"
    assert "TypeError" in capsys.readouterr().err


def test_bytes_that_are_no_answer_are_told_from_one() -> None:
    assert wire.restore(TaskOutput, wire.encode(TaskOutput(b"c", b"m"))) == TaskOutput(b"c", b"m")
    for bytes_ in (b"", b"\x80", wire.encode(TaskInput("a:b", 1, b"c", b"m"))):
        with pytest.raises(RemoteProtocolError):
            wire.restore(TaskOutput, bytes_)
