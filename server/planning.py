"""From settings to a run folder that a server app can start: plan, roster, item rows, first checkpoint."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.atomic import write_atomic
from common.config import RunConfig
from common.deployment import CoordinatorKit
from common.errors import BadInputError, ConfigError
from common.model.sales_series import catalogue_categories
from common.run.files import RunFolder
from common.tasks.heads import SALES
from common.trust.identity import Roster
from server.run_setup import make_plan, write_setup
from server.state import ServerState, save_checkpoint

if TYPE_CHECKING:
    from common.data.catalogue import Catalogue
    from common.data.features import FeatureSpec

LOCK_FILE = "running.lock"
STOP_FILE = "stop.asked"
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
    if config.task == SALES and catalogue is not None and not config.sales.categories:
        names = catalogue_categories(catalogue.categories, catalogue.item_category)
        config = config.model_copy(update={"sales": config.sales.model_copy(update={"categories": names})})
    spec = feature_spec(catalogue, item_buckets=config.features.item_buckets)
    initial = _initial_model(config, spec, base, catalogue.names if catalogue else ())
    plan = make_plan(config, tuple(settings.sites.items()), spec, initial[0].size)
    folder = RunFolder.create(_fresh(kit.runs, config.name))
    roster.save(folder.path / "roster.json")
    masks = shared_item_masks(spec, catalogue, plan.sites, config.aggregation.min_stockists)
    write_setup(folder, plan, masks, initial[1])
    write_atomic(folder.path / "run.toml", config.to_toml().encode())
    save_checkpoint(folder.path / "checkpoints", ServerState.initial(initial[0], plan.digest()))
    return folder


def open_run(kit: CoordinatorKit, name: str) -> RunFolder:
    """A run folder of the kit by name; empty: the newest. Raises: BadInputError."""
    if not name:
        found = sorted(kit.runs.glob("*/plan.json"), key=lambda path: path.stat().st_mtime_ns)
        if not found:
            raise BadInputError("this coordinator has no run", hint="fedcart server run KIT RUN.toml")
        return RunFolder.open(found[-1].parent)
    if not RUN_NAME.fullmatch(name):
        raise BadInputError(f"{name[:60]!r} is not the name of a run", hint=f"look into {kit.runs}")
    return RunFolder.open(kit.runs / name)


@contextmanager
def hold_run(folder: RunFolder) -> Iterator[None]:
    """Hold a run folder: two server apps on one run would ask sites twice. Raises: BadInputError."""
    with open(folder.path / LOCK_FILE, "a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInputError("this run is already under way", hint="wait for it, or stop it first") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        (folder.path / STOP_FILE).unlink(missing_ok=True)
        yield


def holder(folder: RunFolder) -> int | None:
    """Process id of the server app at work on a run folder of this machine, None if there is none."""
    try:
        return int((folder.path / LOCK_FILE).read_text("ascii")) if run_is_held(folder) else None
    except (OSError, ValueError):
        return None


def ask_to_stop(folder: RunFolder) -> None:
    """Let a run end after the round under way. Raises: WorkFailedError (disk)."""
    write_atomic(folder.path / STOP_FILE, b"")


def stop_is_asked(folder: RunFolder) -> bool:
    """Whether the coordinator wants the run to end after the round under way."""
    return (folder.path / STOP_FILE).exists()


def run_is_held(folder: RunFolder) -> bool:
    """Whether a server app is at work on a run folder of this machine."""
    try:
        with open(folder.path / LOCK_FILE, encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


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
