"""The index page of the service."""

from __future__ import annotations

from client.serving.endpoints import ENDPOINTS
from client.serving.schemas import OTHERS
from client.serving.service import Service
from common import VERSION
from common.pages.rendering import templates


def index_page(service: Service, *, figures: bool) -> str:
    """The page as HTML; with ``figures`` what has happened so far, which only callers that are known may see."""
    live = service.parts.live
    addresses = [(one.method, one.path, one.summary) for one in ENDPOINTS]
    addresses += [("GET", path, summary) for path, (summary, _) in OTHERS.items()]
    tiles = []
    if figures:
        told = service.counters.of
        tiles = [(name, told[name], "since the state began") for name in ("events", "alarms", "late")]
        tiles += [("consumers held", len(live.store), "now")] if live is not None else []
    return (
        templates()
        .get_template("serve.html.j2")
        .render(
            version=VERSION,
            answers=live.answers() if live is not None else (),
            sales=service.parts.forecast is not None,
            personal=live is not None and live.shared.personal is not None,
            tiles=[(name, f"{value:,}", words) for name, value, words in tiles],
            addresses=addresses,
        )
    )
