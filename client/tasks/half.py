"""The site's half of a task: one module with a table of answers, found by the task's room."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from common.contribution import Release
from common.tasks import task_named

if TYPE_CHECKING:
    from client.site import Question, Site
    from common.model import RowTargets

    Answer = Callable[[Site, Question], Sequence[Release]]


class SiteHalf(Protocol):
    """What ``client/tasks/ROOM.py`` has.

    ``ANSWERS``: kind of question -> function that gives the releases of the answer, one for each block.
    """

    ANSWERS: Mapping[str, Answer]

    def row_targets(self, config: Any, sequences: Any) -> RowTargets | None:
        """What whole rows must answer, and the part of each that may be read; None if only steps are asked.

        Guarantee: no event that an answer depends on is in the input of that answer.
        """


def half_of(task: str) -> SiteHalf:
    """The site's half of a task by its name. Raises: ConfigError."""
    return cast(SiteHalf, importlib.import_module(f"client.tasks.{task_named(task).room}"))
