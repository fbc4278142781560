"""The templates that all HTML pages share."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from common.plain_text import shown

if TYPE_CHECKING:
    from jinja2 import Environment


def _plain(value: Any) -> Any:
    """Text that is not marked as ours, without controls that hide or turn what a reader sees; its lines stay lines."""
    return "\n".join(shown(line) for line in value.split("\n")) if type(value) is str else value


# Controls but tab and line feed, marks without a width or that turn the direction, and line ends of other kinds.
_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def harmless(page: str) -> str:
    """A whole page with whatever acts and is not seen spelt out, from wherever it came: a value, a drawing, a filter."""
    return _ACTS.sub(lambda found: shown(found.group()), page)


@cache
def templates() -> Environment:
    """The templates of this package, escaping everything that is not marked as ours."""
    from jinja2 import Environment, PackageLoader, Template

    class Harmless(Template):
        def render(self, *arguments: Any, **named: Any) -> str:
            return harmless(super().render(*arguments, **named))

    made = Environment(
        loader=PackageLoader("common.pages"),
        autoescape=True,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.template_class = Harmless
    return made
