"""The two ways to run a ServerApp over simulated sites: our in-process Grid, and Flower's Ray runtime."""

from __future__ import annotations

import os
import random
from typing import Any

from flwr.serverapp import ServerApp

import common.flower as flower
from common.run import RunConfig
from simulations.grid import InProcessGrid, LossPlan, Node, nothing_lost
from simulations.workers import WorkerPool

RUN_ID = 1
_PHASES = ("query.advertise", "query.share", "query.accept", "query.mask", "query.confirm", "query.unmask")


def run_apps(
    app: ServerApp, sites: dict[str, dict[str, Any]], server: dict[str, Any], config: RunConfig, pool: WorkerPool
) -> None:
    """Run a ServerApp over one ClientApp per site until it returns.

    ``sites``: node config of each site; ``server``: run config of the ServerApp.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    speed = {
        "trainer": config.performance.trainer,
        "micro_batch": config.performance.micro_batch,
        "simulated": True,
    }
    nodes = [Node(100 + i, facts | speed) for i, facts in enumerate(sites.values())]
    if config.performance.engine == "ray":
        from simulations.ray_engine import run_on_ray

        run_on_ray(app, nodes, random_losses(config), server, config)
        return
    grid = InProcessGrid(RUN_ID, nodes, pool, random_losses(config), server)
    app(grid, flower.new_context(RUN_ID, flower.SERVER_NODE_ID, {}, server))


def random_losses(config: RunConfig) -> LossPlan:
    """Lose a share of the sites in every round, each from a random phase on; the same for the same seed."""
    if config.drop == 0:
        return nothing_lost
    phases = _PHASES if config.aggregation.mode == "secure" else ("query.contribute",)

    def lost(node: int, group: str, kind: str) -> bool:
        if kind not in phases:
            return False
        draw = random.Random(f"{config.seed}/{group.split('.')[0]}/{node}")
        return draw.random() < config.drop and phases.index(kind) >= draw.randrange(len(phases))

    return lost
