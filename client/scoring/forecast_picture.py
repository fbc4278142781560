"""A sales forecast as a picture: one small chart per category, as SVG without any script or outside file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import numpy as np

from client.scoring.forecast import Forecast
from common.tasks.sales_series import Floats

MOST_CHARTS = 24
_WIDTH, _HEIGHT, _GAP, _TOP, _COLUMNS = 420, 190, 24, 84, 2
_LEFT, _ABOVE, _BELOW = 56, 30, 26
_INK, _FAINT, _LINE, _WIDE, _NARROW = "#1f2933", "#8a94a0", "#0b6e99", "#d5e8f0", "#9fcadd"
_PAST = 8  # horizons of history that are drawn


@dataclass(frozen=True)
class _Place:
    """Pixels of a chart: its corner, and how periods and values become pixels."""

    left: float
    top: float
    periods: int
    most: float

    def x(self, period: float) -> float:
        return self.left + _LEFT + period / max(self.periods - 1, 1) * (_WIDTH - _LEFT - 8)

    def y(self, value: float) -> float:
        return self.top + _ABOVE + (1 - value / self.most) * (_HEIGHT - _ABOVE - _BELOW)


def draw(found: Forecast, title: str) -> str:
    """Quantity per period: the last periods, the forecast, and its 80 and 95 % intervals."""
    last = len(found.categories) - 1
    order = ([last, *range(last)] if last > 1 else [0])[:MOST_CHARTS]
    rows = -(-len(order) // _COLUMNS)
    width = _COLUMNS * (_WIDTH + _GAP) + _GAP
    height = _TOP + rows * (_HEIGHT + _GAP) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="12" fill="{_INK}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_GAP}" y="32" font-size="17" font-weight="600">{escape(title)}</text>',
        f'<text x="{_GAP}" y="54" fill="{_FAINT}">pieces sold; line: past, dots: forecast, bands: 80 % and 95 % of the '
        "backtest's errors</text>",
    ]
    for place, category in enumerate(order):
        left = _GAP + place % _COLUMNS * (_WIDTH + _GAP)
        lines += _chart(found, category, left, _TOP + place // _COLUMNS * (_HEIGHT + _GAP))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _chart(found: Forecast, category: int, left: float, top: float) -> Iterator[str]:
    ahead = found.values[0, category]
    past = found.history[0, category][-_PAST * len(ahead) :]
    bands = found.bands[:, :, 0, category]  # [levels, low and high, horizon]
    most = max(float(past.max(initial=0.0)), float(bands[-1, 1].max()), 1.0)
    place = _Place(left, top, len(past) + len(ahead), most)
    yield f'<text x="{left}" y="{top + 16}" font-weight="600">{escape(_short(found.categories[category]))}</text>'
    for value in (0.0, most):
        y = place.y(value)
        yield f'<line x1="{left + _LEFT}" x2="{left + _WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e7eb"/>'
        yield f'<text x="{left + _LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{_FAINT}">{value:,.0f}</text>'
    for colour, band in zip((_WIDE, _NARROW), bands[::-1], strict=True):
        yield _area(place, len(past), band, colour)
    yield f'<polyline fill="none" stroke="{_INK}" points="{_points(place, 0, past)}"/>'
    yield f'<polyline fill="none" stroke="{_LINE}" stroke-dasharray="3 3" points="{_points(place, len(past), ahead)}"/>'
    for i, value in enumerate(ahead):
        dot = f'<circle cx="{place.x(len(past) + i):.1f}" cy="{place.y(value):.1f}" r="3" fill="{_LINE}">'
        yield f"{dot}<title>{found.periods[i]}: {value:,.0f}</title></circle>"
    y = top + _HEIGHT - 8
    yield f'<text x="{left + _WIDTH - 8}" y="{y}" text-anchor="end" fill="{_FAINT}">{found.periods[-1]}</text>'
    yield f'<text x="{left + _LEFT}" y="{y}" fill="{_FAINT}">{len(past)} periods before {found.periods[0]}</text>'


def _area(place: _Place, begin: int, band: Floats, colour: str) -> str:
    low, high = band
    there = _points(place, begin, high)
    back = " ".join(reversed(_points(place, begin, low).split()))
    return f'<polygon fill="{colour}" points="{there} {back}"/>'


def _points(place: _Place, begin: int, values: Floats) -> str:
    numbered = enumerate(np.nan_to_num(values))
    return " ".join(f"{place.x(begin + i):.1f},{place.y(float(value)):.1f}" for i, value in numbered)


def _short(label: str) -> str:
    return label if len(label) <= 44 else label[:43] + "…"
