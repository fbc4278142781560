"""A site's consumers as the model sees them, kept in the state folder under a name that says from what they were made.

In a deployment every message is a new process: it maps the file, and reads no more of it than it needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.atomic import private_folder
from common.deployment import SiteKit
from common.run import RunConfig, RunPlan

if TYPE_CHECKING:
    from common.data import ConsumerSequences, Sides, Split

ROWS_SUFFIX = ".rows"
_BEGIN = "consumers-"


@dataclass(frozen=True)
class PreparedConsumers:
    """A site's consumers, encoded for one feature spec: the rows of each part, public item mask.

    Shapes: ``mask: bool[items + 1]``, entry 0 always False.
    """

    sides: Sides
    mask: NDArray[np.bool_]


def prepared_path(kit: SiteKit, plan: RunPlan, source: str = "") -> Path:
    """Where the encoded consumers are kept: a name made from all that they, their split and the item mask depend on.

    ``source`` changes with the events and with the key of the split; it is the second half of the name.
    """
    settings = plan.config
    read = (settings.features.max_events, settings.cut_us, settings.training.dates_us)
    parts = (settings.privacy.holdout, settings.privacy.validation)
    asked = (plan.features, read, plan.sites, settings.aggregation.min_stockists, parts)
    names = [hashlib.sha256(repr(part).encode()).hexdigest()[:16] for part in (asked, source)]
    return kit.state / f"{_BEGIN}{'-'.join(names)}{ROWS_SUFFIX}"


def split_of(config: RunConfig, key: bytes) -> Split:
    """How a run deals a site's consumers to its three parts. ``key``: the site's own."""
    from common.data import Split

    privacy = config.privacy
    return Split(key, privacy.holdout, privacy.validation, config.training.dates_us, config.features.max_events)


def store_sequences(
    path: Path, pieces: Iterable[ConsumerSequences], mask: NDArray[np.bool_], split: Split
) -> None:
    """Write encoded consumers, piece by piece, readable by the owner only.

    What was prepared for the same plans from an older log is removed. Raises: WorkFailedError (disk).
    """
    from common.data.store.rows import write_rows

    private_folder(path.parent)
    write_rows(path, map(split.of, pieces), mask)
    same = path.name.rpartition("-")[0]
    for older in path.parent.glob(f"{_BEGIN}*{ROWS_SUFFIX}"):
        if older != path and older.name.rpartition("-")[0] == same:
            older.unlink(missing_ok=True)  # a process that still maps it keeps what it has mapped


def load_prepared(path: Path) -> PreparedConsumers:
    """Map what was stored; a process that asks again gets the same object until the file changes.

    Raises: BadInputError if it is damaged.
    """
    status = path.stat()
    return _load(path, status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=1_024)
def _load(path: Path, _file: int, _changed: int) -> PreparedConsumers:
    from common.data.store.rows import open_rows

    stored = open_rows(path)
    return PreparedConsumers(stored.sides, stored.mask)
