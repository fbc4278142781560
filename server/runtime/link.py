"""The coordinator's SuperLink: ``python -m server.runtime.link KIT``.

Sites reach one public port that serves the fleet interface only. Control and runtime interfaces are on a
loopback port of their own; the first needs the token of the kit, the second a secret made at every start.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

from common.atomic import write_atomic
from common.deployment import CoordinatorKit, open_coordinator_kit, split_address
from common.errors import BadInputError
from common.processes import child_environment, end_with_parent, python_command
from common.trust import require_private
from common.trust.certificates import node_public_pem
from server.runtime.door import DoorLimits, proxies_of
from server.runtime.executor import HANDSHAKE_FILE
from server.runtime.link_server import LinkSettings, run_superlink

LINK_FILE = "link.json"
PROXIES_VARIABLE = "FEDCART_PROXIES"  # addresses of reverse proxies, with commas between


def run_link(kit: CoordinatorKit) -> None:
    """Serve until SIGTERM. Raises: BadInputError if others can read a key."""
    require_private(kit.secrets)
    kit.flower_home.mkdir(parents=True, exist_ok=True)
    private = ("127.0.0.1", free_port())
    secret = kit.state / HANDSHAKE_FILE
    write_atomic(secret, secrets.token_bytes(32), mode=0o600)
    settings = LinkSettings(
        public=split_address(kit.read().coordinator.listen),
        private=private,
        authority=kit.authority,
        certificate=kit.certificate,
        key=kit.certificate_key,
        secret=secret,
        node_keys=tuple(node_public_pem(path.read_bytes()) for path in sorted(kit.nodes.glob("*.pub"))),
        door=DoorLimits(proxies=proxies_of(os.environ.get(PROXIES_VARIABLE, ""))),
    )
    address = f"{private[0]}:{private[1]}"
    write_atomic(
        kit.state / LINK_FILE, json.dumps({"pid": os.getpid(), "private": address}, allow_nan=False).encode()
    )
    _start_executor(kit, address)
    run_superlink(settings, kit.control_token.read_bytes().strip())


def private_address(kit: CoordinatorKit) -> str:
    """Where the running SuperLink of a kit listens for control. Raises: BadInputError if none was started."""
    try:
        return str(json.loads((kit.state / LINK_FILE).read_text())["private"])
    except (OSError, ValueError, KeyError):
        raise BadInputError("the server is not running", hint=f"fedcart server start {kit.path}") from None


def free_port() -> int:
    """A loopback port that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start_executor(kit: CoordinatorKit, address: str) -> None:
    """Start the process that starts server apps; it ends with this one."""
    command = python_command("server.runtime.executor", str(kit.path), address)
    subprocess.Popen(command, env=child_environment(), stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    end_with_parent()
    run_link(open_coordinator_kit(Path(sys.argv[1])))
