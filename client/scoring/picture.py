"""An explanation as a picture: horizontal bars, one per event, as SVG without any script or outside file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

_ROW, _TOP, _LABEL, _BARS, _RIGHT = 22, 74, 380, 420, 90
_FOR, _AGAINST, _INK, _FAINT = "#0b6e99", "#b5532a", "#1f2933", "#8a94a0"


@dataclass(frozen=True)
class Bar:
    """One event: its label, its contribution (length and side of the bar), and a second number if there is one."""

    label: str
    value: float
    attention: float | None = None


def svg(title: str, subtitle: str, bars: Sequence[Bar]) -> str:
    """Draw the bars top to bottom in the given order; the sign is written out, colour only repeats it."""
    height, width = _TOP + _ROW * len(bars) + 34, _LABEL + _BARS + _RIGHT
    largest = max((abs(bar.value) for bar in bars if np.isfinite(bar.value)), default=0.0) or 1.0
    middle, half = _LABEL + _BARS / 2, _BARS / 2 - 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="13" fill="{_INK}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="28" font-size="17" font-weight="600">{escape(title)}</text>',
        f'<text x="16" y="50" fill="{_FAINT}">{escape(subtitle)}</text>',
        f'<line x1="{middle}" x2="{middle}" y1="{_TOP - 8}" y2="{height - 30}" stroke="{_FAINT}"/>',
    ]
    for place, bar in enumerate(bars):
        lines += _row(bar, _TOP + _ROW * place, (middle, half / largest))
    lines.append(
        f'<text x="16" y="{height - 10}" fill="{_FAINT}">bars to the right speak for the answer, '
        f"to the left against it; oldest event first</text>"
    )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _row(bar: Bar, y: int, scale: tuple[float, float]) -> list[str]:
    middle, unit = scale
    value = bar.value if np.isfinite(bar.value) else 0.0
    length = abs(value) * unit
    begin = middle if value >= 0 else middle - length
    at, anchor = (middle + length + 6, "start") if value >= 0 else (middle - length - 6, "end")
    lines = [
        f'<text x="{_LABEL - 12}" y="{y + 13}" text-anchor="end">{escape(_short(bar.label))}</text>',
        f'<rect x="{begin:.1f}" y="{y + 2}" width="{max(length, 0.5):.1f}" height="{_ROW - 8}" '
        f'fill="{_FOR if value >= 0 else _AGAINST}"/>',
        f'<text x="{at:.1f}" y="{y + 13}" text-anchor="{anchor}" font-size="11">{value:+.3f}</text>',
    ]
    if bar.attention is not None:
        lines.append(
            f'<text x="{_LABEL + _BARS + 8}" y="{y + 13}" font-size="11" fill="{_FAINT}">'
            f"attention {bar.attention:.0%}</text>"
        )
    return lines


def _short(label: str) -> str:
    return label if len(label) <= 54 else label[:53] + "…"


def html(title: str, picture: str) -> str:
    """The picture as a page of its own."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head>\n'
        f'<body style="margin:24px">\n{picture}</body></html>\n'
    )
