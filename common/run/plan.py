"""``RunPlan``: everything public about one run, fixed before its first round.

The coordinator signs it inside every Query; a site judges it by its policy; an auditor reads it. All
numbers here are *public*: they come from settings and declarations, never from data.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import common.wire as wire
from common.bounds import (
    MAX_SEQUENCE,
    check_count,
    check_distinct,
    check_hex_digest,
    check_real,
    check_run,
    check_whole,
)
from common.contribution import MAX_PLAN_LENGTH, TRAIN, Block
from common.errors import BadInputError, ConfigError
from common.plain_text import require_word
from common.privacy import LEAST_HONEST, MAX_NOISE, MIN_NOISE, PrivacyEvent, Quorum, usual_colluders
from common.run.config import RunConfig
from common.run.loading import build_config
from common.secagg.params import MAX_SITES, MIN_SITES, default_threshold
from common.strict_json import fields_of, read
from common.tasks import Measured, Task, task_named
from common.trust import check_name

PROPOSAL = b"fedcart/proposal/1\0"  # before the digest of a plan, in what the coordinator signs
FAREWELL = b"fedcart/farewell/2\0"
COUNTERSIGNED = b"fedcart/countersigned/1\0"
DELIVERY = b"fedcart/delivery/1\0"
MAX_PARAMETERS = 1 << 28
MAX_PLANNED_SITES = 100_000  # of a simulation in the clear; secure aggregation samples at most 100 of 200


@lru_cache(maxsize=64)
def _config_of(settings: str) -> RunConfig:
    """Validating takes a fifth of a millisecond, and a round asks dozens of times. Settings are frozen."""
    tree = read(settings, largest=MAX_PLAN_LENGTH, what="the run's settings")
    if not isinstance(tree, dict):
        raise ConfigError("the run's settings are no object", hint="both sides need the same version")
    privacy = tree.get("privacy")
    if isinstance(privacy, dict):
        privacy.setdefault(
            "validation", 0.0
        )  # a plan from before there was one: all who are held out, in every round
    return build_config(tree)


@dataclass(frozen=True)
class RunPlan:
    """Public constants of a run.

    ``populations``: declared consumers per site (never counted). ``features``: JSON of the ``FeatureSpec``,
    which names the public catalogue by its digest. ``parameters``: length d of the parameter vector.
    Units: noise multipliers are of what each site draws itself, also where a sum holds more; 0 means no privacy.
    Raises: BadInputError for a field out of bounds.
    """

    run: str
    settings: str
    populations: tuple[tuple[str, int], ...]
    features: str
    parameters: int
    noise_multiplier: float
    evaluation_noise: float

    def __post_init__(self) -> None:
        check_run(self.run)
        check_whole(self.parameters, "number of parameters", high=MAX_PARAMETERS)
        check_count(self.populations, "populations", MAX_PLANNED_SITES)
        if not self.populations:
            raise BadInputError("a plan names at least one site")
        check_distinct((name for name, _ in self.populations), "list of sites")
        for name, declared in self.populations:
            check_name(name)
            check_whole(declared, f"population of {name}", low=1, high=MAX_SEQUENCE)
        for value, what in ((self.noise_multiplier, "noise"), (self.evaluation_noise, "noise of the evaluation")):
            check_real(value, what, low=MIN_NOISE if value else 0.0, high=MAX_NOISE)
        if not (isinstance(self.settings, str) and isinstance(self.features, str)):
            raise BadInputError("settings and features of a plan are texts")

    @property
    def config(self) -> RunConfig:
        """The public part of the settings, validated."""
        return _config_of(self.settings)

    @property
    def task(self) -> Task:
        """What is learnt: the one that knows questions, costs, layout and metrics."""
        return task_named(self.config.task)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metric sums."""
        return self.task.metrics(self.config)

    def summarise(self, sums: NDArray[np.float64]) -> dict[str, float]:
        """Readable metrics of metric sums: name -> value."""
        return self.task.summarise(self.config, sums)

    @property
    def evaluates(self) -> bool:
        """Whether contributions carry metric sums."""
        return self.task.evaluates(self.config)

    def derived(self, kind: str) -> bool:
        """Whether an answer to such a query reads nothing but what the site has released in this run."""
        return self.task.derived(kind)

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

    def accepts_delta(self, site: str, delta: float) -> bool:
        """Whether a site's scope may have this delta: the run's or a larger one, and at most one in its consumers."""
        return self.config.privacy.delta <= delta <= 1 / max(self.population(site), 1)

    def weight(self, site: str) -> float:
        """Public FedAvg weight in (0, 1]: declared population over the largest one, or 1."""
        if self.config.aggregation.weights == "equal":
            return 1.0
        return self.population(site) / max(population for _, population in self.populations)

    @property
    def cohort(self) -> int:
        """Sites of a round: all, or as many as are sampled. One session of secure aggregation sums at most 100."""
        aggregation = self.config.aggregation
        largest = (
            min(aggregation.max_cohort, MAX_SITES) if aggregation.mode == "secure" else aggregation.max_cohort
        )
        return min(len(self.populations), largest)

    @property
    def signal(self) -> float:
        """``S = q n / (sigma sqrt(sites))`` over the training consumers of a round, public; infinite without noise.

        A round of sampled sites has that many of them and their share of the consumers, on average.
        """
        privacy = self.config.privacy
        if not self.noise_multiplier or not privacy.enabled:
            return math.inf
        share = self.cohort / len(self.populations)
        consumers = share * sum(population for _, population in self.populations) * (1 - privacy.holdout)
        return privacy.sampling_rate * consumers / (self.noise_multiplier * math.sqrt(self.cohort))

    @property
    def quorum(self) -> Quorum | None:
        """Whose noise a sum holds, where sites share it; the numbers are fixed for the run. None: each site's own is enough."""
        privacy, aggregation = self.config.privacy, self.config.aggregation
        if privacy.trust != "quorum":
            return None
        return Quorum(self.cohort, aggregation.threshold, privacy.colluders, privacy.honest)

    @property
    def could_share(self) -> int:
        """How many honest shares a sum of these sites would hold if they shared its noise; 0 where they do, or cannot."""
        threshold = default_threshold(self.cohort)
        honest = threshold - usual_colluders(self.cohort)
        local = self.config.privacy.trust == "local" and self.config.privacy.enabled and self.task.shares_noise
        return honest if local and self.cohort >= MIN_SITES and honest >= LEAST_HONEST else 0

    def event(self, noise: float, rate: float, steps: int, side: str) -> PrivacyEvent:
        """What ``steps`` sums cost in which each site draws such noise."""
        quorum = self.quorum
        return quorum.event(noise, rate, steps, side) if quorum else PrivacyEvent(noise, rate, steps, side)

    @property
    def noise_in_sum(self) -> float:
        """Noise multiplier of training that epsilon counts on: of what each site draws, or of the sum where they share it."""
        return self.noise_multiplier * math.sqrt(self.quorum.honest if self.quorum else 1)

    def training_event(self) -> PrivacyEvent:
        """What one training contribution costs."""
        return self.task.training_event(self)

    def is_of(self, settings: RunConfig) -> bool:
        """Whether it was made from these settings: what they leave open is what this plan has settled."""
        left_open: dict[str, dict[str, float]] = {
            "privacy": {"closing_noise": 0.0, "colluders": -1, "honest": 0},
            "aggregation": {"threshold": 0},
        }
        settled: dict[str, Any] = {}
        for section, keys in left_open.items():
            given, own = getattr(settings, section), getattr(self.config, section)
            taken = {key: getattr(own, key) for key, empty in keys.items() if getattr(given, key) == empty}
            settled[section] = given.model_copy(update=taken)
        return settings.model_copy(update=settled).public_json() == self.settings

    @property
    def closing_noise(self) -> float:
        """Noise multiplier of the closing evaluation."""
        own, quorum = self.config.privacy.closing_noise, self.quorum
        return (quorum.share(own) if quorum and own else own) or self.evaluation_noise

    def measured(self, kind: str) -> Measured:
        """On whom the metric sums of such a query are taken, and under which noise."""
        return self.task.measured(self, kind)

    def evaluation_event(self, kind: str = TRAIN) -> PrivacyEvent:
        """What the metric sums of one contribution cost."""
        return self.task.evaluation_event(self, kind)

    def events(self, kind: str) -> tuple[PrivacyEvent, ...]:
        """All events of one answer to a query of this kind; empty without privacy, and for what was released before."""
        if not self.config.privacy.enabled or self.derived(kind):
            return ()
        return self.task.events(self, kind)

    def total_events(self) -> tuple[PrivacyEvent, ...]:
        """All that the whole run may cost a site: every round, and the evaluation that closes it."""
        return self.task.total_events(self)

    def blocks(self, kind: str) -> tuple[Block, ...]:
        """Layout of a contribution: the finest fixed point that cannot wrap, the same for every cohort of the run."""
        return self.task.blocks(self, kind)

    def to_json(self) -> str:
        """Canonical JSON."""
        return json.dumps(fields_of(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @staticmethod
    def from_json(text: str) -> RunPlan:
        """Inverse of ``to_json``; the settings in it have been validated too. Raises: ConfigError if it is no plan."""
        try:
            return _plan_in(text)
        except ConfigError:
            raise
        except (ValueError, TypeError, KeyError, BadInputError) as error:
            raise ConfigError(
                f"the run's plan cannot be read: {str(error)[:200]}", hint="both sides need the same version"
            ) from error

    def check_costs(self, kind: str) -> None:
        """Return if what the run and such a query cost can be accounted for.

        Raises: ConfigError for noise, rate or steps that no accountant takes.
        """
        try:
            self.events(kind)
            self.total_events()
        except ValueError as error:
            raise ConfigError(f"the run's costs cannot be accounted for: {error}") from error

    def digest(self) -> bytes:
        """SHA-256 of the plan: ``bytes[32]``."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        return wire.digest(self, domain="plan")


@lru_cache(maxsize=8)  # a site is sent the same one in every round
def _plan_in(text: str) -> RunPlan:
    plain = read(text, largest=MAX_PLAN_LENGTH, what="the run's plan")
    plain["populations"] = tuple((name, declared) for name, declared in plain["populations"])
    require_word("run", plain["run"])
    plan = RunPlan(**plain)
    _config_of(plan.settings)
    return plan


@dataclass(frozen=True)
class Closing:
    """The end of a run, as the coordinator states it and each site countersigns it.

    ``round``: of the last record, ``last``: digest of that record (hex), which names all records before it.
    """

    run: str
    round: int
    last: str

    def __post_init__(self) -> None:
        check_run(self.run)
        check_whole(self.round, "round")
        check_hex_digest(self.last, "digest of the last record")

    def statement(self, purpose: bytes) -> bytes:
        """What is signed: by the coordinator for ``FAREWELL``, by a site for ``COUNTERSIGNED``."""
        return purpose + wire.digest(self, domain="closing")


@dataclass(frozen=True)
class Delivery:
    """A model that the coordinator hands to a site: of which run and plan, under which roster, behind how many rounds.

    ``document``: SHA-256 of its signed ``model.json``, which names the weights; digests are hex.
    """

    run: str
    plan: str
    roster: str
    rounds: int
    document: str

    def __post_init__(self) -> None:
        check_run(self.run)
        check_whole(self.rounds, "rounds")
        for value, what in ((self.plan, "plan"), (self.roster, "roster"), (self.document, "model")):
            check_hex_digest(value, f"digest of the {what}")

    def statement(self, purpose: bytes) -> bytes:
        """What the coordinator signs for ``DELIVERY``."""
        return purpose + wire.digest(self, domain="delivery")


def model_digest(parameters: NDArray[np.float32]) -> bytes:
    """SHA-256 of the parameter vector's little-endian bytes: ``bytes[32]``."""
    found = hashlib.sha256(b"fedcart/model/1\0")
    found.update(np.ascontiguousarray(parameters, dtype="<f4").data)
    return found.digest()


def model_bytes(parameters: NDArray[np.float32]) -> bytes:
    """Little-endian float32 bytes of a parameter vector, as they travel beside a Query."""
    return np.ascontiguousarray(parameters, dtype="<f4").tobytes()
