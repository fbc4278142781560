"""Moments of purchase intent at random steps with random counts, for tests that need no real history."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.model.history import history_width
from common.model.targets import INTENT, Asks, RowTargets


def asked_rows(
    lengths: NDArray[np.int64], values: dict[str, NDArray[np.float64]], event_types: int, moments: int = 3
) -> RowTargets:
    """Targets whose last moment is the end of each row; earlier ones lie at random steps, a third are missing."""
    rng = np.random.default_rng(len(lengths))
    n = len(lengths)
    steps = np.floor(rng.random((n, moments)) * lengths[:, None]).astype(np.int64)
    steps[(rng.random((n, moments)) < 1 / 3) | (lengths[:, None] == 0)] = -1
    steps[:, -1] = lengths - 1
    labels = (rng.random((n, moments)) < 0.5).astype(np.float64)
    labels[:, -1] = values[INTENT]
    labels[steps < 0] = np.nan
    history = rng.random((n, moments, history_width(event_types))).astype(np.float32)
    return RowTargets(lengths, values, Asks(steps, labels, history))
