"""The connection under the door: what comes before a body is bounded in size and time, whoever sends it."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 65_536  # bytes of a request line and its headers
HEAD_TIMEOUT_S = 10.0


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request has no end to its headers, or whose headers do not come in time.

    The parser below takes a header of any length, before anybody is asked for a token.
    """

    _head = 0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller is there: its first request is to come soon."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came. What is no header any more is not counted here."""
        if self._waiting is None and self.cycle is not None and self.cycle.response_complete:
            self._wait()
        super().data_received(data)
        if self._waiting is not None:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._end()

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._head, self._waiting = 0, self.loop.call_later(HEAD_TIMEOUT_S, self._end)

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _end(self) -> None:
        self._stop()
        self.transport.close()
