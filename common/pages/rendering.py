"""The templates that all HTML pages share."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from common.plain_text import shown

if TYPE_CHECKING:
    from jinja2 import Environment


def _plain(value: Any) -> Any:
    """Text that is not marked as ours, without controls that hide or turn what a reader sees; its lines stay lines."""
    return "\n".join(shown(line) for line in value.split("\n")) if type(value) is str else value


@cache
def templates() -> Environment:
    """The templates of this package, escaping everything that is not marked as ours."""
    from jinja2 import Environment, PackageLoader

    return Environment(
        loader=PackageLoader("common.pages"),
        autoescape=True,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
