"""Flower's deployment runtime at a site: the SuperNode and the tasks it hands out.

Flower is imported late, by name from the table of ``common/flower.py``. The decision what may run is the caller's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import RefusedError, WorkFailedError
from common.flower import patched, private, retry_pulls_quickly

BUSY_WINDOW_S = 120.0
BUSY_POLL_S = 0.2
IDLE_POLL_S = 1.0
REPLY_POLL_S = 0.03
HELD_S = 1.0  # a server that kept the question for so long keeps it until there is something to say
NOTICED_S = 1.0

CheckBundle = Callable[[str, bytes | None], None]


@dataclass(frozen=True)
class NodeSettings:
    """What a SuperNode needs. ``secret`` guards its local interface; ``private_key`` is the EC node key.

    ``config`` is what the site says to its own client app; nothing in it comes from a server. ``former_node``:
    the id of a session of this site that may have ended without a word, 0 if there is none.
    """

    address: str
    authority: bytes
    private_key: Any
    secret: bytes
    config: Mapping[str, bool | float | int | str] = field(default_factory=dict)
    former_node: int = 0


@dataclass(frozen=True)
class NodeEvents:
    """What the caller of ``run_supernode`` hears: the address of the local interface once it is there, the node id
    once the server has let the site in, and that a message is waiting."""

    on_ready: Callable[[str], None]
    on_connected: Callable[[int], None]
    on_message: Callable[[], None]


class Pace:
    """Stands in for ``time`` in the SuperNode's loop: quick while messages come, quiet otherwise."""

    def __init__(self) -> None:
        self._last_message = 0.0
        self._awake_since = time.monotonic()

    def message_seen(self) -> None:
        """Poll quickly from now on."""
        self._last_message = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep for less than Flower asks: its 3 s are idle waits, its 0.5 s wait for a local answer.

        Not at all where the server itself keeps the question until a message comes (as ours does).
        """
        if seconds < 1:
            time.sleep(min(seconds, REPLY_POLL_S))
        elif time.monotonic() - self._awake_since < HELD_S:
            busy = time.monotonic() - self._last_message < BUSY_WINDOW_S
            time.sleep(min(seconds, BUSY_POLL_S if busy else IDLE_POLL_S))
        self._awake_since = time.monotonic()


def run_supernode(settings: NodeSettings, check_bundle: CheckBundle, events: NodeEvents) -> None:
    """Connect to the SuperLink and serve until the process ends; messages wait for ``take_task``.

    Guarantee: a bundle for which ``check_bundle(claimed digest, content)`` raises RefusedError is neither
    stored nor handed to any other process, and its message is dropped.
    """
    internal: Any = private("start_client_internal")
    ObjectStoreFactory = private("ObjectStoreFactory")
    NodeStateFactory = private("NodeStateFactory")

    if settings.former_node:
        _say_goodbye(settings)
    retry_pulls_quickly()
    pace = Pace()
    _keep_pace(pace)

    turn = Turn()
    _answer_in_turn(turn)

    def message_stored(message_id: str) -> None:
        turn.asked = message_id
        pace.message_seen()
        events.on_message()

    _watch_connection(check_bundle, events.on_connected, message_stored)
    states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    events.on_ready(_start_local_interface(states, settings.secret))
    internal.start_client_internal(
        state_factory=states,
        server_address=settings.address,
        node_config=dict(settings.config),
        root_certificates=settings.authority,
        insecure=False,
        authentication_keys=(settings.private_key, settings.private_key.public_key()),
        isolation="process",
        superexec_auth_secret=settings.secret,
        runtime_dependency_install=False,
    )


def _keep_pace(pace: Pace) -> None:
    """The SuperNode's loop sleeps as ``pace`` says."""
    patched("start_client_internal", "time.sleep")
    private("start_client_internal").time = pace


@dataclass
class Turn:
    """The id of the message that was stored last: the SuperNode takes no other before that one is answered."""

    asked: str = ""


