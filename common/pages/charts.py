"""Charts of a report as inline SVG: no library, no network, readable in print and without JavaScript.

Every mark carries its numbers in a ``<title>``, which ``page.js`` turns into a tooltip. Colour comes from
CSS classes, so that one drawing serves light, dark and print; a second cue (dash, hollow dot) goes with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from common.pages.drawing import (
    Point,
    Scale,
    box,
    dot,
    frame,
    grid,
    rule,
    series as series_of,
    short_number,
    shortened,
    text,
    ticks,
    whole_ticks,
)

WIDTH, HEIGHT = 360, 218
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 14, 36


@dataclass(frozen=True)
class Series:
    """One line: its name, the CSS class that colours it, and its points; not finite ones are left out.

    ``bars``: half the width of each point's bar, in the points' unit; empty, or nan at a point: none.
    """

    name: str
    kind: str
    points: Sequence[Point]
    bars: Sequence[float] = ()

    @property
    def finite(self) -> list[Point]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if math.isfinite(y)]

    @property
    def barred(self) -> dict[float, float]:
        """Half widths that can be drawn, by place."""
        return {x: bar for (x, _), bar in zip(self.points, self.bars, strict=False) if math.isfinite(bar)}

    def words(self, place: float, value: float, digits: int) -> str:
        """A point as text."""
        bar = self.barred.get(place)
        return f"{self.name}: {value:.{digits}f}" + (f" ± {bar:.{digits}f}" if bar is not None else "")


@dataclass(frozen=True)
class Axis:
    """Limits and words of a chart. ``floor``/``ceiling``: what values cannot pass even if noise says so."""

    x: str = "rounds finished"
    digits: int = 3
    floor: float = -math.inf
    ceiling: float = math.inf
    from_zero: bool = False


def line_chart(
    series: Sequence[Series], axis: Axis, *, references: Sequence[tuple[str, float]] = (), label: str = ""
) -> Markup:
    """Lines over rounds with dashed reference levels. Empty if there is nothing finite to draw."""
    shown = [line for line in series if line.finite]
    if not shown:
        return Markup("")
    y = _y_scale([v for line in shown for _, v in line.finite] + [v for _, v in references], axis)
    xs = sorted({x for line in shown for x, _ in line.finite})
    x = Scale(xs[0], max(xs[-1], xs[0] + 1), LEFT, WIDTH - RIGHT)
    parts = [_grid(y), _x_labels(x, axis.x)]
    parts += [_reference(name, value, y) for name, value in references]
    parts += [_line(line, x, y) for line in shown]
    parts += _hits(shown, xs, x, axis)
    return frame(parts, label, (WIDTH, HEIGHT))


def column_chart(
    values: Sequence[tuple[float, float]], tell: Callable[[float], str], *, label: str, unit: str = "round"
) -> Markup:
    """One column per round or other unit. ``tell`` words a value for axis and tooltip."""
    finite = [(x, v) for x, v in values if math.isfinite(v)]
    if not finite:
        return Markup("")
    y = _y_scale([v for _, v in finite], Axis(from_zero=True))
    x = Scale(finite[0][0] - 0.5, finite[-1][0] + 0.5, LEFT, WIDTH - RIGHT)
    width = max(1.0, min(34.0, 0.72 * (x(1) - x(0))))
    marks = [
        box(
            "column",
            (x(at) - width / 2, y(value)),
            (width, max(0.5, y(y.low) - y(value))),
            f"{unit} {at:g}: {tell(value)}",
            1.5,
        )
        for at, value in finite
    ]
    return frame([_grid(y, tell), _x_labels(x, unit), *marks], label, (WIDTH, HEIGHT))


def participation(rows: Sequence[tuple[str, Sequence[tuple[int, str, str]]]], rounds: int) -> Markup:
    """Site by round: ``rows`` holds (site, [(round, status, words)]); equal neighbours become one mark."""
    row_height, left = 20, 132
    width = 940
    cell = (width - left - 4) / max(rounds, 1)
    gap = 1.6 if cell > 5 else 0.0
    height = len(rows) * row_height + 26
    parts = []
    for index, (site, cells) in enumerate(rows):
        top = index * row_height
        parts.append(text(left - 10, top + 14, shortened(site, 20), "tick", "end"))
        parts += [
            box(
                f"cell {status}",
                (left + (number - 1) * cell, top + 2),
                (max(cell - gap, 0.6), row_height - 4),
                f"{site}, round {number}: {words}",
                2,
            )
            for number, status, words in cells
        ]
    parts += [
        text(left + (tick - 0.5) * cell, height - 8, tick, "tick", "middle") for tick in whole_ticks(1, rounds, 12)
    ]
    return frame(parts, "which site answered in which round", (width, height))


def _y_scale(values: Sequence[float], axis: Axis) -> Scale:
    inside = [min(max(v, axis.floor), axis.ceiling) for v in values]
    low, high = min(inside), max(inside)
    if axis.from_zero:
        low = min(low, 0.0)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = (
            (low, low + 1.0) if axis.from_zero else (low - 0.5 * abs(low) - 0.5, high + 0.5 * abs(high) + 0.5)
        )
    marks = ticks(low, high)
    low, high = max(marks[0], axis.floor), marks[-1]
    return Scale(low, high, HEIGHT - BOTTOM, TOP, tuple(mark for mark in marks if mark >= low))


def _grid(y: Scale, tell: Callable[[float], str] = short_number) -> Markup:
    return grid(y, LEFT, WIDTH - RIGHT, tell)


def _x_labels(x: Scale, words: str) -> Markup:
    marks = whole_ticks(math.ceil(x.low), math.floor(x.high), 8)
    parts = [text(x(tick), HEIGHT - BOTTOM + 17, tick, "tick", "middle") for tick in marks]
    return Markup("").join([*parts, text(WIDTH - RIGHT, HEIGHT - 3, words, "axis", "end")])


def _reference(name: str, value: float, y: Scale) -> Markup:
    at = y.inside(value)
    words = text(LEFT + 6, at + 13 if at < TOP + 14 else at - 5, name, "reference-name")
    return rule("reference", (LEFT, at), (WIDTH - RIGHT, at)) + words


def _line(line: Series, x: Scale, y: Scale) -> Markup:
    pixels = [(x(place), y.inside(value)) for place, value in line.finite]
    dotted = len(pixels) <= 40 and not line.kind.startswith("site")
    drawn = series_of(line.kind, pixels, [dot(pixel) for pixel in pixels] if dotted else [])
    return Markup("").join([*_bars(line, x, y), drawn])


def _bars(line: Series, x: Scale, y: Scale) -> list[Markup]:
    """A rule over each point's bar, cut where the axis ends."""
    known = line.barred
    return [
        rule(
            f"bar {line.kind}",
            (x(place), y.inside(value - known[place])),
            (x(place), y.inside(value + known[place])),
        )
        for place, value in line.finite
        if place in known
    ]


def _hits(shown: Sequence[Series], xs: Sequence[float], x: Scale, axis: Axis) -> list[Markup]:
    """Invisible strips over the chart, one per round, that carry all numbers of the round."""
    strips = []
    for index, at in enumerate(xs):
        start = x(xs[0]) - 10 if index == 0 else (x(xs[index - 1]) + x(at)) / 2
        end = x(xs[-1]) + 10 if index == len(xs) - 1 else (x(at) + x(xs[index + 1])) / 2
        lines = [f"{axis.x}: {at:g}"]
        for line in shown[:12]:
            lines += [line.words(place, value, axis.digits) for place, value in line.finite if place == at]
        if len(lines) > 1:
            strips.append(
                Markup(
                    '<g class="hit"><line x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                    '<rect x="{3:.1f}" y="{1}" width="{4:.1f}" height="{5}"><title>{6}</title></rect></g>'
                ).format(x(at), TOP, HEIGHT - BOTTOM, start, end - start, HEIGHT - BOTTOM - TOP, "\n".join(lines))
            )
    return strips
