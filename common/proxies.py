"""Web proxies of the environment: nothing for this machine goes to one, and a check looks through the one that a node takes.

Flower's HTTP clients trust the environment. With ``http_proxy`` set and ``no_proxy`` not, what our own processes say to each
other on loopback, tokens among it, would go to the proxy in clear.
"""

from __future__ import annotations

import os
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from common.errors import BadInputError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
VARIABLES = ("no_proxy", "NO_PROXY")  # programs differ in which they read


@dataclass(frozen=True)
class Proxy:
    """A proxy that tunnels TLS. ``authorization``: of its user, empty if it needs none; never shown."""

    host: str
    port: int
    authorization: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def without_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """The two variables of an environment in which nothing for this machine goes to a proxy; the rest of them stays."""
    known = next((environment[name] for name in VARIABLES if environment.get(name)), "")
    entries = [entry.strip() for entry in known.split(",") if entry.strip()]
    if "*" not in entries:
        entries += [name for name in LOOPBACK if name not in entries]
    return dict.fromkeys(VARIABLES, ",".join(entries))


def proxy_for(host: str, port: int) -> Proxy | None:
    """Through which proxy this process's environment sends what is for ``host``; None if through none.

    Raises: BadInputError for a proxy of a kind, or an address, that cannot be used.
    """
    named = urllib.request.getproxies_environment() | {"no": without_loopback(os.environ)["no_proxy"]}
    address = named.get("https") or named.get("all")
    passed_by = urllib.request.proxy_bypass_environment(f"{host}:{port}", named)  # type: ignore[attr-defined]
    if not address or passed_by:
        return None
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        found = Proxy(parts.hostname or "", parts.port or 80, _authorization(parts.username, parts.password))
    except ValueError:
        raise BadInputError("the proxy in https_proxy has no address that can be read", hint=HINT) from None
    if parts.scheme != "http" or not found.host:
        raise BadInputError(f"https_proxy names a proxy of the kind {parts.scheme!r}", hint=HINT)
    return found


HINT = "https_proxy=http://HOST:PORT, or the server's name in no_proxy"


def _authorization(user: str | None, password: str | None) -> str:
    if user is None:
        return ""
    return "Basic " + b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
