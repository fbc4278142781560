"""The templates that all HTML pages share."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def templates() -> Environment:
    """The templates of this package, escaping everything that is not marked as ours."""
    from jinja2 import Environment, PackageLoader

    return Environment(
        loader=PackageLoader("common.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
