"""``Question``: a verified Query with everything a site needs to answer it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.config import PerformanceSettings
from common.contribution import Query
from common.plan import RunPlan


@dataclass(frozen=True)
class Question:
    """A verified Query with everything a site needs to answer it.

    Shapes: ``model: float32[d]``, the parameters that the Query is about. ``speed`` is the site's own choice.
    """

    query: Query
    plan: RunPlan
    model: NDArray[np.float32]
    speed: PerformanceSettings = field(default_factory=PerformanceSettings)
