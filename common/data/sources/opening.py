"""From settings to a ``Source``."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from common.data.sources.secret import password_of
from common.data.sources.source import Source
from common.errors import BadInputError
from common.source_settings import SourceSettings


def open_source(settings: SourceSettings, folder: Path, scratch: Path | None = None) -> Source:
    """The source that the settings describe; ``folder``: where relative paths start; ``scratch``: where to spill.

    Raises: BadInputError if its password cannot be had.
    """
    from common.data.sources.files import FilesSource
    from common.data.sources.sql import SqlSource

    if settings.kind == "files":
        return FilesSource(settings, folder, scratch)
    return SqlSource(settings, folder, password_of(settings, folder))


def source_settings(path: Path) -> SourceSettings:
    """The table ``[source]`` of a TOML file, ``site.toml`` or one of its own. Raises: BadInputError."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not TOML"
        raise BadInputError(f"cannot read {path}: {reason}", hint="a TOML file with a table [source]") from None
    if not isinstance(tree.get("source"), dict):
        raise BadInputError(f"{path} has no table [source]", hint="docs/data.md has examples")
    try:
        return SourceSettings.model_validate(tree["source"])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(["source", *map(str, first["loc"])])
        raise BadInputError(
            f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}", hint="docs/data.md has examples"
        ) from None
