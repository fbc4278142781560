"""One exchange: ask every site of a cohort, wait until all have answered or the deadline has passed.

Knows Flower's Grid and nothing of what the messages mean. A site that does not answer, answers late, or
whose node failed is simply *lost*; a site that says no gives its code. Nobody waits for the dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

import common.flower as flower
from common.flower import Parts

LOST = "lost"
LATE = "late"
_POLL_S = 0.02
_LONGEST_POLL_S = 0.3

Progress = Callable[[str, int, int], None]  # phase, sites done, sites asked


@dataclass(frozen=True)
class Answer:
    """A site's reply: ``parts`` if it answered, else ``error`` (``lost``, ``late`` or the site's own code)."""

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

    def ask(
        self, phase: str, requests: Mapping[str, Parts], *, deadline_s: float, group: str
    ) -> dict[str, Answer]:
        """Send each site its request and gather answers until all are in or ``deadline_s`` has passed."""
        messages = [
            flower.instruction(self.nodes[s], f"query.{phase}", parts, group) for s, parts in requests.items()
        ]
        self.bytes_down += sum(flower.payload_bytes(parts) for parts in requests.values())
        ids = list(self.grid.push_messages(messages))
        waiting = dict(zip(ids, requests, strict=False))
        answers: dict[str, Answer] = {}
        started = time.monotonic()
        self.progress(phase, 0, len(requests))
        while waiting and (elapsed := time.monotonic() - started) < deadline_s:
            for message in self._pull(waiting, elapsed):
                site = waiting.pop(message.metadata.reply_to_message_id)
                answers[site] = self._read(site, message)
                self.progress(phase, len(answers), len(requests))
        return {site: answers.get(site, Answer(site, error=LATE)) for site in requests}

    def _pull(self, waiting: Iterable[str], elapsed_s: float) -> list[Message]:
        """Whatever has come. An empty look is followed by a pause that grows with the wait: asking costs."""
        known = set(waiting)
        found = [m for m in self.grid.pull_messages(list(known)) if m.metadata.reply_to_message_id in known]
        if not found:
            time.sleep(min(_LONGEST_POLL_S, max(_POLL_S, 0.1 * elapsed_s)))
        return found

    def _read(self, site: str, message: Message) -> Answer:
        if message.has_error():
            return Answer(site, error=LOST)
        parts = flower.parts_of(message.content)
        self.bytes_up += flower.payload_bytes(parts)
        if "error" in parts:
            return Answer(site, parts, error=str(parts["error"])[:40] or "failed")
        return Answer(site, parts)
