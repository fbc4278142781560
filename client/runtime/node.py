"""One connection of a site to its server: ``python -m client.runtime.node KIT``.

Ends when the server refuses the site, a session expires, or on SIGTERM; ``supervisor`` starts it again.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from client.runtime.bundle_check import check_bundle
from client.runtime.killed import WORKER, note_end
from client.runtime.kit_check import require_sound_kit
from client.runtime.last_session import former_node, remember
from client.runtime.node_link import NodeEvents, NodeSettings, TaskSource, run_supernode
from common.atomic import read_small
from common.deployment import SiteKit, open_site_kit
from common.errors import RefusedError
from common.local_log import local_log
from common.processes import child_environment, end_with_parent, python_command
from common.trust.certificates import load_node_key

FALLBACK_POLL_S = 5.0


class Dispatcher:
    """Hands each waiting task to the worker process."""

    def __init__(self, kit: SiteKit, secret: bytes) -> None:
        self._kit, self._secret = kit, secret
        self._waiting = threading.Event()

    def task_waits(self) -> None:
        """Look for a task now."""
        self._waiting.set()

    def start(self, address: str) -> None:
        """Start the worker process and the thread that feeds it."""
        worker = subprocess.Popen(
            python_command("client.runtime.worker", address),
            env=child_environment(),
            stdin=subprocess.PIPE,  # the tokens go this way: a command line or an environment can be read by others
            text=True,
        )
        source = TaskSource(address, self._secret)
        threading.Thread(target=self._feed, args=(source, worker), name="dispatcher", daemon=True).start()
        threading.Thread(target=self._watch, args=(worker,), name="worker-watch", daemon=True).start()

    def _watch(self, worker: subprocess.Popen[str]) -> None:
        note_end(self._kit, WORKER, worker.wait())
        self._waiting.set()

    def _feed(self, source: TaskSource, worker: subprocess.Popen[str]) -> None:
        """Without a worker no message can be answered, so its end, or a failing interface, ends the session."""
        pipe = worker.stdin
        try:
            while pipe is not None and worker.poll() is None:
                self._waiting.wait(FALLBACK_POLL_S)
                self._waiting.clear()
                while (token := source.take_task()) is not None:
                    pipe.write(token + "\n")
                    pipe.flush()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)


def run_node(kit: SiteKit, config: Mapping[str, bool | float | int | str] | None = None) -> None:
    """Connect and answer until the session ends; ``config`` is passed to the site's own client app."""
    settings = kit.read()
    shutil.rmtree(kit.flower_home, ignore_errors=True)  # holds nothing but unpacked bundles of earlier sessions
    kit.flower_home.mkdir(parents=True)
    secret = secrets.token_bytes(32)
    dispatcher = Dispatcher(kit, secret)

    def gate(claimed: str, content: bytes | None) -> None:
        try:
            check_bundle(settings.federation.bundle, claimed, content)
        except RefusedError as error:
            local_log(kit.log).error(f"refused: {error.message}")
            raise

    node = NodeSettings(
        settings.server.address,
        read_small(kit.authority),
        load_node_key(kit.node_key),
        secret,
        config or {},
        former_node(kit),
    )
    events = NodeEvents(dispatcher.start, lambda node_id: remember(kit, node_id), dispatcher.task_waits)
    run_supernode(node, gate, events)


if __name__ == "__main__":
    end_with_parent()
    opened = open_site_kit(Path(sys.argv[1]))
    require_sound_kit(opened)
    run_node(opened)
