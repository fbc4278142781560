"""The local page of review: Starlette on loopback, for one person who has the key of the address.

The key stands in the fragment of the address, which a browser sends to nobody; it is changed for a cookie once. Whoever asks
from elsewhere, by another name of this machine, without the cookie, or from another page, gets nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from client.anomalies.desk import Desk, Filters
from common.errors import FedcartError
from common.loopback import is_asked_locally
from common.pages.rendering import templates

COOKIE = "fedcart-review"
MOST_BODY = 4_096
LOOPBACK = ("127.0.0.1", "::1")
OPEN_PATHS = ("/enter", "/style.css", "/review.js")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def review_app(home: Path, token: str, named: Callable[[str], list[int]] = lambda _: []) -> Starlette:
    """The pages over a site's state folder. ``named``: pseudonyms that a name in the filter stands for."""
    pages = _Pages(Desk(home), token, named)
    app = Starlette(
        routes=[
            Route("/", pages.listed),
            Route("/enter", pages.enter, methods=["GET", "POST"]),
            Route("/alarm/{name}", pages.alarm, methods=["GET", "POST"]),
            Route("/style.css", _style),
            Route("/review.js", _script),
        ],
        exception_handlers={FedcartError: _wrong},
    )
    app.add_middleware(_Gate, session=derived(token, "session"))
    return app


def derived(token: str, purpose: str) -> str:
    """A secret of its own for the cookie and for forms, from which the key does not follow."""
    return hmac.new(token.encode(), purpose.encode(), hashlib.sha256).hexdigest()


class _Gate:
    """Loopback only, by a loopback name only, with the cookie only; and the headers of every answer."""

    def __init__(self, app: ASGIApp, session: str) -> None:
        self._app, self._session = app, session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._refused(scope)
        await (refused or self._app)(scope, receive, sent)

    def _refused(self, scope: Scope) -> Response | None:
        headers, client = Headers(scope=scope), scope.get("client")
        host = headers.get("host", "")
        if client is None or client[0] not in LOOPBACK or not is_asked_locally(host):
            return PlainTextResponse("this page is for this machine only", 403)
        if scope["method"] == "POST" and headers.get("origin", f"http://{host}") != f"http://{host}":
            return PlainTextResponse("not from this page", 403)
        if scope["path"] in OPEN_PATHS or _equal(Request(scope).cookies.get(COOKIE, ""), self._session):
            return None
        return (
            RedirectResponse("/enter", 303) if scope["method"] == "GET" else PlainTextResponse("enter first", 403)
        )


class _Pages:
    def __init__(self, desk: Desk, token: str, named: Callable[[str], list[int]]) -> None:
        self._desk, self._token, self._named = desk, token, named
        self._csrf = derived(token, "forms")

    def listed(self, request: Request) -> Response:
        query = dict(request.query_params)
        filters = Filters.of(query)
        shown = self._desk.listed(filters, self._named(filters.who) if filters.who else ())
        return _page("review.html.j2", at=query.get("at", ""), csrf=self._csrf, **shown)

    async def enter(self, request: Request) -> Response:
        if request.method == "GET":
            return _page("review_enter.html.j2", wrong=False)
        form = await _form(request)
        if form is None or not _equal(form.get("token", ""), self._token):
            return _page("review_enter.html.j2", status=403, wrong=True)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, derived(self._token, "session"), httponly=True, samesite="strict", path="/")
        return answer

    async def alarm(self, request: Request) -> Response:
        name = request.path_params["name"]
        if request.method != "POST":
            shown = self._desk.opened(name)
            return (
                PlainTextResponse("no such alarm", 404)
                if shown is None
                else _page("review_alarm.html.j2", csrf=self._csrf, **shown)
            )
        form = await _form(request)
        if form is None or not _equal(form.get("csrf", ""), self._csrf):
            return PlainTextResponse("not from this page", 403)
        if form.get("verdict") not in ("yes", "no", "undo"):
            return PlainTextResponse("a verdict is yes, no or undo", 400)
        at = self._next(name, form.get("back", ""))
        if not self._desk.judge(name, form["verdict"]):
            return PlainTextResponse("no such alarm", 404)
        return RedirectResponse(at, 303)

    def _next(self, name: str, back: str) -> str:
        """Where a verdict leads: to the same page, or to the list with the alarm after this one in focus."""
        if back == "alarm":
            return f"/alarm/{name}"
        filters = Filters.of(dict(parse_qsl(back)))
        names = [row["id"] for row in self._desk.listed(filters)["rows"]]
        place = names.index(name) if name in names else 0
        after = names[place + 1 : place + 2] or names[place - 1 : place] or [""]
        return f"/?{filters.query(at=after[0])}"


async def _wrong(_: Request, error: Exception) -> Response:
    """What a page says instead of itself: a damaged book, a full disk."""
    hint = f"\nhint: {error.hint}" if isinstance(error, FedcartError) else ""
    return PlainTextResponse(f"error: {error}{hint}", 500)


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a small plain form; None for anything else."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            return None
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        return None


def _page(template: str, status: int = 200, **shown: object) -> Response:
    return HTMLResponse(templates().get_template(template).render(**shown), status)


def _equal(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())


@cache
def _asset(*names: str) -> str:
    folder = files("common.pages") / "templates"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _style(_: Request) -> Response:
    return Response(_asset("page.css", "review.css"), media_type="text/css")


def _script(_: Request) -> Response:
    return Response(_asset("review.js"), media_type="text/javascript")
