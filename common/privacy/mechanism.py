"""``PrivacyEvent``: what one mechanism did, in public fields only.

The event is the currency of accounting. The ledger stores events, never an epsilon as source of truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TRAIN = "train"
HOLDOUT = "holdout"
SUB_SCOPES = (TRAIN, HOLDOUT)


@dataclass(frozen=True)
class PrivacyEvent:
    """``steps`` runs of a (Poisson-subsampled) Gaussian mechanism on consumers.

    Fields are public constants, never measured from data. Unit of privacy: consumer. Neighbouring
    relation: add or remove one consumer.

    Units: ``noise_multiplier`` = noise standard deviation / L2 sensitivity; ``sampling_rate`` in (0, 1],
    1 means no sampling; ``sub_scope`` says which disjoint part of the consumers was read.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    sub_scope: str = TRAIN
    mechanism: str = "poisson-subsampled-gaussian"
    unit: str = "consumer"
    relation: str = "add-or-remove-one"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0):
            raise ValueError(f"noise multiplier must be positive, got {self.noise_multiplier}")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"sampling rate must be in (0, 1], got {self.sampling_rate}")
        if self.steps < 0:
            raise ValueError(f"steps must not be negative, got {self.steps}")
        if self.sub_scope not in SUB_SCOPES:
            raise ValueError(f"sub-scope must be one of {SUB_SCOPES}, got {self.sub_scope!r}")
