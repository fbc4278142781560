"""A confusion matrix as a picture: what came, by what was predicted; the darker, the larger the share of what came."""

from __future__ import annotations

from markupsafe import Markup

from client.scoring.confusion import NextCheck
from common.pages.drawing import box, picture, shortened, text

MOST_CLASSES = 16
_CELL, _TOP, _LEFT, _EDGE, _FOOT = 46, 190, 190, 16, 30
_STEPS = 10


def draw(found: NextCheck) -> str:
    """The most frequent classes; the rest together as ``others``."""
    names = [one.name for one in found.classes]
    shown = min(len(names), MOST_CLASSES)
    matrix = found.confusion
    if len(names) > MOST_CLASSES:
        matrix = matrix.copy()
        matrix[shown - 1] = matrix[shown - 1 :].sum(axis=0)
        matrix[:, shown - 1] = matrix[:, shown - 1 :].sum(axis=1)
        names = [*names[: shown - 1], "others"]
    parts: list[Markup] = [text(_LEFT - 10, _TOP - 10, "came / predicted", "tick", "end")]
    for row in range(shown):
        y, total = _TOP + row * _CELL, int(matrix[row, :shown].sum())
        parts.append(text(_LEFT - 10, y + _CELL / 2 + 4, shortened(names[row], 24), anchor="end"))
        parts.append(_slanted(_LEFT + row * _CELL + _CELL / 2, _TOP - 8, shortened(names[row], 22)))
        for column in range(shown):
            count = int(matrix[row, column])
            share = count / total if total else 0.0
            told = f"{names[row]} came, {names[column]} predicted: {count:,}, {share:.0%} of what came"
            x = _LEFT + column * _CELL
            parts.append(box(f"heat h{round(share * _STEPS)}", (x, y), (_CELL - 2, _CELL - 2), told, 3))
            if count:
                kind = "value inside" if share > 0.5 else "value"
                parts.append(text(x + _CELL / 2 - 1, y + _CELL / 2 + 3, f"{count:,}", kind, "middle"))
    title = f"next {found.what}: {found.accuracy:.1%} right, macro F1 {found.macro[2]:.3f}"
    about = f"{found.asked:,} of your own consumers, each asked for the last event; the darker, the larger the share of what came"
    width = max(_LEFT + shown * _CELL + _EDGE, 760)
    return picture(title, about, parts, (width, _TOP + shown * _CELL + _FOOT), _EDGE)


def _slanted(x: float, y: float, words: str) -> Markup:
    return Markup('<text class="label" x="{0:g}" y="{1:g}" transform="rotate(-45 {0:g} {1:g})">{2}</text>').format(
        x, y, words
    )