def _answer_in_turn(turn: Turn) -> None:
    """The SuperNode waits for the answer to the message it has just taken, not for any answer.

    Otherwise the late answer to a message of a run that is over passes for it, and each answer after that leaves
    only when the next question comes: to the server the site is silent until it is started again.
    """
    push_once = patched("start_client_internal", "_push_messages")

    def push_messages(state: Any, object_store: Any, send: Callable[..., Any], push_object: Any) -> None:
        answered: set[str] = set()

        def send_and_note(message: Any, tree: Any, duration: float) -> Any:
            answered.add(message.metadata.reply_to_message_id)
            return send(message, tree, duration)

        while turn.asked not in answered:
            push_once(state, object_store, send_and_note, push_object)

    private("start_client_internal")._push_messages = push_messages


def _watch_connection(
    check_bundle: CheckBundle, on_connected: Callable[[int], None], on_message: Callable[[str], None]
) -> None:
    """Everything that comes through the SuperNode's connection is checked and told."""
    connect = patched("start_client_internal", "http_request_response")
    told = _told(_guarded(connect, check_bundle, on_message), on_connected)
    private("start_client_internal").http_request_response = told


def _say_goodbye(settings: NodeSettings) -> None:
    """End the former session of this site, in case it was killed.

    Otherwise the server believes for a minute that it lives: it refuses the new one, and waits for its answers.
    """
    DeactivateNodeRequest, FleetHttpClient = private("DeactivateNodeRequest"), private("FleetHttpClient")
    NodeAuthHttpInterceptor = private("NodeAuthHttpInterceptor")
    RuntimeVersionHttpInterceptor = private("RuntimeVersionHttpInterceptor")

    keys = (settings.private_key, settings.private_key.public_key())
    interceptors = [RuntimeVersionHttpInterceptor(component_name="SuperNode"), NodeAuthHttpInterceptor(*keys)]
    client = FleetHttpClient.from_server_address(
        settings.address, insecure=False, root_certificates=settings.authority, interceptors=interceptors
    )
    with client, contextlib.suppress(Exception):  # ended in order, or not known any more: all the same
        client.DeactivateNode(DeactivateNodeRequest(node_id=settings.former_node))
        time.sleep(NOTICED_S)  # a round that waits for the former session looks about three times a second


def _told(connect: Callable[..., Any], on_connected: Callable[[int], None]) -> Callable[..., Any]:
    @contextlib.contextmanager
    def told_connect(*args: Any, **kwargs: Any) -> Iterator[tuple[Any, ...]]:
        with connect(*args, **kwargs) as connection:
            on_connected(int(connection[0]))
            yield connection

    return told_connect


def _start_local_interface(states: Any, secret: bytes) -> str:
    """Serve the SuperNode's local interface on a free loopback port, return its address."""
    import uvicorn

    add_exit_handler: Any = private("add_exit_handler")
    create_app: Any = private("create_app")

    app = create_app(state_factory=states, superexec_auth_secret=secret)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, access_log=False, log_level="warning"))
    thread = threading.Thread(target=server.run, name="local-interface", daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.01)
    if not server.started:
        raise WorkFailedError("the local interface does not start", hint="look for a full disk or no free ports")
    add_exit_handler(lambda: setattr(server, "should_exit", True))
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"127.0.0.1:{port}"


def _guarded(
    connect: Callable[..., Any], check_bundle: CheckBundle, stored: Callable[[str], None]
) -> Callable[..., Any]:
    """Wrap Flower's connection so that everything a server claims about a run passes ``check_bundle``."""

    @contextlib.contextmanager
    def guarded_connect(*args: Any, **kwargs: Any) -> Iterator[tuple[Any, ...]]:
        with connect(*args, **kwargs) as connection:
            node_id, receive, send, get_run, get_fab, pull, push, confirm = connection
            get_run, get_fab = _guarded_bundle(get_run, get_fab, check_bundle)

            def confirm_and_tell(run_id: int, message_id: str) -> None:
                _unless_over(confirm)(run_id, message_id)
                stored(message_id)

            def send_without_duration(message: Any, tree: Any, _duration: float) -> Any:
                return send(message, tree, 0.0)

            pull = _unless_over(pull)
            yield node_id, receive, send_without_duration, get_run, get_fab, pull, push, confirm_and_tell

    return guarded_connect


