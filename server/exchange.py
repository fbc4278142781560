"""One exchange: ask every site of a cohort, wait until all have answered or the deadline has passed.

Knows Flower's Grid and nothing of what the messages mean. A site that does not answer, answers late, or
whose node failed is simply *lost*; a site that says no gives its code. Nobody waits for the dead.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

import common.flower as flower
from common.flower import Parts
from common.plain_text import word_or

LOST = "lost"
LATE = "late"
MALFORMED = "malformed"
FAILED = "failed"
_POLL_S = 0.02
_LONGEST_POLL_S = 0.3

Progress = Callable[[str, int, int], None]  # phase, sites done, sites asked


@dataclass(frozen=True)
class Answer:
    """A site's reply: ``parts`` if it answered, else ``error`` (``lost``, ``late``, ``malformed`` or the site's own code)."""

    site: str
    parts: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the site answered."""
        return not self.error


def quiet(_phase: str, _done: int, _total: int) -> None:
    """A progress callback that says nothing."""


@dataclass
class Exchange:
    """Push and pull between the server and named sites.

    ``bytes_down`` (to sites) and ``bytes_up`` (from sites) count what the messages carry, without the
    envelope of some 200 bytes that Flower puts around each.
    """

    grid: Grid
    nodes: dict[str, int]
    progress: Progress = quiet
    bytes_down: int = 0
    bytes_up: int = 0

    def reachable(self, sites: Iterable[str]) -> list[str]:
        """Those of the sites whose node is connected now; none while the server itself does not answer."""
        try:
            there = set(self.grid.get_node_ids())
        except flower.transport_errors():
            return []
        return [site for site in sites if self.nodes.get(site) in there]

    def ask(
        self, phase: str, requests: Mapping[str, Parts], *, deadline_s: float, group: str
    ) -> dict[str, Answer]:
        """Send each site its request and gather answers until all are in or ``deadline_s`` has passed."""
        messages = [
            flower.instruction(self.nodes[s], f"query.{phase}", parts, group) for s, parts in requests.items()
        ]
        self.bytes_down += sum(flower.payload_bytes(parts) for parts in requests.values())
        ids = self._push(messages)
        waiting = dict(zip(ids, requests, strict=False))
        answers: dict[str, Answer] = {}
        started = time.monotonic()
        self.progress(phase, 0, len(requests))
        while waiting and (elapsed := time.monotonic() - started) < deadline_s:
            for message in self._pull(waiting, elapsed):
                site = waiting[message.metadata.reply_to_message_id]
                if not self._comes_from(self.nodes[site], message):
                    continue
                del waiting[message.metadata.reply_to_message_id]
                answers[site] = self._read(site, message)
                self.progress(phase, len(answers), len(requests))
        return {site: answers.get(site, Answer(site, error=LATE if ids else LOST)) for site in requests}

    def _push(self, messages: list[Message]) -> list[str]:
        """Ids of the messages; none if the server does not answer: then nothing has been asked."""
        try:
            return list(self.grid.push_messages(messages))
        except flower.transport_errors():
            return []

    def _pull(self, waiting: Iterable[str], elapsed_s: float) -> list[Message]:
        """Whatever has come. An empty look is followed by a pause that grows with the wait: asking costs.

        A grid that itself waits for something to come is asked again at once.
        """
        known, began = set(waiting), time.monotonic()
        try:
            pulled = list(self.grid.pull_messages(list(known)))
        except flower.transport_errors():  # it may come back before the deadline
            pulled = []
        except Exception as error:  # Flower could not read what a site pushed: what came with it is late
            logging.getLogger("fedcart").error("a message could not be read: %s", type(error).__name__)
            pulled = []
        replies = [m for m in pulled if m.metadata.reply_to_message_id in known]
        if not replies:
            pause = min(_LONGEST_POLL_S, max(_POLL_S, 0.1 * elapsed_s))
            time.sleep(max(0.0, pause - (time.monotonic() - began)))
        return replies

    @staticmethod
    def _comes_from(node: int, message: Message) -> bool:
        """Whether it is of the node that proved to be the site, or the SuperLink's own word that this node is gone."""
        sender = message.metadata.src_node_id
        return sender == node or (sender == flower.SERVER_NODE_ID and message.has_error())

    def _read(self, site: str, message: Message) -> Answer:
        """What a message says; one that cannot be read is the fault of its site, and no other's."""
        if message.has_error():
            return Answer(site, error=LOST)
        try:
            parts = flower.parts_of(message.content)
            self.bytes_up += flower.payload_bytes(parts)
        except Exception:  # Flower's own types, filled by a stranger
            return Answer(site, error=MALFORMED)
        if "error" in parts:
            return Answer(site, parts, error=word_or(parts["error"], FAILED))
        return Answer(site, parts)
