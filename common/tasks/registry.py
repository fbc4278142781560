"""All tasks. A new one is three files of its room's name and one line here."""

from __future__ import annotations

import importlib

from common.errors import ConfigError
from common.tasks.heads import ROW_HEADS
from common.tasks.task import Task

ROOMS = (
    "behaviour",
    "intent",
    "sales",
)
"""Modules of this package, each with ``TASKS``."""

TASKS: dict[str, Task] = {}
DEFAULT_TASK = "next-behaviour"


def open_task(task: Task) -> None:
    """Add a task to those that settings may name, with its row heads. Raises: ConfigError if the name is taken."""
    if task.name in TASKS:
        raise ConfigError(f"there is a task {task.name!r} already", hint="choose another name")
    TASKS[task.name] = task
    ROW_HEADS.update(task.row_heads)


def task_named(name: str) -> Task:
    """The task of a name. Raises: ConfigError."""
    if name not in TASKS:
        raise ConfigError(f"no task named {name!r}", hint=f"one of: {', '.join(TASKS)}")
    return TASKS[name]


def primary_metric(name: str) -> str:
    """The metric that decides between models of a task; of an unknown task, that of the usual one."""
    return TASKS.get(name, TASKS[DEFAULT_TASK]).primary


for _room in ROOMS:
    for _task in importlib.import_module(f"common.tasks.{_room}").TASKS:
        open_task(_task)
