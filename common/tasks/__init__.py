"""What the shared model is asked: one room per task, and what each of them is made of. No torch."""

from common.tasks.heads import INTENT, ROW_HEADS, STEP_HEADS
from common.tasks.local_steps import (
    BETA1,
    BETA2,
    EPSILON,
    MOMENTUM,
    LocalConstants,
    default_learning_rate,
    local_constants,
    rounding_slack,
)
from common.tasks.metric_sums import (
    COUNT,
    INTENT_BINS,
    LOSS_BOUND,
    TOP_K,
    histogram_auc,
    intent_metrics,
    metric_names,
    metric_sensitivity,
    summarise,
)
from common.tasks.metrics import IN_ROUNDS, METRICS, in_order, metric_named
from common.tasks.noised_blocks import largest_constants, noise_needs, scale_of
from common.tasks.reach import GROWN, Reach
from common.tasks.task import TAIL, Legal, Measured, Task

# isort: split
# Last: it opens the rooms, and a room may take from here what stands above.
from common.tasks.registry import DEFAULT_TASK, TASKS, primary_metric, task_named

__all__ = [
    "BETA1",
    "BETA2",
    "COUNT",
    "DEFAULT_TASK",
    "EPSILON",
    "GROWN",
    "INTENT",
    "INTENT_BINS",
    "IN_ROUNDS",
    "LOSS_BOUND",
    "METRICS",
    "MOMENTUM",
    "ROW_HEADS",
    "STEP_HEADS",
    "TAIL",
    "TASKS",
    "TOP_K",
    "Legal",
    "LocalConstants",
    "Measured",
    "Reach",
    "Task",
    "default_learning_rate",
    "histogram_auc",
    "in_order",
    "intent_metrics",
    "largest_constants",
    "local_constants",
    "metric_named",
    "metric_names",
    "metric_sensitivity",
    "noise_needs",
    "primary_metric",
    "rounding_slack",
    "scale_of",
    "summarise",
    "task_named",
]
