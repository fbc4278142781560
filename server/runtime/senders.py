"""A site speaks for itself only: what it pushes must name its own node as the sender.

Flower checks the key of a node against the node that a request names, and the sender that a message names against
the receiver of the question. It does not compare the two, so one site could answer in the name of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.flower import private
from server.runtime.gate import refuse

PUSH_PATH = "/v1/fleet/push-messages"
MOST_BYTES = 4_000_000  # an envelope has no content: that follows in pushes of its own

AsgiApp = Callable[..., Any]


def own_words(app: AsgiApp) -> AsgiApp:
    """Refuse every message whose sender is not the node that the request is for.

    Guarantee: with Flower's node authentication behind it, a message that gets through was sent by whoever has the
    key under which its sender is registered: that of the kit, ``nodes/NAME.pub``.
    """

    async def checked(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != PUSH_PATH:
            await app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            await refuse(send, 413)
        elif not speaks_for_itself(body):
            await refuse(send, 403)
        else:
            await app(scope, _once(body, receive), send)

    return checked


def speaks_for_itself(body: bytes) -> bool:
    """Whether all messages of a serialised ``PushMessagesRequest`` name the request's own node as their sender."""
    try:
        request = private("PushMessagesRequest").FromString(body)
    except Exception:  # protobuf's own error: whatever it is, it is no such request
        return False
    return all(message.metadata.src_node_id == request.node.node_id for message in request.messages_list)


async def _body(receive: Any) -> bytes | None:
    """The whole body, None if it is too long or the caller hung up."""
    parts, size, more = [], 0, True
    while more:
        part = await receive()
        if part["type"] != "http.request":
            return None
        parts.append(part.get("body", b""))
        size, more = size + len(parts[-1]), part.get("more_body", False)
        if size > MOST_BYTES:
            return None
    return b"".join(parts)


def _once(body: bytes, receive: Any) -> Any:
    """A ``receive`` that gives the body again, then whatever comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> dict[str, Any]:
        return waiting.pop() if waiting else await receive()

    return give
