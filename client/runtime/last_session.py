"""What is known of a site's last connection: by which process, and under which id the server knows it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from common.atomic import write_atomic
from common.deployment import SiteKit
from common.errors import WorkFailedError


def remember(kit: SiteKit, node: int) -> None:
    """This process was let in by the server. On a full disk it is not remembered, and the site goes on."""
    with suppress(WorkFailedError):
        write_atomic(kit.session, json.dumps({"node": node, "pid": os.getpid()}, allow_nan=False).encode())


def former_node(kit: SiteKit) -> int:
    """The node id of the last connection, 0 if there was none."""
    return int(_read(kit).get("node", 0))


def connected_process(kit: SiteKit) -> int:
    """The process of the last connection, 0 if there was none."""
    return int(_read(kit).get("pid", 0))


def was_connected(kit: SiteKit, pid: int) -> bool:
    """Whether the session of this process got as far as being let in."""
    return connected_process(kit) == pid


def _read(kit: SiteKit) -> dict[str, Any]:
    try:
        session = json.loads(kit.session.read_text())
    except (OSError, ValueError):
        return {}
    return session if isinstance(session, dict) else {}
