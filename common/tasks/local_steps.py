"""The public constants of a site's local steps, and how far such steps can move a model.

Nothing here is data: settings, the noise multiplier and declared populations. A site trains by these constants; the
server, and whoever audits it, predicts from them how large an honest sum can be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigError
from common.tasks.heads import ROW_HEADS

BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8
MOMENTUM = 0.9
HALF_SIGNAL = 300.0  # at which private steps are half as long as without limit; measured, see the ADR


@dataclass(frozen=True)
class LocalConstants:
    """The public constants of one site's local training in one round.

    Units: ``population`` declared training consumers (hold-out excluded); ``noise_multiplier`` noise
    standard deviation / ``clip``; 0 means no privacy at all.
    """

    population: float
    sampling_rate: float
    steps: int
    clip: float
    noise_multiplier: float
    optimizer: str
    learning_rate: float
    proximal: float = 0.0
    hardened: bool = False

    @property
    def expected_batch(self) -> float:
        """The public divisor of every gradient sum."""
        return max(self.sampling_rate * self.population, 1.0)

    @property
    def private(self) -> bool:
        """True if the steps are noised."""
        return self.noise_multiplier > 0

    @property
    def sensitivity(self) -> float:
        """What one consumer moves a clipped sum by at most, rounding included."""
        return self.clip * (1 + rounding_slack(self.expected_batch))


def rounding_slack(expected_batch: float) -> float:
    """By how much more than the clipping norm a consumer may move a clipped sum of so many, because of rounding.

    Four parts in ten thousand, more for sums of more than a thousand. Consumers whose gradients all point the same way
    are the worst case; ``benchmarks.privacy`` measures it, a test keeps it below a third of this.
    """
    return 4e-4 * max(1.0, math.sqrt(expected_batch / 1_000))


def default_learning_rate(name: str, sites: int, signal: float, *, whole_rows: bool = False) -> float:
    """The recipe's rate, for a run of this public ``signal`` (``RunPlan.signal``; infinite without noise).

    Sites add their own noise, which the mean over ``sites`` divides by its root, so private local steps may be that
    much longer: .02 * sqrt(sites). Where the signal is weak they must be shorter, or noise carries the model away from
    where it began (docs/adr/training-rate-follows-the-signal.md).

    ``whole_rows``: heads that answer once per row only. Their gradient lies in few coordinates, which a second
    moment shared by all coordinates would move too far: without noise a fifth, and no root under noise.
    """
    base = {"scalar-adam": 0.02, "adam": 0.01, "momentum": 0.05, "sgd": 0.5}.get(name)
    if base is None:
        raise ConfigError(f"unknown optimizer: {name!r}", hint="use scalar-adam, adam, momentum or sgd")
    if name != "scalar-adam":
        return base
    private = math.isfinite(signal)
    if whole_rows:
        return base if private else base / 5
    return base * math.sqrt(sites) * signal / (signal + HALF_SIGNAL) if private else base


def local_constants(
    config: Any, population: int, sites: int, noise_multiplier: float, signal: float
) -> LocalConstants:
    """A site's constants from the run's ``RunConfig`` and its declared population (all consumers).

    ``sites`` take part in a round; ``noise_multiplier`` is the calibrated one of the run and ``signal`` is
    ``RunPlan.signal``, all public; the last two are ignored when privacy is off.
    """
    training, privacy = config.training, config.privacy
    private = privacy.enabled
    whole_rows = set(config.model.heads) <= set(ROW_HEADS)
    rate = training.learning_rate or default_learning_rate(
        training.optimizer, sites, signal if private else math.inf, whole_rows=whole_rows
    )
    return LocalConstants(
        population=population * (1 - privacy.holdout),
        sampling_rate=privacy.sampling_rate,
        steps=training.local_steps,
        clip=privacy.clip,
        noise_multiplier=noise_multiplier if private else 0.0,
        optimizer=training.optimizer,
        learning_rate=rate,
        proximal=training.proximal,
        hardened=privacy.noise == "hardened",
    )
