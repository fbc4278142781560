"""Every address of the service: what is asked, what is answered, and how it is described. No HTTP library here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import client.serving.schemas as schemas
from client.serving.schemas import Parameter, Schema
from client.serving.service import Service
from common.errors import BadInputError

MOST_EVENTS = 1_000  # of one request


@dataclass(frozen=True)
class Asked:
    """A request. ``path`` and ``query``: by name; ``body``: JSON, its numbers as text."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None


Answer = dict[str, Any] | bytes


@dataclass(frozen=True)
class Endpoint:
    """One address and method. ``answer``: the schema of a good answer; ``body``: of what is sent, None where nothing is.

    ``kept``: the state is written before the answer leaves.
    """

    method: str
    path: str
    summary: str
    call: Callable[[Service, Asked], Answer]
    answer: Schema
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None
    kept: bool = False


def _next(service: Service, asked: Asked) -> Answer:
    query = asked.query
    exclude = frozenset(name for name in query.get("exclude", "").split(",") if name)
    most = _whole(query.get("k", "20"), "k")
    known = _yes(query.get("exclude_known", "0"))
    return service.next(asked.path["consumer"], query.get("what", "item"), most, exclude, known=known)


def _explain(service: Service, asked: Asked) -> Answer:
    words = (
        asked.query.get(name, usual)
        for name, usual in (("about", "item"), ("choice", ""), ("method", "gradients"))
    )
    return service.explain(asked.path["consumer"], *words)


def _judge(service: Service, asked: Asked) -> Answer:
    body = _object(asked.body)
    consumer, word = body.get("consumer"), body.get("verdict")
    if not isinstance(consumer, str) or not isinstance(word, str):
        raise BadInputError("a verdict names consumer and verdict", hint='{"consumer": "c1", "verdict": "normal"}')
    return service.judge(consumer, word)


def event_of(service: Service, raw: Any) -> Answer:
    """One event of a request."""
    return service.event(_object(raw))


def events_in(body: Any) -> list[Any] | None:
    """The events of a request of many; None where the body is a single one. Raises: BadInputError for too many."""
    many = body.get("events") if isinstance(body, dict) and "consumer" not in body else body
    if not isinstance(many, list):
        return None
    if len(many) > MOST_EVENTS:
        raise BadInputError(
            f"{len(many)} events at once, at most {MOST_EVENTS} are read", hint="send them in parts"
        )
    return many


def _object(body: Any) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise BadInputError("not a JSON object", hint="docs/serve.md shows what is sent")
    return body


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise BadInputError(f"{name} is no whole number", hint=f"for example {name}=20")
    return int(text)


def _yes(text: str) -> bool:
    if text not in ("0", "1", "true", "false"):
        raise BadInputError("exclude_known is neither 1 nor 0", hint="exclude_known=1")
    return text in ("1", "true")


_CONSUMER = Parameter("consumer", "path", "the id as your events have it, or its pseudonym", required=True)
ENDPOINTS = (
    Endpoint(
        "POST", "/events", "Score one event or many, and remember them", lambda service, asked: event_of(service, asked.body),
        schemas.SCORED_OR_MANY, body=schemas.EVENT_OR_MANY,
    ),
    Endpoint(
        "GET", "/next/{consumer}", "What comes next", _next, schemas.NEXT,
        (
            _CONSUMER,
            Parameter("k", "query", "how many, 20 if left out"),
            Parameter("what", "query", "item, category or event"),
            Parameter("exclude", "query", "items to leave out, with commas between them"),
            Parameter("exclude_known", "query", "1: leave out what the consumer has had"),
        ),
    ),
    Endpoint(
        "GET", "/intent/{consumer}", "Will the consumer buy",
        lambda service, asked: service.intent(asked.path["consumer"]), schemas.INTENT, (_CONSUMER,),
    ),
    Endpoint(
        "GET", "/explain/{consumer}", "Which events led to an answer", _explain, schemas.EXPLAINED,
        (
            _CONSUMER,
            Parameter("about", "query", "item, category, event, intent or alarm"),
            Parameter("choice", "query", "another item, category or event than the most probable"),
            Parameter("method", "query", "gradients or occlusion"),
        ),
    ),
    Endpoint(
        "GET", "/forecast", "The coming sales by category",
        lambda service, asked: service.forecast(asked.query.get("category", "")), schemas.FORECAST,
        (Parameter("category", "query", "one category; all if left out"),),
    ),
    Endpoint("POST", "/verdicts", "Say whether an alarm was right", _judge, schemas.COUNTED, body=schemas.VERDICT),
    Endpoint(
        "GET", "/verdicts", "What has been said, by pseudonym",
        lambda service, _: {"verdicts": service.parts.verdicts.all()}, schemas.VERDICTS,
    ),
    Endpoint(
        "DELETE", "/consumers/{consumer}", "Forget one consumer",
        lambda service, asked: {"removed": service.remove(asked.path["consumer"])}, schemas.FORGOTTEN, (_CONSUMER,), kept=True,
    ),
)  # fmt: skip
