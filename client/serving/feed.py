"""Events from standard input beside those over HTTP: JSON lines in, JSON lines out, one at a time."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator

from client.serving.service import Service
from common.errors import FedcartError
from common.strict_json import one_line

LONGEST = 65_536  # bytes of one line
_AS_WRITTEN = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


def lines(descriptor: int) -> Iterator[bytes]:
    """Lines as they come; of one that is too long its beginning, which is no JSON any more."""
    rest, too_long = b"", False
    while piece := os.read(descriptor, LONGEST):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if not too_long:
                yield line[: LONGEST + 1]
            too_long = False
        if len(rest) > LONGEST:
            if not too_long:
                yield rest[: LONGEST + 1]
            rest, too_long = b"", True
    if rest and not too_long:
        yield rest


def answer(service: Service, line: bytes) -> bytes:
    """The answer to one line, an ``error`` for one that is no event."""
    try:
        if len(line) > LONGEST:
            raise ValueError
        raw = _AS_WRITTEN.decode(line.decode("utf-8", "replace"))
        if not isinstance(raw, dict):
            raise ValueError
        found = service.event(raw)
    except FedcartError as error:
        found = {"error": error.message, "hint": error.hint}
    except (ValueError, RecursionError):
        found = {"error": "not a JSON object", "hint": f"one object per line, of at most {LONGEST} bytes"}
    return found if isinstance(found, bytes) else one_line(found).encode()


def start(
    service: Service, descriptor: int, say: Callable[[bytes], None], loop: asyncio.AbstractEventLoop
) -> None:
    """Answer what comes on a descriptor until it ends; the work is done in the loop, in turn with requests."""

    async def one(line: bytes) -> None:
        say(answer(service, line))

    def run() -> None:
        try:
            for line in lines(descriptor):
                if line.strip():
                    asyncio.run_coroutine_threadsafe(one(line), loop).result()
        except (OSError, RuntimeError):  # the reader of the answers is gone, or the loop is
            return

    threading.Thread(target=run, name="events-from-input", daemon=True).start()
