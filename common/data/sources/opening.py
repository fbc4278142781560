"""From settings to a ``Source``."""

from __future__ import annotations

from pathlib import Path

from common.data.sources.files import FilesSource
from common.data.sources.secret import password_of
from common.data.sources.source import Source
from common.data.sources.sql import SqlSource
from common.source_settings import SourceSettings


def open_source(settings: SourceSettings, folder: Path, scratch: Path | None = None) -> Source:
    """The source that the settings describe; ``folder``: where relative paths start; ``scratch``: where to spill.

    Raises: BadInputError if its password cannot be had.
    """
    if settings.kind == "files":
        return FilesSource(settings, folder, scratch)
    return SqlSource(settings, folder, password_of(settings, folder))
