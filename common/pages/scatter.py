"""A cloud of points in groups: every group has a colour and a shape of its own, and its name at its middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from common.pages.drawing import Point, Scale, frame, shortened, text

GROUPS = 12
_WIDTH, _HEIGHT, _EDGE = 520, 420, 14


@dataclass(frozen=True)
class Cloud:
    """``points`` of a group, ``told`` what each says when pointed at (empty: nothing), ``labels`` words beside some of them."""

    name: str
    points: Sequence[Point]
    told: Sequence[str] = ()
    labels: Sequence[str] = ()


def scatter(clouds: Sequence[Cloud], label: str) -> Markup:
    """Draw the clouds on one scale; axes of such maps have no unit, so they have no numbers."""
    every = [point for cloud in clouds for point in cloud.points]
    if not every:
        return Markup("")
    x, y = (_scale([p[i] for p in every], size) for i, size in ((0, _WIDTH), (1, _HEIGHT)))
    parts: list[Markup] = []
    for number, cloud in enumerate(clouds):
        marks = [
            mark(number, (x(a), y(b)), cloud.told[i] if i < len(cloud.told) else "")
            for i, (a, b) in enumerate(cloud.points)
        ]
        parts.append(Markup('<g class="cloud g{}">{}</g>').format(number % GROUPS + 1, Markup("").join(marks)))
    for cloud in clouds:
        parts += [
            text(x(a) + 5, y(b) + 3, shortened(words, 18), "point")
            for (a, b), words in zip(cloud.points, cloud.labels, strict=False)
            if words
        ]
        if cloud.points:
            middle = [sorted(p[i] for p in cloud.points)[len(cloud.points) // 2] for i in (0, 1)]
            parts.append(text(x(middle[0]), y(middle[1]), shortened(cloud.name, 30), "cloud-name", "middle"))
    return frame(parts, label, (_WIDTH, _HEIGHT))


def legend(names: Sequence[str]) -> Markup:
    """The mark of each group, and its name."""
    rows = [
        Markup('<span><svg class="mark" viewBox="0 0 14 14"><g class="cloud g{}">{}</g></svg>{}</span>').format(
            number % GROUPS + 1, mark(number, (7.0, 7.0), ""), name
        )
        for number, name in enumerate(names)
    ]
    return Markup("").join(rows)


def mark(number: int, at: Point, told: str) -> Markup:
    """One point: a circle, square, triangle or diamond by the number of its group."""
    x, y = at
    corners = (
        "",
        f"{x - 3:.1f},{y - 3:.1f} {x + 3:.1f},{y - 3:.1f} {x + 3:.1f},{y + 3:.1f} {x - 3:.1f},{y + 3:.1f}",
        f"{x:.1f},{y - 4:.1f} {x + 3.6:.1f},{y + 3:.1f} {x - 3.6:.1f},{y + 3:.1f}",
        f"{x:.1f},{y - 4.4:.1f} {x + 4.4:.1f},{y:.1f} {x:.1f},{y + 4.4:.1f} {x - 4.4:.1f},{y:.1f}",
    )[number % 4]
    says = Markup("<title>{}</title>").format(told) if told else Markup("")
    if not corners:
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.2">{}</circle>').format(x, y, says)
    return Markup('<polygon points="{}">{}</polygon>').format(corners, says)


def _scale(values: Sequence[float], size: int) -> Scale:
    low, high = min(values), max(values)
    wide = high - low or 1.0
    return Scale(low - 0.02 * wide, high + 0.02 * wide, _EDGE, size - _EDGE)
