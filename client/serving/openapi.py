"""The OpenAPI description of the service, made of the table by which it answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import client.serving.schemas as schemas
from client.serving.endpoints import Endpoint


def description(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 description."""
    paths: dict[str, Any] = {}
    for one in endpoints:
        operation: dict[str, Any] = {
            "summary": one.summary,
            "parameters": [_parameter(p) for p in one.parameters],
            "responses": {"200": _content("an answer", one.answer), **_errors()},
        }
        if one.body is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": one.body}}}
        paths.setdefault(one.path, {})[one.method.lower()] = operation
    for path, (summary, media) in schemas.OTHERS.items():
        good = {
            "description": "an answer",
            "content": {media: {"schema": schemas.STATUS if path[-1] == "z" else {}}},
        }
        paths[path] = {"get": {"summary": summary, "responses": {"200": good}}}
    token = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "fedcart serve", "version": version},
        "paths": paths,
        "components": {"securitySchemes": {"token": token}},
        "security": [{"token": []}, {}],
    }


def _parameter(one: schemas.Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": one.place,
        "description": one.words,
        "required": one.required,
        "schema": {"type": "string"},
    }


def _content(words: str, schema: schemas.Schema) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _errors() -> dict[str, Any]:
    return {str(status): _content(words, schemas.ERROR) for status, words in schemas.ERRORS.items()}
