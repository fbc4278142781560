"""What was counted while a log was read: sums that add up over batches, and one example of each rule."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

from common.data.reading.text import Lines

MALFORMED, DUPLICATE, SAME_DAY, DISORDER = "malformed", "duplicate", "repeated-on-a-day", "out-of-order"
REMOVED = "value removed"


@dataclass(frozen=True)
class RuleCount:
    """One rule of cleaning: ``found`` lines meet it, of these ``dropped`` were left out because of it.

    ``action`` is "dropped" or what was changed instead. A line that breaks two dropping rules is found by
    both and dropped by the first. ``example`` says where the first was found; it never shows an id.
    """

    rule: str
    reason: str
    action: str
    found: int
    dropped: int = 0
    example: str = ""


@dataclass(frozen=True)
class Examples:
    """The first example of each rule. Adds up: what came first stays."""

    of: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: Examples) -> Examples:
        return Examples({**other.of, **self.of})


@dataclass(frozen=True)
class Counted:
    """How many lines each rule found and dropped, of one batch or of many. Adds up.

    ``same_day``: equal lines that stay because their time says a day only.
    """

    lines: int = 0
    found: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    malformed: int = 0
    repeats: int = 0
    disorder: int = 0
    same_day: int = 0
    blank: int = 0
    spanned: int = 0
    headers: int = 0
    examples: Examples = field(default_factory=Examples)

    def __add__(self, other: Counted) -> Counted:
        return Counted(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    @classmethod
    def of_batch(cls, batch: Lines, name: str = "") -> Counted:
        """What a reader left out of a batch before any rule saw it."""
        found = Examples({MALFORMED: f"{name}{batch.example}"} if batch.example else {})
        return cls(
            lines=batch.malformed,
            malformed=batch.malformed,
            blank=batch.blank,
            spanned=batch.spanned,
            headers=batch.headers,
            examples=found,
        )
