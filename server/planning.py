"""From settings to a run folder that a server app can start: plan, roster, item rows, first checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.deployment import CoordinatorKit
from common.errors import BadInputError, ConfigError
from common.privacy import delta_for
from common.run import RunConfig, RunFolder, RunPlan, build_config, read_toml, taken_folder
from common.tasks import task_named
from common.trust import Roster
from server.run_setup import make_plan
from server.state import ServerState, save_checkpoint

if TYPE_CHECKING:
    from common.data import Catalogue, FeatureSpec

DEPLOYED_EPSILON = (
    3.0  # where settings name none: a site's usual limit is 8, and should last for more than one run
)
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def deployed_settings(kit: CoordinatorKit, file: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Settings of a deployed run, with what a deployment adds where they say nothing.

    Epsilon: a part of a site's life, not all of it. Delta: what provisioning wrote for the site with most consumers.
    Raises: ConfigError.
    """
    tree = read_toml(file)
    privacy = tree.setdefault("privacy", {})
    if isinstance(privacy, dict):
        privacy.setdefault("epsilon", DEPLOYED_EPSILON)
        privacy.setdefault("delta", delta_for(max(kit.read().sites.values(), default=1)))
    return build_config(tree, overrides)


def needed_sites(config: RunConfig) -> int:
    """So many sites a deployed run needs at least: no sum is ever of fewer."""
    return max(config.aggregation.min_sites, 3)


def plan_of_run(kit: CoordinatorKit, config: RunConfig, *, base: Path) -> RunPlan:
    """The plan that such a run would have; nothing is written. Raises: ConfigError, BadInputError."""
    return _planned(kit, config, base)[0]


def prepare_run(kit: CoordinatorKit, config: RunConfig, *, base: Path) -> RunFolder:
    """Make a new run folder in the coordinator's kit, its plan fixed for good.

    Paths in ``config`` are relative to ``base``. What ``remark_on_stock`` says of these settings is done.
    Raises: ConfigError, BadInputError before anything is written.
    """
    from common.data import write_catalogue
    from common.data.sharing import shared_item_masks

    plan, config, spec, catalogue, initial = _planned(kit, config, base)
    roster = Roster.load(kit.roster)
    folder = RunFolder.create(_new_folder(kit.runs, config.name))
    folder.write_roster(roster)
    masks = shared_item_masks(spec, catalogue, plan.sites, config.aggregation.min_stockists)
    folder.write_item_rows(masks, initial[1])
    folder.write_plan(plan)
    if catalogue is not None:  # what the model's rows mean: `predict` needs it, and so does an auditor
        write_catalogue(catalogue, folder.catalogue_file)
    folder.write_settings(config)
    save_checkpoint(folder.checkpoints, ServerState.initial(initial[0], plan.digest()))
    return folder


def remark_on_stock(kit: CoordinatorKit, config: RunConfig, *, base: Path) -> str:
    """What is made of settings that leave it open where sites share no item; empty if nothing. Raises: as ``plan_of_run``."""
    catalogue = _catalogue(kit, config, base)
    return _fitted(config, catalogue, tuple(kit.read().sites))[2]


def _fitted(
    config: RunConfig, catalogue: Catalogue | None, sites: tuple[str, ...]
) -> tuple[RunConfig, Catalogue | None, str]:
    """Settings and catalogue of a run, hashed items in their place where sites share none; and a word about it.

    Raises: ConfigError if some site shares no item and the settings want it so.
    """
    from common.data import feature_spec
    from common.data.sharing import require_shared_items, shared_item_masks, with_hashed_items

    if not task_named(config.task).looks_up_items:
        return config, catalogue, ""
    spec, needed = (
        feature_spec(catalogue, item_buckets=config.features.item_buckets),
        config.aggregation.min_stockists,
    )
    masks = shared_item_masks(spec, catalogue, sites, needed)
    hashed = with_hashed_items(config, masks)
    if hashed is not None:
        return hashed[0], None, hashed[1]
    require_shared_items(masks, needed)
    return config, catalogue, ""


def _planned(
    kit: CoordinatorKit, config: RunConfig, base: Path
) -> tuple[RunPlan, RunConfig, FeatureSpec, Catalogue | None, Any]:
    from common.data import feature_spec
    from common.tasks.sales_series import catalogue_categories

    settings = kit.read()
    _check_sites(config, len(settings.sites))
    catalogue = _catalogue(kit, config, base)
    if catalogue is not None:
        names = partial(catalogue_categories, catalogue.categories, catalogue.item_category)
        config = task_named(config.task).with_catalogue(config, names)
    config, catalogue, _ = _fitted(config, catalogue, tuple(settings.sites))
    spec = feature_spec(catalogue, item_buckets=config.features.item_buckets)
    initial = _initial_model(config, spec, base, catalogue.names if catalogue else ())
    plan = make_plan(config, tuple(settings.sites.items()), spec, initial[0].size)
    return plan, config, spec, catalogue, initial


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
    if sites < needed_sites(config):
        raise ConfigError(
            f"{sites} sites are in the federation, {needed_sites(config)} are needed",
            hint="add sites to federation.toml and provision again",
        )


def _catalogue(kit: CoordinatorKit, config: RunConfig, base: Path) -> Catalogue | None:
    """The one that the settings name, else the one that provisioning gave to all kits; none for hashed items."""
    from common.data import read_catalogue

    if config.data.catalogue:
        return read_catalogue(base / config.data.catalogue)
    if kit.catalogue.is_file():
        return read_catalogue(kit.catalogue)
    if not config.features.item_buckets:
        raise ConfigError(
            "a deployed run needs a public catalogue, or hashed items",
            hint="name it in federation.toml and provision again, or set data.catalogue to the file that all sites have, "
            "or features.item_buckets=1000",
        )
    return None


def _initial_model(
    config: RunConfig, spec: FeatureSpec, base: Path, names: Sequence[str]
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], Any]:
    """Parameters before round 1, and the catalogue row of each coordinate (-1: none)."""
    from common.model import FlatParameters, SequenceModel
    from common.model.item_names import begin_with_names
    from common.model.run_model import item_rows_of, run_model
    from common.model.transfer import adopt

    model = run_model(config, spec.canonical())
    if isinstance(model, SequenceModel):
        begin_with_names(model, names)
    if config.start_from and isinstance(model, SequenceModel):
        adopt(model, base / config.start_from, spec)
    return FlatParameters(model).numpy(), item_rows_of(model)


def _new_folder(runs: Path, name: str) -> Path:
    return taken_folder(runs / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
