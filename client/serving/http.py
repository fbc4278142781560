"""The service over HTTP: an ASGI application. It knows no torch, and neither logs nor repeats what names a consumer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from client.serving.door import Door, RefusedRequestError
from client.serving.endpoints import ENDPOINTS, Answer, Asked, Endpoint, event_of, events_in
from client.serving.metrics import exposition
from client.serving.openapi import description
from client.serving.service import NotAnsweredError, Service
from common import VERSION
from common.errors import FedcartError
from common.strict_json import one_line

BREATH = 32  # events of one request after which others get their turn
_AS_WRITTEN = json.JSONDecoder(
    parse_int=str, parse_float=str, parse_constant=str
)  # numbers stay text, as in a file
Handler = Callable[[Request], Awaitable[Response]]


def build_app(service: Service, door: Door, page: Callable[[], str]) -> Door:
    """The application behind its door. ``page``: the index, as HTML."""

    async def index(_: Request) -> Response:
        return HTMLResponse(page(), headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

    async def alive(_: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(_: Request) -> Response:
        return _json({"status": "ready" if door.ready else "stopping"}, 200 if door.ready else 503)

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(exposition(service, door.clock), media_type="text/plain; version=0.0.4")

    told = one_line(description(ENDPOINTS, VERSION)).encode()

    async def openapi(_: Request) -> Response:
        return Response(told, media_type="application/json")

    plain = {"/": index, "/healthz": alive, "/readyz": ready, "/metrics": metrics, "/openapi.json": openapi}
    routes = [Route(path, handler, methods=["GET"]) for path, handler in plain.items()]
    routes += [Route(_path(one), _handler(service, one), methods=[one.method]) for one in ENDPOINTS]
    app = Starlette(routes=routes, exception_handlers={404: _no_such, 405: _no_such, 500: _failed})
    app.router.redirect_slashes = False
    door.app = app
    return door


def _path(one: Endpoint) -> str:
    return one.path.replace("{consumer}", "{consumer:path}")


def _handler(service: Service, one: Endpoint) -> Handler:
    many = _events(service) if one.path == "/events" else None

    async def handle(request: Request) -> Response:
        try:
            body = _parsed(await request.body()) if one.body is not None else None
            if many is not None and (events := events_in(body)) is not None:
                return _json(
                    {"answers": [json.loads(a) if isinstance(a, bytes) else a for a in await many(events)]}
                )
            answer = one.call(service, Asked(request.path_params, request.query_params, body))
            if one.kept:
                await asyncio.to_thread(service.keep, service.frozen())
            return _json(answer)
        except FedcartError as error:
            return _error(error)

    return handle


def _events(service: Service) -> Callable[[list[Any]], Awaitable[list[Answer]]]:
    async def all_of(events: list[Any]) -> list[Answer]:
        answers: list[Answer] = []
        for number, raw in enumerate(events, start=1):
            try:
                answers.append(event_of(service, raw))
            except FedcartError as error:
                answers.append({"error": error.message, "hint": error.hint})
            if number % BREATH == 0:
                await asyncio.sleep(0)
        return answers

    return all_of


def _parsed(content: bytes) -> Any:
    try:
        return _AS_WRITTEN.decode(content.decode())
    except (ValueError, RecursionError):
        raise RefusedRequestError(400, "the body is not JSON", "docs/serve.md shows what is sent") from None


def _json(answer: Answer, status: int = 200) -> Response:
    content = answer if isinstance(answer, bytes) else one_line(answer).encode()
    return Response(content, status, {"Cache-Control": "no-store"}, "application/json")


def _error(error: FedcartError) -> Response:
    status = (
        404
        if isinstance(error, NotAnsweredError)
        else error.status
        if isinstance(error, RefusedRequestError)
        else 0
    )
    if not status:
        status = 400 if error.exit_code == 2 else 500
    return _json({"error": error.message, "hint": error.hint}, status)


async def _no_such(_request: Request, _error: Exception) -> Response:
    return _json({"error": "there is no such address", "hint": "GET /openapi.json lists them"}, 404)


async def _failed(_request: Request, _error: Exception) -> Response:
    return _json({"error": "the program failed", "hint": "see the log of the service"}, 500)
