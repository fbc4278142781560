"""Web proxies of the environment: nothing for this machine goes to one, and a check looks through the one that a node takes.

Flower's HTTP clients trust the environment. With ``http_proxy`` set and ``no_proxy`` not, what our own processes say to each
other on loopback, tokens among it, would go to the proxy in clear.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from common.errors import BadInputError
from common.loopback import NAMES

NAMED = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")  # what Flower's client goes by for a TLS server
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
        entries += [name for name in NAMES if name not in entries]
    return dict.fromkeys(VARIABLES, ",".join(entries))


def proxy_for(host: str, port: int) -> Proxy | None:
    """Through which proxy this process's environment sends what is for ``host``; None if through none.

    Raises: BadInputError for a proxy of a kind, or an address, that cannot be used.
    """
    address = next((os.environ[name] for name in NAMED if os.environ.get(name)), "")
    if not address or _goes_past(host, port, without_loopback(os.environ)["no_proxy"].split(",")):
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


def _goes_past(host: str, port: int, entries: Sequence[str]) -> bool:
    """Whether an entry of no_proxy names this host, a domain that it is in, or everything."""
    for entry in (one.lower().lstrip(".") for one in entries):
        if entry in ("*", host.lower(), f"{host.lower()}:{port}") or host.lower().endswith(f".{entry}"):
            return True
    return False


def _authorization(user: str | None, password: str | None) -> str:
    if user is None:
        return ""
    return "Basic " + b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
