"""Flower's ``Grid`` on one machine: the same ServerApp and ClientApp, no network, no Ray.

Every message is serialised, as it would be on a network: byte counts are honest, and no two nodes share
an object that could change. A model's bytes travel beside the message, to each worker once. A node's ``Context`` lives here as bytes and visits a worker process only while its message is
answered, so nothing of one site can be seen by another. Module globals of a worker survive between
messages (in a deployment they do not), which is why ``client`` keeps caches there and never state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

import common.flower as flower
from simulations.workers import Done, Shared, WorkerPool

NODE_LOST = 1
APP_FAILED = 2
_POLL_S = 0.3  # as long as the server's longest pause: it never sleeps while a worker has nothing to do
_LARGE_BYTES = 1 << 16  # a value that is not put into a message for the way to a worker and back

LossPlan = Callable[[int, str, str], bool]  # (node id, group of the message, message type) -> is the node lost


def nothing_lost(_node: int, _group: str, _kind: str) -> bool:
    """The plan of a quiet day."""
    return False


@dataclass(frozen=True)
class Node:
    """One simulated SuperNode: its id and the ``node_config`` its ClientApp sees."""

    node_id: int
    config: dict[str, Any]


@dataclass
class _NodeState:
    node: Node
    context: bytes = b""


@dataclass
class InProcessGrid(Grid):
    """A Grid over simulated nodes, answered by a pool of worker processes.

    ``pool=None`` answers inside this process (tests). A node that ``loss`` says is lost, and a node whose
    worker died, gets an error reply, as a dead SuperNode does in Flower's deployment runtime.
    """

    run_id: int
    nodes: Iterable[Node]
    pool: WorkerPool | None = None
    loss: LossPlan = nothing_lost
    run_config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._states = {node.node_id: _NodeState(node) for node in self.nodes}
        self._replies: dict[str, Message] = {}
        self._jobs: dict[int, tuple[str, Message]] = {}
        self._latest: Shared | None = None
        flower.set_task_identity(self.run_id)

    def set_run(self, run: Any) -> None:
        """Accept Flower's call; the run is fixed when the grid is made."""

    @property
    def run(self) -> Any:
        """Run information: only the id exists here."""
        return self.run_id

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message (Flower's deprecated way; ours is ``common.flower.instruction``)."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Ids of all simulated nodes."""
        return list(self._states)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages to their nodes; work starts at once where a worker is free."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there, waiting a moment if there is none yet."""
        wanted = list(message_ids)
        if not any(i in self._replies for i in wanted):
            self._collect()
        return [self._replies.pop(i) for i in wanted if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull until all replies are in or ``timeout`` seconds have passed."""
        import time

        end = time.monotonic() + timeout if timeout is not None else float("inf")
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        while waiting and time.monotonic() < end:
            for answer in self.pull_messages(list(waiting)):
                waiting.discard(answer.metadata.reply_to_message_id)
                replies.append(answer)
        return replies

    def _push(self, message: Message) -> str:
        message_id = uuid4().hex
        flower.with_message_id(message, message_id)
        state = self._states[message.metadata.dst_node_id]
        node = state.node
        if self.loss(node.node_id, message.metadata.group_id, message.metadata.message_type):
            self._replies[message_id] = flower.error_reply(message, NODE_LOST, "node lost (scripted)")
            return message_id
        large = flower.take_out(message, _LARGE_BYTES)
        beside = [self._shared(value) for value in large.values()]
        told = (flower.message_bytes(message), state.context, node.config, dict(self.run_config), tuple(large))
        header = flower.header_only(message)
        if self.pool is None:
            self._take(message_id, header, Done(0, answer(*told, *large.values())))
        else:
            self._jobs[self.pool.submit(answer, *told, *beside, home=str(node.config.get("site", "")))] = (
                message_id,
                header,
            )
        return message_id

    def _collect(self) -> None:
        if self.pool is not None:
            for done in self.pool.collect(_POLL_S):
                if done.job in self._jobs:
                    self._take(*self._jobs.pop(done.job), done)

    def _take(self, message_id: str, message: Message, done: Done) -> None:
        if done.failure is not None:
            self._replies[message_id] = flower.error_reply(message, APP_FAILED, done.failure.code)
            return
        reply, context, large = done.value
        self._states[message.metadata.dst_node_id].context = context
        self._replies[message_id] = flower.put_in(flower.message_from(reply), large)

    def _shared(self, value: bytes) -> Shared:
        """The same for the same object: the sites of a round are sent one model."""
        if self._latest is None or self._latest.value is not value:
            self._latest = Shared(value)
        return self._latest


def answer(
    message: bytes,
    context: bytes,
    node_config: dict[str, Any],
    run_config: dict[str, Any],
    names: tuple[str, ...] = (),
    *large: bytes,
) -> tuple[bytes, bytes, dict[str, bytes]]:
    """Let the ClientApp answer one message, in this process.

    ``names``, ``large``: what goes into the message. Returns: reply and new context state as bytes, and what goes into the
    reply.
    """
    from client.app import app

    request = flower.put_in(flower.message_from(message), dict(zip(names, large, strict=True)))
    flower.set_task_identity(request.metadata.run_id, request.metadata.dst_node_id)
    here = flower.new_context(request.metadata.run_id, request.metadata.dst_node_id, node_config, run_config)
    if context:
        flower.restore_state(here, context)
    reply = app(request, here)
    flower.set_task_identity(request.metadata.run_id)
    beside = flower.take_out(reply, _LARGE_BYTES)
    return flower.message_bytes(reply), flower.state_bytes(here), beside
