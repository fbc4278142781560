"""Charts as inline SVG: no library, no network, readable in print and without JavaScript.

Every mark carries its numbers in a ``<title>``, which ``page.js`` turns into a tooltip. Colour comes from
CSS classes, so that one drawing serves light, dark and print; a second cue (dash, hollow dot) goes with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 360, 218
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 14, 36
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line: its name, the CSS class that colours it, and its points; not finite ones are left out."""

    name: str
    kind: str
    points: Sequence[Point]

    @property
    def finite(self) -> list[Point]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if math.isfinite(y)]


@dataclass(frozen=True)
class Axis:
    """Limits and words of a chart. ``floor``/``ceiling``: what values cannot pass even if noise says so."""

    x: str = "rounds finished"
    digits: int = 3
    floor: float = -math.inf
    ceiling: float = math.inf
    from_zero: bool = False


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels, and the values to mark on it."""

    low: float
    high: float
    start: float
    end: float
    marks: tuple[float, ...] = ()

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover an interval, about ``count`` of them."""
    raw = (high - low) / max(count, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = min((m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999), default=raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


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
    return _svg(parts, label)


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
        Markup(
            '<rect class="column" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1.5"><title>{}</title></rect>'
        ).format(
            x(at) - width / 2, y(value), width, max(0.5, y(y.low) - y(value)), f"{unit} {at:g}: {tell(value)}"
        )
        for at, value in finite
    ]
    return _svg([_grid(y, tell), _x_labels(x, unit), *marks], label)


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
        name = site if len(site) <= 20 else site[:19] + "…"
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
                left - 10, top + 14, name
            )
        )
        for round_number, status, words in cells:
            parts.append(
                Markup(
                    '<rect class="cell {}" x="{:.2f}" y="{}" width="{:.2f}" height="{}" rx="2"><title>{}</title></rect>'
                ).format(
                    status,
                    left + (round_number - 1) * cell,
                    top + 2,
                    max(cell - gap, 0.6),
                    row_height - 4,
                    f"{site}, round {round_number}: {words}",
                )
            )
    parts += [
        Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            left + (tick - 0.5) * cell, height - 8, tick
        )
        for tick in _whole_ticks(1, rounds, 12)
    ]
    return _svg(parts, "which site answered in which round", width=width, height=height)


def _svg(parts: Iterable[Markup], label: str, *, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, label, Markup("").join(parts)
    )


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


def _grid(y: Scale, tell: Callable[[float], str] | None = None) -> Markup:
    parts = []
    for value in y.marks:
        at = y(value)
        words = tell(value) if tell else _short(value)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, at, at
            )
        )
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                LEFT - 7, at + 4, words
            )
        )
    return Markup("").join(parts)


def _x_labels(x: Scale, words: str) -> Markup:
    base = HEIGHT - BOTTOM
    parts = [
        Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            x(tick), base + 17, tick
        )
        for tick in _whole_ticks(math.ceil(x.low), math.floor(x.high), 8)
    ]
    parts.append(
        Markup('<text class="axis" x="{}" y="{}" text-anchor="end">{}</text>').format(
            WIDTH - RIGHT, HEIGHT - 3, words
        )
    )
    return Markup("").join(parts)


def _whole_ticks(low: int, high: int, count: int) -> list[int]:
    if high <= low:
        return [low]
    step = max(1, round(ticks(0, high - low, count)[1]))
    first = low if low <= 1 and step == 1 else math.ceil(low / step) * step
    marks = list(range(first, high + 1, step))
    return marks if marks else [low]


def _reference(name: str, value: float, y: Scale) -> Markup:
    at = y(min(max(value, y.low), y.high))
    below = at < TOP + 14
    return Markup(
        '<line class="reference" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
        '<text class="reference-name" x="{}" y="{:.1f}">{}</text>'
    ).format(LEFT, WIDTH - RIGHT, at, at, LEFT + 6, at + 13 if below else at - 5, name)


def _line(line: Series, x: Scale, y: Scale) -> Markup:
    def pixel(point: Point) -> tuple[float, float]:
        return x(point[0]), y(min(max(point[1], y.low), y.high))

    pixels = [pixel(point) for point in line.finite]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in pixels)
    dots = Markup("")
    if len(pixels) <= 40 and not line.kind.startswith("site"):
        dots = Markup("").join(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(a, b) for a, b in pixels)
    return Markup('<g class="series {}"><path d="{}"/>{}</g>').format(line.kind, path, dots)


def _hits(shown: Sequence[Series], xs: Sequence[float], x: Scale, axis: Axis) -> list[Markup]:
    """Invisible strips over the chart, one per round, that carry all numbers of the round."""
    strips = []
    for index, at in enumerate(xs):
        start = x(xs[0]) - 10 if index == 0 else (x(xs[index - 1]) + x(at)) / 2
        end = x(xs[-1]) + 10 if index == len(xs) - 1 else (x(at) + x(xs[index + 1])) / 2
        lines = [f"{axis.x}: {at:g}"]
        for line in shown[:12]:
            lines += [f"{line.name}: {value:.{axis.digits}f}" for place, value in line.finite if place == at]
        if len(lines) > 1:
            strips.append(
                Markup(
                    '<g class="hit"><line x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                    '<rect x="{3:.1f}" y="{1}" width="{4:.1f}" height="{5}"><title>{6}</title></rect></g>'
                ).format(x(at), TOP, HEIGHT - BOTTOM, start, end - start, HEIGHT - BOTTOM - TOP, "\n".join(lines))
            )
    return strips


def _short(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:g}"
