"""Who gets a word in at the public port, and how much: decided from the headers, before a byte of a body is read.

Flower authenticates a request after it has read all of it; a stranger could so fill the server's memory. The same
signature stands in the headers, so it is checked here first.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from common.flower import private
from common.secagg.fixedpoint import MAX_LENGTH

AsgiApp = Callable[..., Any]
OBJECT_PATH = "/v1/fleet/push-object"


@dataclass(frozen=True)
class BodyLimits:
    """What an admitted site may send. A body may take ``grace_s``, and longer as long as it comes at ``bytes_per_s``."""

    object_bytes: int = 4 * MAX_LENGTH + (1 << 20)  # the longest masked vector there can be
    other_bytes: int = 1 << 24
    grace_s: float = 30.0
    bytes_per_s: float = 16_384.0

    def largest(self, path: str) -> int:
        """The most bytes of a body."""
        return self.object_bytes if path == OBJECT_PATH else self.other_bytes


class _BodyRefusedError(Exception):
    """A body is too large, or too slow. ``status``: of the answer, None if nobody is there to read one."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def admitted_only(app: AsgiApp, keys: Iterable[bytes], limits: BodyLimits | None = None) -> AsgiApp:
    """Pass on the requests that one of these node keys (PEM) has signed, their bodies within bounds.

    Guarantee: of anybody else's request nothing but the headers is read.
    """
    admitted, bounds = frozenset(keys), limits or BodyLimits()

    async def guarded(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if not await asyncio.to_thread(_is_signed, dict(scope["headers"]), admitted):
            await refuse(send, 403)  # at 401 a SuperNode would end as if all were well
            return
        size = dict(scope["headers"]).get(b"content-length", b"0")
        if not size.isdigit() or len(size) > 18 or int(size) > bounds.largest(scope["path"]):
            await refuse(send, 413)
            return
        body, sent = _Body(receive, bounds, bounds.largest(scope["path"])), _Sent(send)
        try:
            await app(scope, body.receive, sent.send)
        except _BodyRefusedError as error:
            if not sent.begun:
                await refuse(send, error.status)

    return guarded


@dataclass
class _Body:
    """One request's body on its way to the app."""

    source: Any
    bounds: BodyLimits
    largest: int
    began: float = field(default_factory=time.monotonic)
    received: int = 0
    complete: bool = False

    async def receive(self) -> dict[str, Any]:
        """The next part. Raises: _BodyRefusedError."""
        if self.complete:  # what follows is the site hanging up, which has no deadline
            return dict(await self.source())
        end = self.began + self.bounds.grace_s + self.received / self.bounds.bytes_per_s
        try:
            part = await asyncio.wait_for(self.source(), max(0.0, end - time.monotonic()))
        except TimeoutError:
            raise _BodyRefusedError(408) from None
        self.received += len(part.get("body", b""))
        if self.received > self.largest:
            raise _BodyRefusedError(413)
        self.complete = not part.get("more_body", False)
        return dict(part)


@dataclass
class _Sent:
    """Whether an answer has begun."""

    target: Any
    begun: bool = False

    async def send(self, part: dict[str, Any]) -> None:
        """Pass a part of the answer on."""
        self.begun = True
        await self.target(part)


def _is_signed(headers: dict[bytes, bytes], admitted: frozenset[bytes]) -> bool:
    """Whether an admitted key has signed the time in the headers; how old it may be is Flower's to check."""
    try:
        key = b64decode(headers[b"flwr-public-key"], validate=True)
        signature = b64decode(headers[b"flwr-signature"], validate=True)
        signed: bytes = headers[private("TIMESTAMP_HEADER").encode()]
    except (KeyError, ValueError):
        return False
    if key not in admitted or len(signed) > 64:
        return False
    return bool(private("verify_signature")(private("bytes_to_public_key")(key), signed, signature))


async def refuse(send: Any, status: int) -> None:
    """Answer without a body, and end the connection: what else comes over it is not read."""
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
