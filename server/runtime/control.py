"""The coordinator's commands to its running server: admit sites, submit a run, follow it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from common.atomic import write_atomic
from common.deployment import CoordinatorKit
from common.errors import BadInputError, FedcartError, WorkFailedError
from common.processes import STOP_TIMEOUT_S, keep_loopback_here
from common.run import RunFolder, holder
from common.trust.certificates import node_public_pem
from server.runtime.bundle import read_bundle
from server.runtime.link import private_address
from server.runtime.link_server import Control

NODES_FILE = "nodes.json"
POLL_S = 0.2


@contextmanager
def open_control(kit: CoordinatorKit) -> Iterator[Control]:
    """A connection to the control interface of a kit's running server, past any proxy. Raises: BadInputError."""
    keep_loopback_here()
    control = Control(private_address(kit), kit.authority.read_bytes(), kit.control_token.read_bytes().strip())
    try:
        yield control
    finally:
        control.close()


def wait_until_up(kit: CoordinatorKit, timeout_s: float) -> None:
    """Return when the server answers. Raises: WorkFailedError after the timeout."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            with open_control(kit) as control:
                control.nodes()
            return
        except FedcartError as error:
            if time.monotonic() > end:
                raise WorkFailedError(
                    f"the server does not answer within {timeout_s:.0f} s", hint=f"see {kit.log}"
                ) from error
            time.sleep(POLL_S)


def must_be_up(kit: CoordinatorKit) -> None:
    """Return if the kit's server answers now. Raises: BadInputError."""
    try:
        with open_control(kit) as control:
            control.nodes()
    except FedcartError as error:
        raise BadInputError("the server is not running", hint=f"fedcart server start {kit.path}") from error


def admit_sites(kit: CoordinatorKit, control: Control) -> dict[str, int]:
    """Make the admitted nodes exactly those of ``nodes/``; return and record site -> node id."""
    wanted = {node_public_pem(path.read_bytes()): path.stem for path in sorted(kit.nodes.glob("*.pub"))}
    present = control.nodes()
    for key, (node_id, _) in present.items():
        if key not in wanted:
            control.unregister(node_id)
    ids = {
        name: present[key][0] if key in present else control.register(key, name) for key, name in wanted.items()
    }
    write_atomic(kit.state / NODES_FILE, json.dumps(ids, indent=1, sort_keys=True, allow_nan=False).encode())
    return ids


def online_sites(kit: CoordinatorKit, control: Control) -> dict[str, bool]:
    """Site -> is it connected, as far as the server knows (a killed site shows after a minute)."""
    names = {node_public_pem(path.read_bytes()): path.stem for path in sorted(kit.nodes.glob("*.pub"))}
    present = control.nodes()
    return {name: present.get(key, (0, ""))[1] == "online" for key, name in names.items()}


def stop_at_once(control: Control, folder: RunFolder, flower_run: int) -> None:
    """End a run's server app now, and return when it has let go of the run folder."""
    pid, end = holder(folder), time.monotonic() + STOP_TIMEOUT_S
    with suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
    with suppress(FedcartError):  # the server may be starting again: then nothing runs any more
        control.stop_run(flower_run)
    while (pid := holder(folder)) is not None:
        if time.monotonic() > end:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def submit(kit: CoordinatorKit, control: Control, run: str, purpose: str = "") -> int:
    """Start a server app for what is left of a run folder of the kit, or another purpose; return Flower's run id."""
    return control.start_run(read_bundle(kit), {"run": f"{purpose}:{run}" if purpose else run})
