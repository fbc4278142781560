"""From a scenario in TOML, and overrides ``section.key=value``, to the settings of a run; and what is wrong, in words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from common.atomic import read_small
from common.errors import ConfigError
from common.recipes import with_recipe
from common.run.config import RunConfig


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a scenario and apply ``section.key=value`` overrides (values in TOML syntax, bare words are strings).

    Raises: ConfigError for a missing or malformed file, an unknown key, or an impossible value.
    """
    return build_config(read_toml(path) if path else {}, overrides)


def build_config(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Validate a nested mapping of settings after applying overrides. Raises: ConfigError."""
    merged = _copy(tree)
    for override in overrides:
        _apply_override(merged, override)
    try:
        return RunConfig.model_validate(with_recipe(merged))
    except ValidationError as error:
        raise _config_error(error) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises: ConfigError."""
    try:
        return tomllib.loads(read_small(path).decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no such file: {path}", hint="check the path; `fedcart simulate --help` lists scenarios"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", hint="a scenario is a text file in TOML") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deep", hint="no settings of this program are") from None
    except ValueError as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}", hint="compare with a file in simulations/scenarios"
        ) from None


def _copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in tree.items()}


def _apply_override(tree: dict[str, Any], override: Any) -> None:
    override = str(override)
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise ConfigError(f"override {override!r} is not KEY=VALUE", hint="for example: --set training.rounds=5")
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(
                f"{path!r} does not name a setting", hint="settings are section.key, for example training.rounds"
            )
    tree[keys[-1]] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _config_error(error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "settings"
    if first["type"] == "extra_forbidden":
        return ConfigError(f"unknown setting: {where}", hint=f"known here: {', '.join(_known(first['loc'][:-1]))}")
    message = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f": {first['input']!r}"
    return ConfigError(
        f"{where}{given}: {message[:1].lower()}{message[1:]}",
        hint="see docs/simulate.md for every setting and its limits",
    )


def _known(location: Sequence[object]) -> list[str]:
    section: type[BaseModel] = RunConfig
    for part in location:
        annotation = section.model_fields[str(part)].annotation if str(part) in section.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        section = annotation
    return sorted(section.model_fields)
