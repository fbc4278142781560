"""Asking a service that runs on this machine."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import quote, urlsplit

from client.serving.forgetting import Done
from client.serving.run import read_token
from common.errors import BadInputError, WorkFailedError

TIMEOUT_S = 60.0


def ask_to_forget(address: str, consumer: str, token_file: Path) -> list[Done]:
    """Let the service forget a consumer. Raises: BadInputError, WorkFailedError."""
    place = urlsplit(address)
    if place.scheme != "http":
        raise BadInputError(
            f"the service on {address} speaks TLS",
            hint=f"curl -X DELETE {address}/consumers/CONSUMER, and the token",
        )
    headers = {"Authorization": f"Bearer {read_token(token_file).decode()}"}
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT_S)
    try:
        connection.request("DELETE", f"/consumers/{quote(consumer, safe='')}", headers=headers)
        answer = connection.getresponse()
        said = json.loads(answer.read(1 << 20))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise WorkFailedError(f"the service on {address} did not answer: {type(error).__name__}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise BadInputError(
            f"the service on {address} refused: {said.get('error')}", hint=str(said.get("hint", ""))
        )
    return [
        Done(f"running service: {name}", int(count), "now, and in its file")
        for name, count in said["removed"].items()
    ]
