"""Settings of a run, from a scenario or from a mapping, with what a notebook gives in place of paths and keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import common.run as rooms
from common.errors import ConfigError
from fedcart.places import Place, optional_path


def load_config(path: Place | None, overrides: Sequence[str] = ()) -> rooms.RunConfig:
    """Read a scenario (a TOML file) and apply ``section.key=value`` overrides; None: the usual settings.

    Raises: ConfigError for a missing or malformed file, an unknown key, or an impossible value; BadInputError.
    """
    return rooms.load_config(optional_path(path), overrides)


def build_config(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> rooms.RunConfig:
    """Check a nested mapping of settings after applying overrides. Raises: ConfigError."""
    return rooms.build_config(as_settings(tree), overrides)


def as_settings(tree: Any) -> dict[str, Any]:
    """Settings as somebody gave them, once it is sure that they are keys and values. Raises: ConfigError."""
    if not isinstance(tree, Mapping):
        raise ConfigError(
            f"settings is a {type(tree).__name__}, not keys and values", hint='as in {"model.hidden": 64}'
        )
    for key, value in tree.items():
        if not isinstance(key, str):
            raise ConfigError(f"{key!r} is not the key of a setting", hint='as in {"model.hidden": 64}')
        if isinstance(value, Mapping):
            as_settings(value)
    return dict(tree)
