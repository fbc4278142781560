"""The next behaviour of a consumer: item, event type, category; alone or with purchase intent beside it."""

from __future__ import annotations

from common.tasks.heads import INTENT
from common.tasks.task import Task

NEXT_BEHAVIOUR = Task("next-behaviour", "behaviour", {"next-item": 1.0, "next-event": 0.1}, "recall@20")
MULTI_TASK = Task(
    "multi-task",
    "intent",
    {"next-item": 1.0, "next-event": 0.1, INTENT: 1.0},
    "recall@20",
    row_heads={INTENT: 1},
    step_heads="some",
)

TASKS = (NEXT_BEHAVIOUR, MULTI_TASK)
