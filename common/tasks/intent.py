"""Purchase intent: will this consumer buy within the horizon?"""

from __future__ import annotations

from common.tasks.heads import INTENT
from common.tasks.task import Task

PURCHASE_INTENT = Task(
    "purchase-intent", "intent", {INTENT: 1.0}, "intent_auc", row_heads={INTENT: 1}, step_heads="none"
)

TASKS = (PURCHASE_INTENT,)
