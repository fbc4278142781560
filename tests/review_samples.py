"""A site's state folder with alarms in it, some with names that would like to act on a page."""

from __future__ import annotations

from pathlib import Path

from client.anomalies.alarms import Alarm, AlarmBook, AlarmEvent, Reason

HOSTILE = '<script>alert("x")</script>"onmouseover="alert(1)\u202e'
KINDS = ("bot", "account-takeover", "brushing", "fake-reviews", "unclear")
DAY_US = 86_400_000_000


def an_alarm(number: int, item: str = "item-1", count: int = 6) -> Alarm:
    """The alarm of a number, later the higher it is."""
    end = 1_720_000_000_000_000 + number * DAY_US
    events = tuple(
        AlarmEvent(end - (count - 1 - i) * 2_000_000, "view", f"{item}-{i}", "shoes", 2.5, 0.2 + 0.1 * i)
        for i in range(count)
    )
    reasons = (Reason("fast", 1.0, 0.1, 0.0), Reason("mean_next-item", 7.0, 4.0, 0.01))
    kind = KINDS[number % len(KINDS)]
    return Alarm(
        f"{number:012x}",
        1000 + number // 2,
        end,
        20,
        2.0 + number / 10,
        1.0,
        1.0,
        "what 1% reach",
        kind,
        0.2,
        reasons,
        events,
    )


def fill(home: Path, count: int = 8, item: str = "item-1") -> list[Alarm]:
    """Alarms of a folder, the newest first."""
    book, alarms = AlarmBook(home), [an_alarm(n, item) for n in range(count)]
    for alarm in alarms:
        book.add(alarm)
    return alarms[::-1]
