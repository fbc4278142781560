"""Options that several commands share, as one value each: no tuples of five, no ``locals()``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reading:
    """How a local command reads model and event log.

    ``format`` "" recognises the preset by its columns; ``site``: only items that this site stocks; ``state``: folder of
    the pseudonym key; ``with_ids``: original consumer ids in the output.
    """

    format: str = ""
    catalogue: Path | None = None
    site: str = ""
    state: Path | None = None
    with_ids: bool = False


@dataclass(frozen=True)
class Target:
    """Where a result goes. ``out`` None: to the screen; ``json``: as one JSON value."""

    out: Path | None = None
    json: bool = False
