"""What stands before the application: who may come in, how much is read, how long it may take, what is measured.

Guarantee: nothing that a caller sends appears in a log; a failure is told by its kind and the address's template.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from client.serving.metrics import Clock
from common.errors import BadInputError
from common.loopback import is_asked_locally
from common.strict_json import one_line

MOST_BODY = 1 << 20
MOST_ADDRESS = 16_384  # bytes of path and query
BODY_TIMEOUT_S = 10.0
OPEN_PATHS = ("/", "/healthz", "/readyz")  # say nothing about anybody
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_log = logging.getLogger("fedcart.serve")


class RefusedRequestError(BadInputError):
    """A request that is not let in, with its HTTP status."""

    code = "refused-request"

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Door:
    """An ASGI application around another. ``token``: what callers must show, empty where none is asked for.

    Without a token only pages and programs of this machine may ask: a web page that somebody has open must not.
    """

    def __init__(self, token: bytes, *, local: bool, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.token, self.local, self._timeout_s = token, local, body_timeout_s
        self.app: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None
        self.clock, self.ready = Clock(), True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self.app is None or scope["type"] != "http":
            if scope["type"] == "lifespan":
                await _lifespan(receive, send)
            return
        begin, status, begun = time.perf_counter(), 500, False

        async def answered(message: MutableMapping[str, Any]) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = int(message["status"]), True
            await send(message)

        try:
            self._let_in(scope)
            body = await self._body(scope, receive)
            await self.app(scope, _once(body, receive), answered)
        except RefusedRequestError as error:
            status = error.status
            await refuse(send, error)
        except Exception as error:
            _log.error("%s %s failed: %s", scope["method"], template(scope), type(error).__name__)
            if not begun:
                await refuse(send, RefusedRequestError(500, "the program failed", "see the log of the service"))
        finally:
            self.clock.add(template(scope), status, time.perf_counter() - begin)

    def _let_in(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if len(scope.get("raw_path") or b"") + len(scope.get("query_string", b"")) > MOST_ADDRESS:
            raise RefusedRequestError(400, "the address is too long", f"at most {MOST_ADDRESS} bytes")
        if self.token and scope["path"] not in OPEN_PATHS:
            kind, _, shown = headers.get(b"authorization", b"").partition(b" ")
            if not hmac.compare_digest(shown.strip(), self.token) or kind.lower() != b"bearer":
                raise RefusedRequestError(401, "the token is missing or wrong", "Authorization: Bearer TOKEN")
        if self.local and not self.token:
            if not is_asked_locally(headers.get(b"host", b"").decode("latin-1")):
                raise RefusedRequestError(
                    403, "asked under a foreign name", "use 127.0.0.1, or serve with a token"
                )
            origin = headers.get(b"origin")
            if origin is not None and origin.partition(b"://")[2] != headers.get(b"host"):
                raise RefusedRequestError(403, "asked from a foreign page", "serve with a token")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The body, at most ``MOST_BODY`` bytes of it. Raises: RefusedRequestError."""
        if scope["method"] in ("GET", "HEAD", "DELETE"):
            return b""
        headers = dict(scope["headers"])
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
            raise RefusedRequestError(415, "the body is not said to be JSON", "Content-Type: application/json")
        said = headers.get(b"content-length", b"0")
        if said.isdigit() and int(said[:12]) > MOST_BODY:
            raise _too_large()
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedRequestError(400, "the body ended early", "send it whole")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > MOST_BODY:
                        raise _too_large()
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise RefusedRequestError(408, "the body did not come in time", "send it at once") from None


def _too_large() -> RefusedRequestError:
    return RefusedRequestError(413, "the body is too large", f"at most {MOST_BODY} bytes, send it in parts")


def template(scope: Scope) -> str:
    """The address without what names anybody."""
    first = str(scope["path"]).split("/")[1] if str(scope["path"]).startswith("/") else ""
    known = (
        "events",
        "next",
        "intent",
        "explain",
        "forecast",
        "verdicts",
        "consumers",
        "healthz",
        "readyz",
        "metrics",
    )
    return f"/{first}" if first in (*known, "openapi.json", "") else "other"


def _once(body: bytes, receive: Receive) -> Receive:
    given = False

    async def next_message() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


async def refuse(send: Send, error: RefusedRequestError) -> None:
    """Answer with an error; the connection is closed, for the body may not have been read."""
    content = one_line({"error": error.message, "hint": error.hint}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [(b"connection", b"close"), (b"cache-control", b"no-store")]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
