"""``--engine ray``: the same apps on Flower's own simulation runtime, the way past one machine.

Optional (the ``ray`` extra). Slower to start and per exchange than the in-process Grid, but Ray can spread
the sites over a cluster. The runtime knows its nodes by partition number, so a thin ClientApp puts each
site's node config in place before ours answers.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from common.errors import ConfigError
from common.extensions import Registered, registered
from common.processes import SAFE_PATH
from common.run import RunConfig
from simulations.grid import LossPlan, Node


class _SiteApp(ClientApp):
    """Our ClientApp, told by its partition number which site it is."""

    def __init__(self, nodes: Sequence[Node], loss: LossPlan) -> None:
        super().__init__()
        self._nodes, self._loss = list(nodes), loss

    def __call__(self, message: Message, context: Context) -> Message:
        from client.app import app

        node = self._nodes[int(context.node_config["partition-id"])]
        if self._loss(node.node_id, message.metadata.group_id, message.metadata.message_type):
            raise ConnectionError("node lost (scripted)")
        context.node_config = {**context.node_config, **node.config}
        return app(message, context)


def run_on_ray(
    app: ServerApp, nodes: Sequence[Node], loss: LossPlan, server: dict[str, Any], config: RunConfig
) -> None:
    """Run the apps on Flower's simulation runtime until the ServerApp returns.

    Raises: ConfigError if Ray is not installed; whatever the ServerApp raises.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("the engine ray needs Ray", hint="pip install 'fedcart[ray]', or leave out --engine")
    if registered() != Registered():
        raise ConfigError("Ray's workers do not know what this program registered", hint="use --engine inprocess")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ[SAFE_PATH] = "1"  # Ray's processes do not begin with the current folder on their path
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from flwr.simulation import run_simulation

    wrapped = ServerApp()

    @wrapped.main()
    def main(grid: Grid, context: Context) -> None:
        context.run_config = dict(server)
        app(grid, context)

    workers = config.performance.workers or os.cpu_count() or 1
    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": workers, "include_dashboard": False, "log_to_driver": False},
    }
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(wrapped, _SiteApp(nodes, loss), len(nodes), backend_config=backend)  # type: ignore[arg-type]
