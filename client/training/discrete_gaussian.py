"""Placeholder until the table sampler is merged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.trust.randomness import RandomStream


def draw(stream: RandomStream, log2_sigma: int, size: int) -> NDArray[np.int64]:
    """Rounded normal numbers."""
    return np.rint(stream.gaussian(size) * 2.0**log2_sigma).astype(np.int64)
