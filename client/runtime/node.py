"""One connection of a site to its server: ``python -m client.runtime.node KIT``.

Ends when the server refuses the site, a session expires, or on SIGTERM; ``supervisor`` starts it again.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from client.runtime.bundle_check import check_bundle
from client.runtime.kit_check import require_sound_kit
from client.runtime.last_session import former_node, remember
from client.runtime.node_link import NodeEvents, NodeSettings, run_supernode
from client.runtime.tasks import Dispatcher
from common.deployment import SiteKit, open_site_kit
from common.errors import RefusedError
from common.local_log import local_log
from common.processes import end_with_parent


def run_node(kit: SiteKit, config: Mapping[str, bool | float | int | str] | None = None) -> None:
    """Connect and answer until the session ends; ``config`` is passed to the site's own client app."""
    from common.atomic import read_small
    from common.trust.certificates import load_node_key

    settings = kit.read()
    shutil.rmtree(kit.flower_home, ignore_errors=True)  # holds nothing but unpacked bundles of earlier sessions
    kit.flower_home.mkdir(parents=True)
    dispatcher = Dispatcher(kit)

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
