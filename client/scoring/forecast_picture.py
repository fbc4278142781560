"""A sales forecast as a picture: one small chart per category, as SVG without any script or outside file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from markupsafe import Markup

from client.scoring.forecast import Forecast
from common.pages.drawing import Point, Scale, area, dot, grid, picture, series, shortened, text, ticks
from common.tasks.sales_series import Floats

MOST_CHARTS = 24
_WIDTH, _HEIGHT, _GAP, _TOP, _COLUMNS = 420, 190, 24, 84, 2
_LEFT, _ABOVE, _BELOW, _RIGHT = 56, 30, 26, 8
_PAST = 8  # horizons of history that are drawn


PIECES = "pieces sold; line: past, dots: forecast, bands: 80 % and 95 % of the backtest's errors"


def draw(found: Forecast, title: str, about: str = PIECES) -> str:
    """The first channel per period: the last periods, the forecast, and its 80 and 95 % intervals."""
    last = len(found.categories) - 1
    order = ([last, *range(last)] if last > 1 else [0])[:MOST_CHARTS]
    rows = -(-len(order) // _COLUMNS)
    size = _COLUMNS * (_WIDTH + _GAP) + _GAP, _TOP + rows * (_HEIGHT + _GAP) + 8
    parts: list[Markup] = []
    for place, category in enumerate(order):
        corner = (
            _GAP + place % _COLUMNS * (_WIDTH + _GAP),
            _TOP + place // _COLUMNS * (_HEIGHT + _GAP),
        )
        parts += _chart(found, category, corner)
    return picture(title, about, parts, size, _GAP)


def _pieces(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def _chart(found: Forecast, category: int, corner: Point) -> Iterator[Markup]:
    left, top = corner
    ahead = found.values[0, category]
    past = found.history[0, category][-_PAST * len(ahead) :]
    bands = found.bands[:, :, 0, category]  # [levels, low and high, horizon]
    marks = ticks(0.0, max(float(past.max(initial=0.0)), float(bands[-1, 1].max()), 1.0), 3)
    right = left + _WIDTH - _RIGHT
    y = Scale(0.0, marks[-1], top + _HEIGHT - _BELOW, top + _ABOVE, tuple(marks))
    x = Scale(0.0, max(len(past) + len(ahead) - 1, 1), left + _LEFT, right)

    def pixels(begin: int, values: Floats) -> list[Point]:
        return [(x(begin + i), y.inside(float(value))) for i, value in enumerate(np.nan_to_num(values))]

    yield text(left, top + 16, shortened(found.categories[category], 44), "name")
    yield grid(y, left + _LEFT, right, _pieces)
    for kind, (low, high) in zip(("wide", "narrow"), bands[::-1], strict=True):
        yield area(kind, pixels(len(past), high), pixels(len(past), low))
    yield series("past", pixels(0, past))
    told = [f"{period}: {_pieces(round(value, 2))}" for period, value in zip(found.periods, ahead, strict=True)]
    points = pixels(len(past), ahead)
    yield series("ahead", points, [dot(at, words) for at, words in zip(points, told, strict=True)])
    foot = top + _HEIGHT - 8
    yield text(right, foot, found.periods[-1], "tick", "end")
    yield text(left + _LEFT, foot, f"{len(past)} periods before {found.periods[0]}", "tick")
