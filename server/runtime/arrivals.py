"""Lets sites, and the server app, wait at the server for their messages instead of asking for them again and again.

Two wrappers around Flower's server: ``telling`` sees a message come from one side, ``patient`` keeps the other side's
question open until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from common.flower import private

HOLD_S = 10.0  # below what clients, and firewalls between, wait for
HOLD_APP_S = 0.5  # the server app looks at its deadline, and whether it is to stop, in between
STALLED_S = 1.0

AsgiApp = Callable[..., Any]


@dataclass(frozen=True)
class Way:
    """One direction of messages: where they come in, and their parts, where they are asked for, and for how long."""

    messages: str
    part: str
    waiting: str
    hold_s: float
    receipt: str


TO_SITES = Way(
    "/v1/runtime/push-messages",
    "/v1/runtime/push-object",
    "/v1/fleet/pull-messages",
    HOLD_S,
    "PushAppMessagesResponse",
)
FROM_SITES = Way(
    "/v1/fleet/push-messages",
    "/v1/fleet/push-object",
    "/v1/runtime/pull-messages",
    HOLD_APP_S,
    "PushMessagesResponse",
)


class Arrivals:
    """Wakes those who wait for a message when its last part has come.

    Whoever came too early would have to ask for the missing parts again and again.
    """

    def __init__(self, way: Way = TO_SITES) -> None:
        self.way = way
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._missing = 0
        self.ended = False

    def announced(self, parts: int) -> None:
        """Messages have come whose content follows in so many parts."""
        self._missing += parts
        self._look()

    def part_came(self) -> None:
        """One of them is here."""
        self._missing -= 1
        self._look()

    def end(self) -> None:
        """The server stops: nobody waits any more."""
        self.ended = True
        self._wake()

    async def next(self) -> None:
        """Return at the next arrival."""
        await self._changed.wait()

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._missing <= 0:
            self._wake()
        else:
            self._timer = asyncio.get_running_loop().call_later(STALLED_S, self._wake)

    def _wake(self) -> None:
        self._missing = 0
        self._changed.set()
        self._changed = asyncio.Event()


def telling(app: AsgiApp, arrivals: Arrivals) -> AsgiApp:
    """Let ``arrivals`` know of what is sent."""

    async def told(scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path == arrivals.way.messages:
            answer = _Answer()
            await app(scope, receive, _both(send, answer))
            arrivals.announced(_parts_to_come(answer, arrivals.way.receipt))
            return
        await app(scope, receive, send)
        if path == arrivals.way.part:
            arrivals.part_came()

    return told


def _both(send: Any, answer: _Answer) -> Any:
    async def send_and_keep(part: dict[str, Any]) -> None:
        answer.parts.append(part)
        await send(part)

    return send_and_keep


def _parts_to_come(answer: _Answer, receipt: str) -> int:
    """How many objects the server asks for; none if it refused."""
    if answer.status != 200:
        return 0
    return len(private(receipt).FromString(answer.body).objects_to_push)


def patient(app: AsgiApp, arrivals: Arrivals) -> AsgiApp:
    """Keep an "is there anything for me?" until there is, or for so long as the way of ``arrivals`` says.

    Asking five times a second costs each site a fifth of a second per exchange, and the server, with thirty
    sites, more than a core.
    """

    newest: dict[bytes, asyncio.Future[Any]] = {}  # who asks -> done as soon as the same asks again

    async def held(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != arrivals.way.waiting:
            await app(scope, receive, send)
            return
        request = await _whole(receive)
        loop = asyncio.get_running_loop()
        end = loop.time() + arrivals.way.hold_s
        gone = asyncio.ensure_future(receive())  # resolves when they hang up
        replaced = _in_place_of(newest, _who(scope))
        try:
            while True:
                arrival = asyncio.ensure_future(arrivals.next())
                answer = await _answer(app, scope, request)
                if answer.says_something or arrivals.ended or loop.time() >= end:
                    arrival.cancel()
                    break
                await asyncio.wait(
                    {arrival, gone, replaced}, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED
                )
                arrival.cancel()
                if gone.done():  # a message handed to nobody would be lost
                    return
                if replaced.done():
                    break
        finally:
            gone.cancel()
            if newest.get(_who(scope)) is replaced:
                del newest[_who(scope)]
        for part in answer.parts:
            await send(part)

    return held


def _who(scope: dict[str, Any]) -> bytes:
    """The key of the site that asks, which the gate has checked; empty for the server app."""
    return next((value for name, value in scope.get("headers", ()) if name == b"flwr-public-key"), b"")


def _in_place_of(newest: dict[bytes, asyncio.Future[Any]], who: bytes) -> asyncio.Future[Any]:
    """Let go of this site's earlier question: a site that asks again has lost the answer to it.

    A site that was started anew behind a cut line, a proxy or a firewall has left a question that nobody hangs up; the
    first message to it would go there.
    """
    replaced: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if who:
        if who in newest and not newest[who].done():
            newest[who].set_result(None)
        newest[who] = replaced
    return replaced


@dataclass
class _Answer:
    parts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The status that was sent, 0 if none was."""
        return next((int(part["status"]) for part in self.parts if "status" in part), 0)

    @property
    def body(self) -> bytes:
        """All of the body."""
        return b"".join(part.get("body", b"") for part in self.parts)

    @property
    def says_something(self) -> bool:
        """A message, or an error: anything but an empty yes."""
        return self.status != 200 or bool(self.body)


async def _whole(receive: Any) -> dict[str, Any]:
    parts, more = [], True
    while more:
        part = await receive()
        if part["type"] != "http.request":
            return dict(part)
        parts.append(part.get("body", b""))
        more = part.get("more_body", False)
    return {"type": "http.request", "body": b"".join(parts), "more_body": False}


async def _answer(app: AsgiApp, scope: dict[str, Any], request: dict[str, Any]) -> _Answer:
    """What the app says to a request, kept back. Scope and state are copies: the request may be asked again."""
    answer, asked = _Answer(), False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()  # the app listens for a hang-up; that is for the caller to see
        asked = True
        return dict(request)

    async def send(part: dict[str, Any]) -> None:
        answer.parts.append(part)

    await app({**scope, "state": dict(scope.get("state") or {})}, receive, send)
    return answer
