"""A stock plan as a picture: per item the demand of the lead time, its interval, and the reorder point. No script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from common.pages.drawing import Point, Scale, box, dot, picture, rule, short_number, shortened, text, ticks

MOST_ITEMS = 30
_ROW, _TOP, _NAMES, _BARS, _ORDERS, _LEFT, _FOOT = 24, 92, 220, 520, 110, 16, 40


def draw(columns: Mapping[str, Sequence[Any]], title: str, about: str) -> str:
    """The first lines of a stock table, one scale for all of them."""
    shown = min(len(columns["item"]), MOST_ITEMS)
    names = ("high80", "reorder_point", *(("on_hand",) if "on_hand" in columns else ()))
    most = max([1.0, *(float(value) for name in names[:2] for value in columns[name][:shown])])
    marks = ticks(0.0, most)
    x = Scale(0.0, marks[-1], _NAMES, _NAMES + _BARS, tuple(marks))
    foot = _TOP + _ROW * shown
    parts = [text(_NAMES + _BARS + _ORDERS - 8, _TOP - 14, "to order", "tick", "end")]
    for mark in marks:
        parts += [
            rule("grid", (x(mark), _TOP - 6), (x(mark), foot)),
            text(x(mark), foot + 16, short_number(mark), "tick", "middle"),
        ]
    for row in range(shown):
        parts += _row({name: values[row] for name, values in columns.items()}, _TOP + _ROW * row, x)
    parts.append(text(_NAMES + _BARS, foot + 32, "pieces in the lead time", "axis", "end"))
    parts.append(_legend("on_hand" in columns))
    return picture(title, about, parts, (_NAMES + _BARS + _ORDERS, foot + _FOOT), _LEFT)


def _row(line: Mapping[str, Any], y: int, x: Scale) -> list[Markup]:
    middle = y + _ROW / 2 - 2
    low, high, reorder = (x.inside(float(line[name])) for name in ("low80", "high80", "reorder_point"))
    told = f"{line['item']}: forecast {line['forecast']:,.1f}, 80 % {line['low80']:,.1f} to {line['high80']:,.1f}"
    parts = [
        text(_NAMES - 10, middle + 4, shortened(str(line["item"]), 30), anchor="end"),
        box("narrow", (low, y + 3), (max(high - low, 1.0), _ROW - 10), told),
        Markup('<g class="series ahead">{}</g>').format(dot((x.inside(float(line["forecast"])), middle), told)),
        rule("against-line", (reorder, y), (reorder, y + _ROW - 4)),
        text(_NAMES + _BARS + _ORDERS - 8, middle + 4, f"{line['order']:,}", "value", "end"),
    ]
    if "on_hand" in line:
        parts.append(_diamond((x.inside(float(line["on_hand"])), middle), f"on hand: {line['on_hand']:,.0f}"))
    return parts


def _diamond(at: Point, told: str) -> Markup:
    x, y = at
    corners = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 5:.1f} {x - 5:.1f},{y:.1f}"
    return Markup('<polygon class="rule" points="{}"><title>{}</title></polygon>').format(corners, told)


def _legend(stocked: bool) -> Markup:
    y, x = _TOP - 18, _NAMES
    parts = [
        box("narrow", (x, y - 9), (18, 10)), text(x + 24, y, "80 % of lead times", "tick"),
        Markup('<g class="series ahead">{}</g>').format(dot((x + 142, y - 4))), text(x + 150, y, "forecast", "tick"),
        rule("against-line", (x + 216, y - 11), (x + 216, y + 2)), text(x + 222, y, "order again at", "tick"),
    ]  # fmt: skip
    if stocked:
        parts += [_diamond((x + 322, y - 4), ""), text(x + 332, y, "on hand (at the end: more)", "tick")]
    return Markup("").join(parts)
