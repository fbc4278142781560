"""The events of an alarm as a picture: down the page in their order, each with its pause, and with its part of the score."""

from __future__ import annotations

from datetime import UTC, datetime

from markupsafe import Markup

from client.anomalies.alarms import Alarm, AlarmEvent
from common.pages.drawing import box, frame, rule, shortened, text

WIDTH, ROW, TOP = 360, 38, 10
_SPINE, _WORDS, _BAR, _LONG = 86, 102, 290, 70


def sequence_picture(alarm: Alarm) -> Markup:
    """The stretch as SVG without a style of its own."""
    height = TOP + ROW * len(alarm.events)
    most = max((one.drove for one in alarm.events), default=0.0) or 1.0
    parts = [rule("spine", (_SPINE, TOP + 9), (_SPINE, height - ROW + 9))]
    before: AlarmEvent | None = None
    for number, one in enumerate(alarm.events):
        parts += _row(one, before, TOP + ROW * number, most)
        before = one
    return frame(parts, f"{len(alarm.events)} events and their parts of the score", (WIDTH, height))


def _row(one: AlarmEvent, before: AlarmEvent | None, top: int, most: float) -> list[Markup]:
    when = datetime.fromtimestamp(one.time / 1e6, UTC)
    told = f"{one.event} {one.item} {when:%Y-%m-%d %H:%M:%S}: {one.drove:.2f} of the score, surprise {one.nats:.1f} nats"
    length = _LONG * max(one.drove, 0.0) / most
    size = 5 + 5 * max(one.drove, 0.0) / most
    parts = [
        text(_SPINE - 16, top + 13, f"{when:%H:%M:%S}", "tick", "end"),
        box(f"mark {one.event}", (_SPINE - size, top + 9 - size), (2 * size, 2 * size), told, size),
        text(_WORDS, top + 13, one.event, "name"),
        text(_WORDS + 66, top + 13, shortened(one.item or one.category, 17), "item"),
        box("track", (_BAR, top + 5), (_LONG, 8), "", 4),
        box("for", (_BAR, top + 5), (max(length, 1.0), 8), told, 4),
    ]
    if before is None or before.time // 86_400_000_000 != one.time // 86_400_000_000:
        parts.append(text(_SPINE - 16, top + 27, f"{when:%-d %b %Y}", "day", "end"))
    if before is not None:
        parts.append(text(_WORDS, top - 6, pause_words((one.time - before.time) / 1e6), "tick"))
    return parts


def pause_words(seconds: float) -> str:
    """How much later."""
    for size, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name} later"
    return f"{max(seconds, 0):.0f} s later"
