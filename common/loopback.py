"""The names under which a machine reaches itself: what stays on it, and by which name a page of ours may be asked."""

from __future__ import annotations

import re

NAMES = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::\d{1,5})?")


def is_asked_locally(host: str) -> bool:
    """Whether a Host header names this machine, with or without a port.

    A page elsewhere can let its own name lead here, and then reads what a service on loopback answers; the header tells.
    """
    found = _HOST.fullmatch(host)
    return found is not None and (found["six"] or found["name"]).lower() in NAMES
