"""Basket size: how much a consumer will buy in the last quarter of their events, in five buckets."""

from __future__ import annotations

from common.tasks import Task

HEAD = "basket-size"
BUCKETS = 5  # 0, 1, 2, 3, and 4 or more purchases

TASKS = (
    Task(
        "basket-size",
        "basket",
        {HEAD: 1.0},
        primary="basket_size_accuracy",
        row_heads={HEAD: BUCKETS},
        step_heads="none",
    ),
)
