"""What comes before a body: bounded in size and time."""

import asyncio

import pytest

from client.serving import protocol
from client.serving.door import Door
from client.serving.run import Address, _options

pytest.importorskip("httptools")
ASK = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


async def _answers(*parts, pause_s=0.0):
    """What a caller gets who sends parts one after another; what comes after the connection's end is not sent."""
    import uvicorn

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    door = Door(b"", local=True)
    door.app = app
    config = uvicorn.Config(door, **_options(Address()))
    config.load()
    state = uvicorn.server.ServerState()
    made = lambda: config.http_protocol_class(config=config, server_state=state, app_state={})  # noqa: E731
    async with await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        got = b""
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            got = await asyncio.wait_for(reader.read(), 2)
        except ConnectionError:
            pass
        except TimeoutError:
            got = b"still open"
        writer.close()
        return got


def answers(*parts, **more):
    return asyncio.run(_answers(*parts, **more))


def test_headers_without_an_end_end_the_connection():
    assert answers(b"GET / HTTP/1.1\r\nX: ", *[b"a" * 30_000] * 4, pause_s=0.01) == b""
    assert answers(b"GET / HTTP/1.1\r\n", *[b"X: a\r\n" * 5_000] * 4, pause_s=0.01) == b""


@pytest.mark.parametrize("parts", [(b"",), (ASK,), (ASK + b"\r\n", ASK)])
def test_headers_that_do_not_come_end_the_connection(monkeypatch, parts):
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.05)
    got = answers(*parts, pause_s=0.02)
    assert got != b"still open"
    assert got.count(b"200 OK") == len(parts) - 1


def test_many_requests_on_one_connection_are_all_answered(monkeypatch):
    many = [ASK + b"X: " + b"a" * 1_000 + b"\r\n\r\n"] * 80
    last = ASK + b"Connection: close\r\n\r\n"
    assert answers(*many, last, pause_s=0.001).count(b"200 OK") == 81
    assert answers(b"".join(many[:9]) + last).count(b"200 OK") == 10
