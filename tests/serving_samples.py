"""A small model served in this process, and requests to it without a socket."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from client.scoring.lines import DriftingLevel
from client.scoring.model import open_model
from client.serving.door import Door
from client.serving.http import build_app
from client.serving.live import LiveModel
from client.serving.loading import engine_of
from client.serving.page import index_page
from client.serving.repeats import Repeats
from client.serving.service import Parts, Service
from client.serving.verdicts import KeptVerdicts
from tests.scoring_samples import config_of, market, write_model_folder

KEY = bytes(range(32))


def serve_command(model: Path, state: Path, port: int = 0) -> list[str]:
    """The command of a process that serves, and says where as JSON."""
    named = {"--port": port, "--state": state}
    return [
        sys.executable,
        "-m",
        "cli.main",
        "serve",
        str(model),
        *(str(x) for pair in named.items() for x in pair),
        "--json",
    ]


def make_live(folder: Path, capacity: int = 1_000, **settings: Any) -> LiveModel:
    """An untrained model with random weights, or the one in the folder, live."""
    if not (folder / "model.json").exists():
        write_model_folder(folder, config_of(**settings), market().catalogue)
    shared = open_model(folder)
    return LiveModel(shared, engine_of(shared), capacity=capacity, key=KEY)


def make_service(live: LiveModel | None, home: Path, **parts: Any) -> Service:
    """A service with its state in a folder."""
    told = {"verdicts": KeptVerdicts(home), "level": DriftingLevel(0.01), "repeats": Repeats(50, KEY)}
    told |= {"digest": "d" * 64, "path": home / "serving" / "live.snapshot", "forecast": None}
    return Service(Parts(live=live, **told | parts))


def make_door(service: Service, token: bytes = b"", **door: Any) -> Door:
    """The application behind its door."""
    made = Door(token, local=not token, **door)
    return build_app(service, made, lambda: index_page(service, figures=not token))


def ask(
    door: Door, method: str, address: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Status and content of an answer: JSON as a value, else text. ``body`` "never": one that does not come."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    told = {"host": "127.0.0.1:8080", "content-type": "application/json"} | (headers or {})
    path, _, query = address.partition("?")
    scope = {
        "type": "http", "method": method, "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in told.items()], "http_version": "1.1",
        "scheme": "http", "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 1), "root_path": "",
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if body == "never":
            await asyncio.sleep(60)
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(door(scope, receive, send))
    told_back = b"".join(part.get("body", b"") for part in sent[1:])
    kind = dict(sent[0]["headers"]).get(b"content-type", b"")
    return sent[0]["status"], json.loads(told_back) if kind == b"application/json" else told_back.decode()


def event(
    consumer: str = "c1", at: str = "2024-05-01T10:00:00", kind: str = "view", **known: Any
) -> dict[str, Any]:
    """An event as a shop sends it."""
    return {"consumer": consumer, "timestamp": at, "event": kind, "item": "item-01"} | known
