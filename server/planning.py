"""From settings to a run folder that a server app can start: plan, roster, item rows, first checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.config import RunConfig
from common.deployment import CoordinatorKit
from common.errors import BadInputError, ConfigError
from common.run.files import RunFolder
from common.tasks.registry import task_named
from common.tasks.sales_series import catalogue_categories
from common.trust.identity import Roster
from server.run_setup import make_plan
from server.state import ServerState, save_checkpoint

if TYPE_CHECKING:
    from common.data.catalogue import Catalogue
    from common.data.features import FeatureSpec

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def prepare_run(kit: CoordinatorKit, config: RunConfig, *, base: Path) -> RunFolder:
    """Make a new run folder in the coordinator's kit, its plan fixed for good.

    Paths in ``config`` are relative to ``base``.
    Raises: ConfigError, BadInputError before anything is written.
    """
    from common.data.features import feature_spec
    from common.data.sharing import shared_item_masks

    settings = kit.read()
    _check_sites(config, len(settings.sites))
    roster = Roster.load(kit.roster)
    catalogue = _catalogue(config, base)
    if catalogue is not None:
        names = partial(catalogue_categories, catalogue.categories, catalogue.item_category)
        config = task_named(config.task).with_catalogue(config, names)
    spec = feature_spec(catalogue, item_buckets=config.features.item_buckets)
    initial = _initial_model(config, spec, base, catalogue.names if catalogue else ())
    plan = make_plan(config, tuple(settings.sites.items()), spec, initial[0].size)
    folder = RunFolder.create(_fresh(kit.runs, config.name))
    folder.write_roster(roster)
    masks = shared_item_masks(spec, catalogue, plan.sites, config.aggregation.min_stockists)
    folder.write_item_rows(masks, initial[1])
    folder.write_plan(plan)
    folder.write_settings(config)
    save_checkpoint(folder.checkpoints, ServerState.initial(initial[0], plan.digest()))
    return folder


def open_run(kit: CoordinatorKit, name: str) -> RunFolder:
    """A run folder of the kit by name; empty: the newest. Raises: BadInputError."""
    if not name:
        runs = RunFolder.all_in(kit.runs)
        if not runs:
            raise BadInputError("this coordinator has no run", hint="fedcart server run KIT RUN.toml")
        return runs[-1]
    if not RUN_NAME.fullmatch(name):
        raise BadInputError(f"{name[:60]!r} is not the name of a run", hint=f"look into {kit.runs}")
    return RunFolder.open(kit.runs / name)


def _check_sites(config: RunConfig, sites: int) -> None:
    if config.aggregation.mode != "secure":
        raise ConfigError(
            "aggregation.mode = plain is for simulations: the server would see each site",
            hint='set mode = "secure"',
        )
    if sites < max(config.aggregation.min_sites, 3):
        raise ConfigError(
            f"{sites} sites are in the federation, {max(config.aggregation.min_sites, 3)} are needed",
            hint="add sites to federation.toml and provision again",
        )


def _catalogue(config: RunConfig, base: Path) -> Catalogue | None:
    from common.data.catalogue import read_catalogue

    if config.data.catalogue:
        return read_catalogue(base / config.data.catalogue)
    if not config.features.item_buckets:
        raise ConfigError(
            "a deployed run needs a public catalogue, or hashed items",
            hint="set data.catalogue to the file that all sites have, or features.item_buckets=1000",
        )
    return None


def _initial_model(
    config: RunConfig, spec: FeatureSpec, base: Path, names: Sequence[str]
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], Any]:
    """Parameters before round 1, and the catalogue row of each coordinate (-1: none)."""
    from common.model.item_names import begin_with_names
    from common.model.network import SequenceModel
    from common.model.parameters import FlatParameters
    from common.model.run_model import item_rows_of, run_model
    from common.model.transfer import adopt

    model = run_model(config, spec.canonical())
    if isinstance(model, SequenceModel):
        begin_with_names(model, names)
    if config.start_from and isinstance(model, SequenceModel):
        adopt(model, base / config.start_from, spec)
    return FlatParameters(model).numpy(), item_rows_of(model)


def _fresh(runs: Path, name: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    candidate, count = runs / f"{name}-{stamp}", 1
    while candidate.exists():
        count += 1
        candidate = runs / f"{name}-{stamp}-{count}"
    return candidate
