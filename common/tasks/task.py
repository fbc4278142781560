"""``Task``: what a run asks its sites, in which order, what that costs, and what comes back. No torch.

A task is a room with three parts of one name: ``common/tasks/NAME.py`` (this), ``client/tasks/NAME.py`` (the site's half:
what it computes from its own consumers) and ``simulations/tasks/NAME.py`` (the oracle's half). One line in
``common/tasks/registry.py`` opens it. No other code asks for a task by its name; what a task decides for others is an
attribute of it (``network``, ``opening``).

Settings are a ``RunConfig`` and plans a ``RunPlan``; both stand above this file, so they are ``Any`` here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.contribution import EVALUATE, METRICS, TRAIN, UPDATE, Block
from common.errors import ConfigError
from common.privacy import HOLDOUT_SIDE, SUB_SCOPES, TRAIN_SIDE, VALIDATION_SIDE, Losses, PrivacyEvent
from common.tasks.forecast import forecast_lines
from common.tasks.heads import STEP_HEADS
from common.tasks.local_steps import local_constants
from common.tasks.metric_sums import metric_names, metric_sensitivity, summarise
from common.tasks.noised_blocks import noised_blocks, update_noise
from common.tasks.reach import TAIL as TAIL, Reach, most_consumers, reach

Calibrate = Callable[[float, float, float, int], float]
"""(epsilon, delta, sampling rate, steps) -> noise multiplier."""

_RING = 2**31
_UPDATE_CLIP = 4.0
_LEAST_EVALUATION_NOISE = 1.0  # what sites ask for unless they say otherwise: policy.toml, evaluation_noise_min


@dataclass(frozen=True)
class Task:
    """A task whose rows are consumers: each round trains on one part of them and measures on the other.

    ``heads``: the usual ones with their weights; ``row_heads``: those that answer once for a whole row -> number of
    classes (1: yes or no). ``primary``: the metric that decides between models. ``room``: the module of its halves.
    ``step_heads``: whether heads that answer at every step may, must, or must not be beside them.
    """

    name: str
    room: str
    heads: Mapping[str, float]
    primary: str
    row_heads: Mapping[str, int] = field(default_factory=dict)
    step_heads: str = "may"

    network = "sequence"
    """Which class the model is: see ``common.model.run_model``."""
    looks_up_items = True
    """Whether the model has a row for every item, of which a site needs at least one."""
    goes_on = True
    """Whether a run can begin from an earlier run's model."""
    shares_noise = True
    """Whether sites may share the noise of a sum: not where they go on with what they have released themselves."""
    opening = ""
    """Kind of a question that is asked once before round 1; empty: none."""

    # settings

    @property
    def cut_in_time(self) -> str:
        """Why the task takes no ``training.split = time``; empty: it does."""
        return (
            "asks for whole rows, and has a date of its own: intent.ask = days with intent.cut"
            if self.row_heads
            else ""
        )

    def check_heads(self, heads: Mapping[str, float], known_rows: Mapping[str, int]) -> None:
        """Return if these heads fit the task. Raises: ValueError."""
        rows, steps = sorted(set(heads) & set(known_rows)), sorted(set(heads) & set(STEP_HEADS))
        if rows != sorted(self.row_heads) or (steps and self.step_heads == "none"):
            raise ValueError(
                f"task {self.name} does not fit model.heads {sorted(heads)}, its usual heads are {sorted(self.heads)}"
            )
        if self.step_heads == "some" and not steps:
            raise ValueError(f"task {self.name} needs a head of the next behaviour beside {', '.join(rows)}")

    def with_catalogue(self, config: Any, categories: Callable[[], tuple[str, ...]]) -> Any:  # noqa: ARG002
        """The settings with what a public catalogue fills in; ``categories`` are its own, the largest first."""
        return config

    def calibrate(self, config: Any, noise_for: Calibrate) -> tuple[float, float]:
        """Noise multipliers of training and of evaluation that meet the target; 0 for what is not released.

        Raises: ConfigError if the target cannot be met.
        """
        privacy, training = config.privacy, config.training
        steps = training.rounds * training.local_steps
        rate = privacy.sampling_rate
        noise = privacy.noise_multiplier or noise_for(privacy.epsilon, privacy.delta, rate, steps)
        if privacy.holdout == 0:
            return noise, 0.0
        if training.split == "time" and training.dates_us is None:
            raise ConfigError(
                "training.split = time needs the public dates training.validation_from and training.test_from",
                hint="nothing from the first on is learnt; what is reported comes from the second on",
            )
        releases = training.rounds + (0 if privacy.validation else 1)  # one a round, one that closes the run
        calibrated = noise_for(privacy.epsilon, privacy.delta, 1.0, releases)
        return noise, privacy.evaluation_noise or max(calibrated, _LEAST_EVALUATION_NOISE)

    def closing(self, config: Any, noise_for: Calibrate) -> float:
        """Noise multiplier of the closing evaluation where it is not that of the rounds: those it reads are read once. Else 0.

        Raises: ConfigError if the target cannot be met.
        """
        privacy = config.privacy
        if not (privacy.holdout and privacy.validation) or privacy.evaluation_noise or privacy.closing_noise:
            return float(privacy.closing_noise)
        return max(noise_for(privacy.epsilon, privacy.delta, 1.0, 1), _LEAST_EVALUATION_NOISE)

    # what is asked, and what it costs

    def accepts(self, kind: str, round_number: int, rounds: int) -> bool:
        """Whether a question of this kind belongs to this round of a run. Round 0 is the opening."""
        if round_number == 0:
            return bool(self.opening) and kind == self.opening
        return 1 <= round_number <= rounds + 1 and kind in (TRAIN, EVALUATE)

    def derived(self, kind: str) -> bool:  # noqa: ARG002
        """Whether an answer reads nothing but what the site has released in this run."""
        return False

    def evaluates(self, config: Any) -> bool:
        """Whether contributions carry metric sums."""
        return bool(config.privacy.holdout > 0)

    def events(self, plan: Any, kind: str) -> tuple[PrivacyEvent, ...]:
        """All events of one answer to a question of this kind, with privacy on."""
        training = (plan.training_event(),) if kind == TRAIN else ()
        evaluation = (plan.evaluation_event(kind),) if plan.config.privacy.holdout > 0 else ()
        return training + evaluation

    def total_events(self, plan: Any) -> tuple[PrivacyEvent, ...]:
        """All that a whole run may cost a site: every round, and the evaluation that closes it."""
        rounds = plan.config.training.rounds
        trained = (replace(event, steps=rounds * event.steps) for event in plan.events(TRAIN))
        total = Losses.of((*trained, *plan.events(EVALUATE)))
        return tuple(sorted(total, key=lambda event: SUB_SCOPES.index(event.sub_scope)))

    def training_event(self, plan: Any) -> PrivacyEvent:
        """What one training contribution costs."""
        config = plan.config
        steps, rate = config.training.local_steps, config.privacy.sampling_rate
        event: PrivacyEvent = plan.event(plan.noise_multiplier, rate, steps, TRAIN_SIDE)
        return event

    def measured(self, plan: Any, kind: str) -> Measured:
        """On whom metric sums are taken: in every round on those by whom a run chooses, in the end on the others held out."""
        privacy = plan.config.privacy
        if kind == EVALUATE:
            return Measured(HOLDOUT_SIDE, privacy.holdout * (1 - privacy.validation), plan.closing_noise)
        if privacy.validation:
            return Measured(VALIDATION_SIDE, privacy.holdout * privacy.validation, plan.evaluation_noise)
        return Measured(HOLDOUT_SIDE, privacy.holdout, plan.evaluation_noise)

    def evaluation_event(self, plan: Any, kind: str) -> PrivacyEvent:
        """What the metric sums of one contribution cost."""
        asked = plan.measured(kind)
        event: PrivacyEvent = plan.event(asked.noise, 1.0, 1, asked.side)
        return event

    def sampling_rate(self, config: Any) -> float:
        """Share of the consumers that one noised sum reads."""
        return float(config.privacy.sampling_rate)

    def signal(self, plan: Any) -> float:
        """``S`` of docs/simulate.md, infinite where noise is not what limits training."""
        return float(plan.signal)

    # what comes back

    def blocks(self, plan: Any, kind: str) -> tuple[Block, ...]:
        """Layout of a contribution: the finest fixed point that cannot wrap, the same for every cohort of a run."""
        if plan.quorum:
            return noised_blocks(self, plan, kind)
        cohort, largest = cohort_and_largest(plan)
        length = plan.parameters if kind == TRAIN else 0
        update = Block(UPDATE, length, _UPDATE_CLIP, bits(cohort, _UPDATE_CLIP))
        bound = float(2 * largest)
        metrics = Block(METRICS, len(self.metrics(plan.config)), bound, bits(cohort, bound))
        return tuple(block for block in (update, metrics) if block.length)

    def reach(self, plan: Any, site: str, parameters: int) -> Reach:
        """How far an honest update of a site can go whose own model has so many ``parameters``, by public constants."""
        constants = local_constants(
            plan.config, plan.population(site), plan.cohort, plan.noise_multiplier, plan.signal
        )
        if plan.quorum:
            drawn = update_noise(plan) / plan.weight(site)
            per_multiplier = constants.learning_rate * constants.sensitivity / constants.expected_batch
            constants = replace(constants, noise_multiplier=drawn / per_multiplier)
        return reach(constants, parameters)

    def legal(self, plan: Any, kind: str, sites: Sequence[str]) -> dict[str, Legal]:
        """Bounds of every coordinate of each block beside the update, in a sum over these sites."""
        asked, heads = plan.measured(kind), list(plan.config.model.heads)
        noise = asked.noise * metric_sensitivity(heads) if plan.config.privacy.enabled else 0.0
        if plan.quorum:
            noise = sum(block.noise_scale for block in self.blocks(plan, kind) if block.name == METRICS)
        most = sum(most_consumers(asked.share * plan.population(site)) for site in sites)
        spread = TAIL * noise * math.sqrt(len(sites))
        return {METRICS: Legal(-spread, most + spread, first=(-spread, most + spread), beyond_first=1.5 * spread)}

    def metrics(self, config: Any) -> tuple[str, ...]:
        """Names of the metric sums."""
        return metric_names(list(config.model.heads))

    def summarise(self, config: Any, sums: NDArray[np.float64]) -> dict[str, float]:
        """Readable metrics of metric sums: name -> value."""
        return summarise(list(config.model.heads), sums)

    # words for people

    def forecast(self, plan: Any, own: str = "") -> list[str]:
        """What to expect of a run, from public numbers, before anything is released; ``own``: the site that reads it."""
        return forecast_lines(plan, own)

    def approval_rows(self, config: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        """What an operator must see before saying yes, beside what holds for every task: (name, text)."""
        return []

    def evaluation_words(self, plan: Any) -> str:
        """What measuring costs, for the operator."""
        in_sum = math.sqrt(plan.quorum.honest) if plan.quorum else 1.0
        words = f"evaluation: noise multiplier {plan.evaluation_noise * in_sum:.4f}"
        return (
            words
            if plan.closing_noise == plan.evaluation_noise
            else f"{words}, in the end {plan.closing_noise * in_sum:.4f}"
        )


@dataclass(frozen=True)
class Measured:
    """On whom metric sums are taken: the part of the consumers, its share of all, and the noise multiplier of the sums."""

    side: str
    share: float
    noise: float


@dataclass(frozen=True)
class Legal:
    """What the coordinates of an honest sum can be: ``low`` to ``high``; the first one in ``first``, and no other one more than
    ``beyond_first`` above it. What fixed point rounds comes on top.
    """

    low: float
    high: float
    first: tuple[float, float]
    beyond_first: float = math.inf


def cohort_and_largest(plan: Any) -> tuple[int, int]:
    """Sites in the largest cohort, and the largest declared population."""
    return plan.cohort, max(population for _, population in plan.populations)


def bits(cohort: int, clip: float) -> int:
    """Most fractional bits with ``cohort * clip * 2**bits < 2**31``. Raises: ConfigError if none fit."""
    if cohort * clip >= _RING:
        raise ConfigError(
            f"sums of {cohort} sites up to {clip:g} do not fit 32 bits",
            hint="declare populations below 2**30 / sites",
        )
    fractional = 0
    while cohort * clip * 2 ** (fractional + 1) < _RING:
        fractional += 1
    return fractional
