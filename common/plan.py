"""``RunPlan``: everything public about one run, fixed before its first round.

The coordinator signs it inside every Query; a site judges it by its policy; an auditor reads it. All
numbers here are *public*: they come from settings and declarations, never from data.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from common import wire
from common.config import RunConfig, build_config
from common.contribution import EVALUATE, METRICS, SERIES, STATISTICS, UPDATE, Block
from common.contribution import TRAIN as TRAINING
from common.errors import ConfigError
from common.privacy.mechanism import HOLDOUT, TRAIN, PrivacyEvent
from common.tasks.heads import SALES

_RING = 2**31
_UPDATE_CLIP = 4.0
_NOISE_TAIL = 8.0  # standard deviations of a released cell that fit into its place of the sum
PROPOSAL = b"fedcart/proposal/1\0"  # before the digest of a plan, in what the coordinator signs
FAREWELL = b"fedcart/farewell/1\0"


@lru_cache(maxsize=64)
def _config_of(settings: str) -> RunConfig:
    """Validating takes a fifth of a millisecond, and a round asks dozens of times. Settings are frozen."""
    return build_config(json.loads(settings))


@dataclass(frozen=True)
class RunPlan:
    """Public constants of a run.

    ``populations``: declared consumers per site (never counted). ``features``: JSON of the ``FeatureSpec``,
    which names the public catalogue by its digest. ``parameters``: length d of the parameter vector.
    Units: ``noise_multiplier`` 0 means no privacy.
    """

    run: str
    settings: str
    populations: tuple[tuple[str, int], ...]
    features: str
    parameters: int
    noise_multiplier: float
    evaluation_noise: float

    @property
    def config(self) -> RunConfig:
        """The public part of the settings, validated."""
        return _config_of(self.settings)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metric sums."""
        from common.model.metric_sums import metric_names
        from common.model.sales_accuracy import SALES_SUMS

        return SALES_SUMS if self.forecasts else metric_names(list(self.config.model.heads))

    def summarise(self, sums: NDArray[np.float64]) -> dict[str, float]:
        """Readable metrics of metric sums: name -> value."""
        from common.model.metric_sums import summarise
        from common.model.sales_accuracy import released_figures

        config = self.config
        if self.forecasts:
            return released_figures(sums, config.sales.quantity_bound)
        return summarise(list(config.model.heads), sums)

    @property
    def forecasts(self) -> bool:
        """Whether the run learns from sales series: one release in round 0, and post-processing of it."""
        return self.config.task == SALES

    @property
    def evaluates(self) -> bool:
        """Whether contributions carry metric sums: on held-out consumers, or on the end of a released series."""
        return self.forecasts or self.config.privacy.holdout > 0

    def derived(self, kind: str) -> bool:
        """Whether an answer to such a query reads nothing but what the site has released in this run."""
        return self.forecasts and kind in (TRAINING, EVALUATE)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of all sites, in roster order."""
        return tuple(name for name, _ in self.populations)

    def population(self, site: str) -> int:
        """Declared consumers of a site. Raises: ConfigError for a stranger."""
        for name, population in self.populations:
            if name == site:
                return population
        raise ConfigError(
            f"site {site!r} is not part of run {self.run}", hint="compare the roster with the run's sites"
        )

    def weight(self, site: str) -> float:
        """Public FedAvg weight in (0, 1]: declared population over the largest one, or 1."""
        if self.config.aggregation.weights == "equal":
            return 1.0
        return self.population(site) / max(population for _, population in self.populations)

    @property
    def signal(self) -> float:
        """``S = q n / (sigma sqrt(sites))`` over the training consumers of all sites, public; infinite without noise."""
        privacy = self.config.privacy
        if not self.noise_multiplier or not privacy.enabled:
            return math.inf
        consumers = sum(population for _, population in self.populations) * (1 - privacy.holdout)
        return privacy.sampling_rate * consumers / (self.noise_multiplier * math.sqrt(len(self.populations)))

    def training_event(self) -> PrivacyEvent:
        """What one training contribution costs."""
        config = self.config
        return PrivacyEvent(
            self.noise_multiplier, config.privacy.sampling_rate, config.training.local_steps, TRAIN
        )

    def evaluation_event(self) -> PrivacyEvent:
        """What the metric sums of one contribution cost."""
        return PrivacyEvent(self.evaluation_noise, 1.0, 1, HOLDOUT)

    def statistics_events(self) -> tuple[PrivacyEvent, ...]:
        """What the released series cost: all consumers are read, so both sub-scopes are charged."""
        scopes = (TRAIN, HOLDOUT) if self.config.privacy.holdout > 0 else (TRAIN,)
        return tuple(PrivacyEvent(self.noise_multiplier, 1.0, 1, scope) for scope in scopes)

    def events(self, kind: str) -> tuple[PrivacyEvent, ...]:
        """All events of one answer to a query of this kind; empty without privacy."""
        if not self.config.privacy.enabled or self.derived(kind):
            return ()
        if kind == STATISTICS:
            return self.statistics_events()
        training = (self.training_event(),) if kind == "train" else ()
        evaluation = (self.evaluation_event(),) if self.config.privacy.holdout > 0 else ()
        return training + evaluation

    def total_events(self) -> tuple[PrivacyEvent, ...]:
        """All that the whole run may cost a site: every round, and the evaluation that closes it."""
        if self.forecasts:
            return self.events(STATISTICS)
        rounds = self.config.training.rounds
        each = self.events("train")
        closing = self.events("evaluate")
        return tuple(
            replace(
                event, steps=rounds * event.steps + sum(e.steps for e in closing if e.sub_scope == event.sub_scope)
            )
            for event in each
        )

    def blocks(self, kind: str) -> tuple[Block, ...]:
        """Layout of a contribution: the finest fixed point that cannot wrap, the same for every cohort of the run."""
        cohort = min(len(self.populations), self.config.aggregation.max_cohort)
        largest = max(population for _, population in self.populations)
        if kind == STATISTICS:
            return (self._series_block(cohort, largest),)
        update = Block(
            UPDATE, self.parameters if kind == "train" else 0, _UPDATE_CLIP, _bits(cohort, _UPDATE_CLIP)
        )
        bound = float(2 * largest)
        metrics = Block(METRICS, len(self.metrics), bound, _bits(cohort, bound))
        return tuple(block for block in (update, metrics) if block.length)

    def _series_block(self, cohort: int, largest: int) -> Block:
        from common.model.sales_series import SalesSpec

        bound = self.config.privacy.clip * (2 * largest + _NOISE_TAIL * self.noise_multiplier)
        cells = SalesSpec.of(self.config).cells
        return Block(SERIES, cells, bound, _bits(cohort, bound))

    def to_json(self) -> str:
        """Canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @staticmethod
    def from_json(text: str) -> RunPlan:
        """Inverse of ``to_json``. Raises: ConfigError if it is not a plan."""
        try:
            plain = json.loads(text)
            plain["populations"] = tuple((str(name), int(declared)) for name, declared in plain["populations"])
            return RunPlan(**plain)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError("the run's plan cannot be read", hint="both sides need the same version") from error

    def digest(self) -> bytes:
        """SHA-256 of the plan: ``bytes[32]``."""
        return wire.digest(self, domain="plan")


def _bits(cohort: int, clip: float) -> int:
    """Most fractional bits with ``cohort * clip * 2**bits < 2**31``. Raises: ConfigError if none fit."""
    if cohort * clip >= _RING:
        raise ConfigError(
            f"sums of {cohort} sites up to {clip:g} do not fit 32 bits",
            hint="declare populations below 2**30 / sites",
        )
    bits = 0
    while cohort * clip * 2 ** (bits + 1) < _RING:
        bits += 1
    return bits


def model_digest(parameters: NDArray[np.float32]) -> bytes:
    """SHA-256 of the parameter vector's little-endian bytes: ``bytes[32]``."""
    import hashlib

    return hashlib.sha256(b"fedcart/model/1\0" + model_bytes(parameters)).digest()


def model_bytes(parameters: NDArray[np.float32]) -> bytes:
    """Little-endian float32 bytes of a parameter vector, as they travel beside a Query."""
    return np.ascontiguousarray(parameters, dtype="<f4").tobytes()
