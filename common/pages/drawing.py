"""The pieces of which every drawing is made: scales and their marks, words, lines, bars, dots, and the frame around them.

Colour comes from CSS classes. A page brings its own style sheet, with a dark half; a drawing that stands alone carries
``STYLE``, the light half of it. Nothing here needs a script, a font or a file from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]

_RULES = (
    "text{fill:#1d1f24;font:12px system-ui,sans-serif}",
    "text.title{font-size:17px;font-weight:600}",
    "text.name{font-weight:600}",
    "text.value{font-size:11px}",
    "text.about{fill:#5d626b}",
    "text.tick{fill:#5d626b;font-size:11px}",
    "text.axis{fill:#5d626b;font-size:11px}",
    "text.reference-name{fill:#5d626b;font-size:11px}",
    ".paper{fill:#fff}",
    ".grid{stroke:#e3dfd5}",
    ".rule{stroke:#8b9099}",
    ".bar{stroke:#8b9099;stroke-opacity:.5}",
    ".reference{stroke:#8b9099;stroke-dasharray:2 4}",
    ".series path{fill:none;stroke:#8b9099;stroke-width:1.6}",
    ".series.oracle path{stroke:#c4610a}",
    ".series.oracle circle{fill:#c4610a}",
    ".series.public path{stroke:#0a7c66}",
    ".series.public circle{fill:#0a7c66}",
    ".series.released path{stroke:#3a55c9;stroke-dasharray:5 4}",
    ".series.released circle{fill:#fff;stroke:#3a55c9;stroke-width:1.6}",
    ".series.past path{stroke:#1d1f24;stroke-width:1}",
    ".series.ahead path{stroke:#0b6e99;stroke-width:1;stroke-dasharray:3 3}",
    ".series.ahead circle{fill:#0b6e99}",
    ".wide{fill:#d5e8f0}",
    ".narrow{fill:#9fcadd}",
    ".for{fill:#0b6e99}",
    ".against{fill:#b5532a}",
    ".against-line{stroke:#b5532a;stroke-width:2}",
    ".heat{fill:#0b6e99;fill-opacity:.03}",
    *(f".heat.h{n}{{fill-opacity:{n / 10:g}}}" for n in range(1, 11)),
    ".heat.against{fill:#b5532a}",
    "text.value.inside{fill:#fff}",
    ".hit line{stroke:none}",
    ".hit rect{fill:transparent}",
)
STYLE = "".join(f".fedcart {one}" for one in _RULES)  # nothing else on a page that it is put into changes


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

    def inside(self, value: float) -> float:
        """Pixel of a value, or of the end that it lies beyond."""
        return self(min(max(value, self.low), self.high))


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover an interval, about ``count`` of them."""
    raw = (high - low) / max(count, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = min((m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999), default=raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def whole_ticks(low: int, high: int, count: int) -> list[int]:
    """Whole numbers inside an interval, about ``count`` of them."""
    if high <= low:
        return [low]
    step = max(1, round(ticks(0, high - low, count)[1]))
    first = low if low <= 1 and step == 1 else math.ceil(low / step) * step
    marks = list(range(first, high + 1, step))
    return marks if marks else [low]


def short_number(value: float) -> str:
    """A value for an axis."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:g}"


def shortened(words: str, most: int) -> str:
    """Words of at most so many characters."""
    return words if len(words) <= most else words[: most - 1] + "…"


def text(x: float, y: float, words: object, kind: str = "label", anchor: str = "start") -> Markup:
    """Words at a place; ``anchor``: start, middle or end of them is there."""
    at = Markup("") if anchor == "start" else Markup(' text-anchor="{}"').format(anchor)
    return Markup('<text class="{}" x="{}" y="{}"{}>{}</text>').format(kind, _px(x), _px(y), at, words)


def rule(kind: str, begin: Point, end: Point) -> Markup:
    """A straight line."""
    places = (_px(value) for value in (begin[0], end[0], begin[1], end[1]))
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(kind, *places)


def box(kind: str, corner: Point, size: Point, told: str = "", radius: float = 0.0) -> Markup:
    """A rectangle; ``told``: what it says when pointed at."""
    places = (_px(value) for value in (*corner, *size))
    round_off = Markup(' rx="{}"').format(_px(radius)) if radius else ""
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"{}{}').format(
        kind, *places, round_off, _closed("rect", told)
    )


def dot(at: Point, told: str = "") -> Markup:
    """A point of a series."""
    return Markup('<circle cx="{}" cy="{}" r="3"{}').format(_px(at[0]), _px(at[1]), _closed("circle", told))


def series(kind: str, points: Sequence[Point], dots: Iterable[Markup] = ()) -> Markup:
    """A line through pixels, and the dots on it."""
    path = "M" + "L".join(f"{_px(x)} {_px(y)}" for x, y in points)
    return Markup('<g class="series {}"><path d="{}"/>{}</g>').format(kind, path, Markup("").join(dots))


def area(kind: str, upper: Sequence[Point], lower: Sequence[Point]) -> Markup:
    """What lies between two lines of pixels."""
    corners = " ".join(f"{_px(x)},{_px(y)}" for x, y in [*upper, *reversed(lower)])
    return Markup('<polygon class="{}" points="{}"/>').format(kind, corners)


def grid(y: Scale, left: float, right: float, tell: Callable[[float], str] = short_number) -> Markup:
    """A line and a number for every mark of a vertical scale."""
    parts = []
    for value in y.marks:
        parts.append(rule("grid", (left, y(value)), (right, y(value))))
        parts.append(text(left - 7, y(value) + 4, tell(value), "tick", "end"))
    return Markup("").join(parts)


def frame(parts: Iterable[Markup], label: str, size: Point) -> Markup:
    """The drawing, for a page that has a style sheet."""
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        *map(_px, size), label, Markup("").join(parts)
    )


def standing_alone(drawing: Markup | str) -> str:
    """A drawing as a file of its own: with its name space and its style."""
    inside, _, rest = str(drawing).removeprefix("<svg").partition(">")
    return f'<svg xmlns="http://www.w3.org/2000/svg" class="fedcart"{inside}><style>{STYLE}</style>{rest}\n'


def picture(title: str, subtitle: str, parts: Iterable[Markup], size: Point, left: float) -> str:
    """A drawing with a title, on white, as a file of its own."""
    words = [text(left, 30, title, "title"), text(left, 52, subtitle, "about")]
    return standing_alone(frame([box("paper", (0, 0), size), *words, *parts], title, size))


def html_page(title: str, drawing: str) -> str:
    """A drawing that stands alone as a page of its own."""
    return Markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{}</title></head>\n'
        '<body style="margin:24px">\n{}</body></html>\n'
    ).format(title, Markup(drawing))  # noqa: S704 - made here, its words are escaped


def _px(value: float) -> str:
    return f"{round(value, 2):g}"


def _closed(name: str, told: str) -> Markup:
    return Markup("><title>{}</title></{}>").format(told, name) if told else Markup("/>")
