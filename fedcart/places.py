"""What counts as a place: a path, or anything that lies somewhere, such as a Run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, TypeAlias


class Placed(Protocol):
    """Something with a folder or a file."""

    @property
    def path(self) -> Path:
        """Where it lies."""


Place: TypeAlias = str | os.PathLike[str] | Placed


def path_of(place: Place) -> Path:
    """The path of a place."""
    return Path(place) if isinstance(place, str | os.PathLike) else place.path


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``section.key`` -> value."""
    plain: dict[str, Any] = {}
    for key, value in tree.items():
        plain |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return plain
