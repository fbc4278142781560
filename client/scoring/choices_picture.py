"""Several likely answers beside each other: which event speaks for which, as a picture. No script, no outside file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from client.scoring.explain import Explanation
from common.pages.drawing import box, picture, shortened, text

_ROW, _COLUMN, _TOP, _LEFT, _EDGE, _FOOT, _STEPS = 22, 96, 118, 380, 16, 40, 10


def draw(title: str, found: Sequence[Explanation], labels: Sequence[str]) -> str:
    """One column per answer, one row per event, oldest first; the number is written out, colour only repeats it."""
    parts: list[Markup] = []
    for column, one in enumerate(found):
        middle = _LEFT + column * _COLUMN + _COLUMN / 2
        parts.append(text(middle, _TOP - 26, shortened(one.choice, 15), "name", "middle"))
        parts.append(text(middle, _TOP - 10, f"{one.probability:.1%}", "tick", "middle"))
    values = np.nan_to_num(np.stack([one.contributions for one in found], axis=1))
    largest = float(np.abs(values).max()) or 1.0
    for row, label in enumerate(labels):
        y = _TOP + row * _ROW
        parts.append(text(_LEFT - 12, y + 14, shortened(label, 54), anchor="end"))
        for column, one in enumerate(found):
            value = float(values[row, column])
            depth = round(abs(value) / largest * _STEPS)
            kind = f"heat h{depth}{' against' if value < 0 else ''}"
            x = _LEFT + column * _COLUMN
            parts.append(
                box(kind, (x, y), (_COLUMN - 2, _ROW - 2), f"{label}: {value:+.3f} nats for {one.choice}", 2)
            )
            inside = "value inside" if depth > _STEPS // 2 else "value"
            parts.append(text(x + _COLUMN / 2, y + 14, f"{value:+.2f}", inside, "middle"))
    about = "nats that each event adds for an answer (blue, +) or against it (red, -); oldest event first"
    size = max(_LEFT + len(found) * _COLUMN + _EDGE, 820), _TOP + len(labels) * _ROW + _FOOT
    return picture(title, about, parts, size, _EDGE)
