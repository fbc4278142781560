"""An explanation as a picture: horizontal bars, one per event, as SVG without any script or outside file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from common.pages.drawing import Scale, box, picture, rule, shortened, text

_ROW, _TOP, _LABEL, _BARS, _RIGHT, _LEFT = 22, 74, 380, 420, 90, 16
_ROOM = 50  # for the number at the end of a bar


@dataclass(frozen=True)
class AttributionBar:
    """One event: its label, its contribution (length and side of the bar), and a second number if there is one."""

    label: str
    value: float
    attention: float | None = None


def svg(title: str, subtitle: str, bars: Sequence[AttributionBar]) -> str:
    """Draw the bars top to bottom in the given order; the sign is written out, colour only repeats it."""
    height, width = _TOP + _ROW * len(bars) + 34, _LABEL + _BARS + _RIGHT
    largest = max((abs(bar.value) for bar in bars if np.isfinite(bar.value)), default=0.0) or 1.0
    x = Scale(-largest, largest, _LABEL + _ROOM, _LABEL + _BARS - _ROOM)
    parts = [rule("rule", (x(0), _TOP - 8), (x(0), height - 30))]
    for place, bar in enumerate(bars):
        parts += _row(bar, _TOP + _ROW * place, x)
    about = "bars to the right speak for the answer, to the left against it; oldest event first"
    return picture(title, subtitle, [*parts, text(_LEFT, height - 10, about, "about")], (width, height), _LEFT)


def _row(bar: AttributionBar, y: int, x: Scale) -> list[Markup]:
    value = bar.value if np.isfinite(bar.value) else 0.0
    begin, end = sorted((x(0), x(value)))
    number, anchor = (end + 6, "start") if value >= 0 else (begin - 6, "end")
    parts = [
        text(_LABEL - 12, y + 13, shortened(bar.label, 54), anchor="end"),
        box("for" if value >= 0 else "against", (begin, y + 2), (max(end - begin, 0.5), _ROW - 8)),
        text(number, y + 13, f"{value:+.3f}", "value", anchor),
    ]
    if bar.attention is not None:
        parts.append(text(_LABEL + _BARS + 8, y + 13, f"attention {bar.attention:.0%}", "tick"))
    return parts
