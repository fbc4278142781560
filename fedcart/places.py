"""What counts as a place: a path, or anything that lies somewhere, such as a Run."""

from __future__ import annotations

import numbers
import os
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from common.errors import BadInputError


class Placed(Protocol):
    """Something with a folder or a file."""

    @property
    def path(self) -> Path:
        """Where it lies."""


Place: TypeAlias = str | int | os.PathLike[str] | Placed


def path_of(place: Place) -> Path:
    """The path of a place; a number is the name of a folder. Raises: BadInputError for what lies nowhere."""
    path: Any = getattr(place, "path", place)
    if isinstance(path, numbers.Integral) and str(path) not in ("True", "False"):
        return Path(str(path))
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str) or "\0" in os.fspath(path):
        raise BadInputError(f"{place!r:.60} is not a place", hint="give a path as text, or a Run")
    return Path(path)


def optional_path(place: Place | None) -> Path | None:
    """The path of a place that may be left out. Raises: BadInputError."""
    return None if place is None else path_of(place)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``section.key`` -> value."""
    plain: dict[str, Any] = {}
    for key, value in tree.items():
        plain |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return plain
