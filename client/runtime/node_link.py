"""Flower's deployment runtime at a site: the SuperNode, its pace and its connection.

Flower is imported late, by name from the table of ``common/flower.py``. The decision what may run is the caller's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from client.runtime.tasks import Tasks
from common.errors import RefusedError, WorkFailedError
from common.flower import patched, private, retry_pulls_quickly

BUSY_WINDOW_S = 120.0
BUSY_POLL_S = 0.2
IDLE_POLL_S = 1.0
HELD_S = 1.0  # a server that kept the question for so long keeps it until there is something to say
NOTICED_S = 1.0

CheckBundle = Callable[[str, bytes | None], None]


@dataclass(frozen=True)
class NodeSettings:
    """What a SuperNode needs. ``private_key`` is the EC node key.

    ``config`` is what the site says to its own client app; nothing in it comes from a server. ``former_node``:
    the id of a session of this site that may have ended without a word, 0 if there is none.
    """

    address: str
    authority: bytes
    private_key: Any
    config: Mapping[str, bool | float | int | str] = field(default_factory=dict)
    former_node: int = 0


@dataclass(frozen=True)
class NodeEvents:
    """What the caller of ``run_supernode`` hears: whose tasks it is to answer, the node id once the server has let the
    site in, and that a message is waiting."""

    on_ready: Callable[[Tasks], None]
    on_connected: Callable[[int], None]
    on_message: Callable[[], None]


class Pace:
    """Stands in for ``time`` in the SuperNode's loop: quick while messages come, quiet otherwise."""

    def __init__(self, answered: threading.Event) -> None:
        self._answered = answered
        self._last_message = 0.0
        self._awake_since = time.monotonic()

    def message_seen(self) -> None:
        """Poll quickly from now on."""
        self._last_message = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep for less than Flower asks: its 3 s are idle waits, its 0.5 s wait for a local answer, and end with it.

        Not at all where the server itself keeps the question until a message comes (as ours does).
        """
        if seconds < 1:
            self._answered.wait(seconds)
            self._answered.clear()
        elif time.monotonic() - self._awake_since < HELD_S:
            busy = time.monotonic() - self._last_message < BUSY_WINDOW_S
            time.sleep(min(seconds, BUSY_POLL_S if busy else IDLE_POLL_S))
        self._awake_since = time.monotonic()


def run_supernode(settings: NodeSettings, check_bundle: CheckBundle, events: NodeEvents) -> None:
    """Connect to the SuperLink and serve until the process ends; messages wait in ``Tasks``.

    Guarantee: a bundle for which ``check_bundle(claimed digest, content)`` raises RefusedError is neither
    stored nor handed to any other process, and its message is dropped.
    """
    internal: Any = private("start_client_internal")
    ObjectStoreFactory = private("ObjectStoreFactory")
    NodeStateFactory = private("NodeStateFactory")

    if settings.former_node:
        _say_goodbye(settings)
    retry_pulls_quickly()
    states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    tasks = Tasks(states.state())
    pace = Pace(tasks.answered)
    _keep_pace(pace)

    turn = Turn()
    _answer_in_turn(turn)

    def message_stored(message_id: str) -> None:
        turn.asked = message_id
        pace.message_seen()
        events.on_message()

    _watch_connection(check_bundle, events.on_connected, message_stored)
    events.on_ready(tasks)
    internal.start_client_internal(
        state_factory=states,
        server_address=settings.address,
        node_config=dict(settings.config),
        root_certificates=settings.authority,
        insecure=False,
        authentication_keys=(settings.private_key, settings.private_key.public_key()),
        isolation="process",
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
