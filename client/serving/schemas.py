"""The shapes of requests and answers as JSON Schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]
_TEXT, _NUMBER, _WHOLE, _FLAG = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
_MAYBE: Schema = {"type": ["number", "null"]}
_VALUE: Schema = {"type": ["string", "number", "null"]}


@dataclass(frozen=True)
class Parameter:
    """A word in the path or behind the question mark."""

    name: str
    place: str
    words: str
    required: bool = False


def shape(**fields: Schema) -> Schema:
    """An object with these fields, all of them there."""
    return {"type": "object", "properties": fields, "required": sorted(fields)}


def array(of: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": of}


def table(of: Schema) -> Schema:
    """An object of any names."""
    return {"type": "object", "additionalProperties": of}


EVENT: Schema = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "maxLength": 200}, "consumer": _VALUE, "timestamp": _VALUE, "event": _VALUE, "item": _VALUE,
        "category": _VALUE, "price": _VALUE, "quantity": _VALUE,
    },
    "required": ["consumer", "timestamp"],
}  # fmt: skip
EVENT_OR_MANY: Schema = {"oneOf": [EVENT, array(EVENT), shape(events=array(EVENT))]}
ERROR = shape(error=_TEXT, hint=_TEXT)
SCORED = shape(
    position=_WHOLE, surprise=_NUMBER, recent=_NUMBER, nats=table(_MAYBE), threshold=_MAYBE, alarm=_FLAG, reason=_TEXT,
    late=_TEXT, repeated=_FLAG,
)  # fmt: skip
SCORED_OR_MANY: Schema = {"oneOf": [SCORED, shape(answers=array({"oneOf": [SCORED, ERROR]}))]}
NEXT = shape(
    what=_TEXT,
    known=_FLAG,
    choices=array({"type": "object", "properties": {"score": _NUMBER, "seen": _FLAG, "from": table(_NUMBER)},
                   "required": ["from", "score", "seen"], "additionalProperties": _TEXT}),
)  # fmt: skip
INTENT = shape(probability=_NUMBER, events=_WHOLE)
EXPLAINED = shape(
    about=_TEXT, choice=_TEXT, probability=_MAYBE, method=_TEXT, total=_MAYBE, empty=_MAYBE, earlier=_WHOLE,
    events=array(shape(time=_TEXT, event=_TEXT, item=_TEXT, contribution=_NUMBER, attention=_MAYBE)),
)  # fmt: skip
FORECAST = shape(until=_TEXT, rows=array(table(_VALUE)))
VERDICT = shape(consumer=_TEXT, verdict={"type": "string", "enum": ["anomaly", "normal"]})
COUNTED = shape(verdicts=_WHOLE)
VERDICTS = shape(verdicts=array(shape(consumer=_TEXT, verdict=_TEXT)))
FORGOTTEN = shape(removed=table(_WHOLE))
STATUS = shape(status=_TEXT)
ERRORS = {
    400: "the request cannot be read", 401: "the token is missing or wrong", 403: "asked from a foreign page",
    404: "the model has no such answer, or nothing is known", 408: "the body did not come in time",
    413: "the body is too large", 415: "the body is no JSON", 500: "the program failed",
}  # fmt: skip
OTHERS = {  # addresses beside the table: path -> summary, media type
    "/": ("This service, for people", "text/html"),
    "/healthz": ("The process runs", "application/json"),
    "/readyz": ("It can answer", "application/json"),
    "/metrics": ("Figures for Prometheus", "text/plain"),
    "/openapi.json": ("This description", "application/json"),
}