def _unless_over(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call; a run that ended meanwhile is an error of the message, which Flower then drops with its task.

    Flower's own word for it is no ``Exception``: the message would be dropped and its task be answered all the same.
    """
    RunNotRunningException = private("RunNotRunningException")

    def called(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except RunNotRunningException as over:
            raise WorkFailedError("the run is over") from over

    return called


def _guarded_bundle(get_run: Any, get_fab: Any, check_bundle: CheckBundle) -> tuple[Any, Any]:
    get_fab_metadata: Any = private("get_fab_metadata")
    TaskType = private("TaskType")
    Fab = private("Fab")
    RunNotRunningException = private("RunNotRunningException")

    runs: dict[int, Any] = {}

    def remembered_run(run_id: int) -> Any:
        runs[run_id] = get_run(run_id)
        return runs[run_id]

    def checked_bundle(claimed: str, run_id: int) -> Any:
        try:
            check_bundle(claimed, None)
            content = bytes(get_fab(claimed, run_id).content)
            check_bundle(claimed, content)
        except RefusedError as error:  # Flower's word for "drop this message and go on"
            raise RunNotRunningException from error
        run = runs.pop(run_id)  # nothing the server says about the run may choose what is loaded
        run.fab_id, run.fab_version = get_fab_metadata(content)
        run.override_config, run.primary_task_type = {}, TaskType.SERVER_APP
        return Fab(claimed, content, {})

    return remembered_run, checked_bundle


class TaskSource:
    """Takes waiting tasks from the SuperNode's local interface."""

    def __init__(self, address: str, secret: bytes) -> None:
        RuntimeVersionHttpInterceptor = private("RuntimeVersionHttpInterceptor")
        SuperExecAuthHttpInterceptor = private("SuperExecAuthHttpInterceptor")
        RuntimeHttpClient = private("RuntimeHttpClient")

        self._client = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(
                    master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
                ),
            ],
        )

    def take_task(self) -> str | None:
        """The token of a waiting task, or None."""
        AcquireTaskRequest = private("AcquireTaskRequest")
        TaskType = private("TaskType")

        answer = self._client.AcquireTask(AcquireTaskRequest(supported_task_types={TaskType.CLIENT_APP}))
        return str(answer.token) if answer.HasField("task") and answer.token else None


def import_client_task() -> Any:
    """Import all that answering a message needs, before the message is there."""
    return private("run_clientapp")


def run_client_task(address: str, token: str, parent_pid: int) -> None:
    """Answer one message in this process, then exit it.

    Guarantee: what the server learns of a failure is the word ``failed``, and what the log learns is the type
    of the error and its place in the program, never its text.
    """
    _log_without_text()
    _answer_without_text()
    import_client_task().run_clientapp(
        runtime_api_address=address, token=token, insecure=True, parent_pid=parent_pid
    )


def _log_without_text() -> None:
    """Flower logs of a failed client app where it failed, not what it said."""
    flower_log = patched("run_clientapp", "log")

    def log(level: int, text: str, *values: object, exc_info: Any = None) -> None:
        if isinstance(exc_info, BaseException):
            flower_log(level, "client app failed: %s", _place_of(exc_info))
        else:
            flower_log(level, text, *values)

    import_client_task().log = log


def _answer_without_text() -> None:
    """Flower tells the server of a failed client app that it failed, no more."""
    flower_error = patched("run_clientapp", "Error")
    import_client_task().Error = lambda code, reason=None: flower_error(code=code, reason="failed")  # noqa: ARG005


def _place_of(error: BaseException) -> str:
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__} in " + "".join(f"{Path(f.filename).name}:{f.lineno}" for f in last)
