"""Every setting of a run: frozen pydantic models. ``inputs`` has those of data and model; ``loading`` reads all from TOML.

Settings that change the privacy guarantee (``PrivacySettings``), what is learnt (the other sections) and
only speed (``PerformanceSettings``) are different types. All of them are fixed before round 1; the
public part is what a coordinator signs and a site's policy judges.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import date
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, field_validator, model_validator

from common.extensions import OWN_ENCODERS
from common.recipes import Recipe
from common.run.inputs import CONTEXT, DataSettings, FeatureSettings, ModelSettings, in_one_order
from common.tasks import DEFAULT_TASK, ROW_HEADS, STEP_HEADS, TASKS
from common.tasks.settings import IntentSettings, Positive, SalesSettings, Section

Rate = Annotated[float, Field(gt=0, le=1)]


class TrainingSettings(Section):
    """What a site does in one round, and how many rounds there are."""

    rounds: int = Field(10, ge=1, le=100_000)
    local_steps: int = Field(10, ge=1, le=10_000)
    optimizer: Literal["scalar-adam", "adam", "momentum", "sgd"] = "scalar-adam"
    learning_rate: float = Field(
        0.0, ge=0, description="0: the recipe's, from optimizer, number of sites and public signal"
    )
    proximal: float = Field(0.0, ge=0, description="FedProx mu, pulls local steps to the incoming model")
    early_stopping: int = Field(0, ge=0, description="rounds without a better released loss; 0: off")
    split: Literal["consumer", "time"] = Field(
        "consumer",
        description="who is learnt from, chosen by and reported on; time: also when, by two public dates",
    )
    validation_from: str = Field(
        "", description="split = time: nothing from this date on is learnt (YYYY-MM-DD, UTC)"
    )
    test_from: str = Field(
        "", description="split = time: reported is what comes from this date on; runs choose by what is before"
    )

    @field_validator("validation_from", "test_from", mode="before")
    @classmethod
    def _as_text(cls, found: Any) -> Any:
        """A date of TOML is a date, quoted or not."""
        return found.isoformat() if type(found) is date else found

    @model_validator(mode="after")
    def _dated(self) -> TrainingSettings:
        given = [text for text in (self.validation_from, self.test_from) if text]
        if given and self.split != "time":
            raise ValueError("training.validation_from and test_from are for training.split = time")
        if len(given) == 1:
            raise ValueError("training.split = time takes both dates, validation_from and test_from, or neither")
        if given and not date.fromisoformat(given[0]) < date.fromisoformat(given[1]):
            raise ValueError(f"training.test_from {given[1]} must be after validation_from {given[0]}")
        return self

    @property
    def dates_us(self) -> tuple[int, int] | None:
        """Both dates in microseconds since 1970, None where nothing is cut."""
        if not self.validation_from:
            return None
        first, then = (
            (date.fromisoformat(text) - date(1970, 1, 1)).days * 86_400_000_000
            for text in (self.validation_from, self.test_from)
        )
        return first, then


class PrivacySettings(Section):
    """Everything that moves epsilon. Unit: consumer. Neighbouring relation: add or remove one."""

    enabled: bool = True
    epsilon: float = Field(8.0, gt=0, le=1_000, description="target of the whole run, per site and consumer")
    delta: float = Field(1e-5, gt=0, lt=0.1)
    noise_multiplier: float = Field(0.0, ge=0, description="0: calibrated from epsilon; else used as it is")
    clip: Positive = Field(1.0, description="L2 bound of one consumer's gradient")
    sampling_rate: Rate = Field(0.1, description="Poisson rate of a consumer per local step")
    holdout: float = Field(0.2, ge=0, lt=0.9, description="share of consumers kept for evaluation, by keyed hash")
    validation: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of those who are measured in every round, by whom a run chooses; the others once, for the report",
    )
    evaluation_noise: float = Field(0.0, ge=0, description="0: calibrated; else noise multiplier of metric sums")
    closing_noise: float = Field(
        0.0, ge=0, description="of the closing evaluation; 0: calibrated, or evaluation_noise where that is given"
    )
    noise: Literal["gaussian", "hardened"] = "gaussian"
    trust: Literal["local", "quorum"] = Field(
        "local",
        description="local: each site's own noise is enough; quorum: the sum holds it, each adds its share",
    )
    colluders: int = Field(
        -1, ge=-1, le=100, description="quorum: sites that may work with the server; -1: fewer than a third"
    )
    honest: int = Field(
        0, ge=0, le=100, description="quorum: honest sites whose noise is counted on; 0: threshold less colluders"
    )

    @model_validator(mode="after")
    def _of_a_quorum(self) -> PrivacySettings:
        if self.trust == "local" and (self.colluders >= 0 or self.honest):
            raise ValueError("privacy.colluders and privacy.honest are for privacy.trust = quorum")
        return self


class AggregationSettings(Section):
    """How contributions become one sum."""

    mode: Literal["secure", "plain"] = "secure"
    threshold: int = Field(0, ge=0, description="survivors needed; 0: floor(2n/3)+1")
    weights: Literal["population", "equal"] = Field("population", description="public FedAvg weights")
    min_sites: int = Field(3, ge=1, description="fewer answering sites abort a round")
    max_cohort: int = Field(100, ge=1, le=200, description="larger federations are sampled down per round")
    min_stockists: int = Field(3, ge=1, description="item rows stocked by fewer sites of the cohort stay local")
    deadline_s: Positive = Field(600.0, description="for the exchange that trains")
    exchange_deadline_s: Positive = Field(60.0, description="for every other exchange")


class StrategySettings(Section):
    """The server's optimizer on the mean update."""

    name: str = Field(
        "fedavg",
        pattern=r"^(fedavg|fedavgm|fedadam|fedyogi|scalar-adam|custom:[A-Za-z0-9][A-Za-z0-9-]*)$",
        description="fedavg, fedavgm, fedadam, fedyogi, scalar-adam (one second moment for all coordinates), or custom:NAME for one that a program has registered",
    )
    learning_rate: Positive = 1.0
    momentum: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    ema: float = Field(0.97, ge=0, lt=1, description="decay per private step of the averaged model; 0: off")


class ScheduleSettings(Section):
    """Runs one a period, each from the last one's model, by `fedcart server schedule`; epsilon is that of each run."""

    every: Literal["day", "week", "month", "quarter", "year"] = "month"
    periods: int = Field(0, ge=0, le=366, description="how many; 0: no schedule")
    begins: str = Field("", description="first day of the first period (YYYY-MM-DD, UTC)")
    period: int = Field(0, ge=0, description="which of them a run is: written by the schedule itself, 0 elsewhere")

    @field_validator("begins", mode="before")
    @classmethod
    def _as_text(cls, begins: Any) -> Any:
        """A date of TOML is a date, quoted or not."""
        return begins.isoformat() if type(begins) is date else begins

    @model_validator(mode="after")
    def _dated(self) -> ScheduleSettings:
        if self.periods and not self.begins:
            raise ValueError("a schedule needs its first day: schedule.begins = 2026-01-01")
        if self.begins:
            begins = date.fromisoformat(self.begins)
            if not 1970 <= begins.year <= 2200:
                raise ValueError(f"schedule.begins {self.begins} is out of reach")
        if self.period > self.periods:
            raise ValueError(f"schedule.period {self.period} is beyond the {self.periods} of the schedule")
        return self


class PerformanceSettings(Section):
    """Speed only: nothing here changes the guarantee or what is learnt (in distribution)."""

    engine: Literal["inprocess", "ray"] = "inprocess"
    workers: int = Field(0, ge=0, le=256, description="processes; 0: one per core")
    trainer: Literal["fast", "opacus"] = "fast"
    micro_batch: int = Field(256, ge=1, description="consumers per physical batch")


NOT_PUBLIC = (
    "recipe",
    "data",
    "performance",
    "drop",
    "start_from",
    "start_from_others",
    "baselines",
    "oracle_every",
)


class RunConfig(Section):
    """All settings of one run.

    Example:
        >>> RunConfig.model_validate({"training": {"rounds": 3}}).training.rounds
        3
    """

    name: str = Field("marketplace", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    task: str = Field(DEFAULT_TASK, description="what is learnt: " + ", ".join(TASKS))
    recipe: Recipe = Field(
        "quick",
        description="defaults of rounds, local_steps and sampling_rate: 10, 10, .1, or 200, 1, .25 with fedavgm, no item bias; "
        "in a quorum 40 or 100 rounds of one step, .2",
    )
    seed: int = Field(1, ge=0, lt=2**63, description="data, initialisation and order only; never noise")
    drop: float = Field(0.0, ge=0, lt=1, description="simulation: share of sites lost per round at a random phase")
    start_from: str = Field(
        "", description="run folder whose model begins this run, where names and shapes agree; its epsilon adds up"
    )
    start_from_others: bool = Field(
        False,
        description="simulation: the consumers behind start_from are other people, so nothing of it is charged",
    )
    baselines: bool = Field(False, description="simulation: also local-only, item-kNN and central runs")
    oracle_every: int = Field(
        0, ge=0, description="simulation: rounds between exact metrics; 0: such that a run has about twenty"
    )
    data: DataSettings = Field(default_factory=DataSettings)
    features: FeatureSettings = Field(default_factory=FeatureSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    intent: IntentSettings = Field(default_factory=IntentSettings)
    sales: SalesSettings = Field(default_factory=SalesSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)
    aggregation: AggregationSettings = Field(default_factory=AggregationSettings)
    strategy: StrategySettings = Field(default_factory=StrategySettings)
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)
    performance: PerformanceSettings = Field(default_factory=PerformanceSettings)

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        if name not in TASKS:
            raise ValueError(f"no such task, there are: {', '.join(TASKS)}")
        return name

    def without(self, constant: Iterable[str]) -> RunConfig:
        """The same run with more features declared constant; heads and context that were named stay as they are."""
        declared = in_one_order((*self.features.constant, *constant))
        tree = self.model_dump(mode="json")
        tree["features"]["constant"] = list(declared)
        if self.model.heads == _usual_heads(self.task, self.features.constant):
            del tree["model"]["heads"]
        if self.model.context == _usual_context(self.features.constant):
            del tree["model"]["context"]
        return RunConfig.model_validate(tree)

    @model_validator(mode="before")
    @classmethod
    def _context_without_constants(cls, tree: Any) -> Any:
        """What is the same in every event says nothing and would take a part of the clip: left out unless it is named."""
        constant = _constant_in(tree)
        if not constant or "context" in tree.get("model", {}):
            return tree
        return {**tree, "model": {**tree.get("model", {}), "context": list(_usual_context(constant))}}

    @model_validator(mode="before")
    @classmethod
    def _heads_of_the_task(cls, tree: Any) -> Any:
        """Give a task its usual heads unless the settings name some."""
        if not isinstance(tree, dict) or not isinstance(tree.get("model", {}), dict):
            return tree
        task = TASKS.get(str(tree.get("task", DEFAULT_TASK)))
        if "heads" in tree.get("model", {}) or task is None:
            return tree
        heads = _usual_heads(task.name, _constant_in(tree))
        return {**tree, "model": {**tree.get("model", {}), "heads": heads}}

    @model_validator(mode="after")
    def _coherent(self) -> RunConfig:
        if self.aggregation.threshold and self.aggregation.threshold < 2:
            raise ValueError("aggregation.threshold must be 0 or at least 2: one site alone would be seen")
        if not self.model.heads or any(weight < 0 for weight in self.model.heads.values()):
            raise ValueError("model.heads must name at least one head, weights must not be negative")
        TASKS[self.task].check_heads(self.model.heads, ROW_HEADS)
        if self.privacy.enabled and self.model.dropout:
            raise ValueError(
                "model.dropout has no proof under privacy: its masks follow a consumer's place in the batch, so one "
                "consumer more moves the others' gradients too; set it to 0, or privacy.enabled to false"
            )
        if TASKS[self.task].network == "sales" and self.model.encoder not in OWN_ENCODERS:
            raise ValueError(f"a sales run reads its series with {' or '.join(OWN_ENCODERS)}")
        if self.training.split == "time" and (task := TASKS[self.task]).cut_in_time:
            raise ValueError(
                f"training.split = time is for the next behaviour; task {task.name} {task.cut_in_time}"
            )
        if self.privacy.trust == "quorum":
            self._require_one_linear_step()
        if self.start_from and not TASKS[self.task].goes_on:
            raise ValueError(
                "start_from begins from a model of behaviour; a sales run begins from the seasonal mean"
            )
        return self

    def _require_one_linear_step(self) -> None:
        """With quorum noise a site sends one clipped sum: what comes after it is the server's, and nothing bends it before.

        Raises: ValueError naming the setting.
        """
        training, aggregation = self.training, self.aggregation
        broken = (
            (not self.privacy.enabled, "privacy.enabled = false: without privacy there is no noise to share"),
            (
                not TASKS[self.task].shares_noise,
                f"task {self.task}: a site learns from its own release, which is a share",
            ),
            (
                aggregation.mode != "secure",
                "aggregation.mode = plain: the server would see each site's share alone",
            ),
            (
                aggregation.weights != "population",
                "aggregation.weights = equal: sites send sums, which weigh by themselves",
            ),
            (
                training.local_steps != 1,
                f"training.local_steps = {training.local_steps}: a second step would follow a share",
            ),
            (bool(training.proximal), "training.proximal: FedProx needs several local steps"),
            (
                training.optimizer != "sgd",
                f"training.optimizer = {training.optimizer}: the optimizer is the server's",
            ),
            (self.privacy.noise != "gaussian", "privacy.noise = hardened: quorum noise is discrete already"),
        )
        for wrong, what in broken:
            if wrong:
                raise ValueError(
                    f"privacy.trust = quorum does not go with {what} (leave such keys out, and the recipe sets them)"
                )

    @property
    def cut_us(self) -> int | None:
        """Microseconds since 1970 before which a row keeps its last events, and all behind it; None: the last events."""
        dates = self.training.dates_us
        return self.intent.cut_us if dates is None else dates[0]

    def public_json(self) -> str:
        """Canonical JSON of what every party of a run must agree on: no paths, no speed, no data source."""
        public = self.model_dump(mode="json", exclude=set(NOT_PUBLIC))
        return json.dumps(public, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def digest(self) -> bytes:
        """SHA-256 of ``public_json``: ``bytes[32]``."""
        return hashlib.sha256(b"fedcart/config/1\0" + self.public_json().encode()).digest()

    def to_toml(self) -> str:
        """All settings as TOML, ready to be run again."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def _constant_in(tree: Any) -> tuple[str, ...]:
    """Declared constants of raw settings; nothing where the shape is wrong, which validation says."""
    if not isinstance(tree, dict) or not isinstance(tree.get("model", {}), dict):
        return ()
    features = tree.get("features", {})
    named = features.get("constant", ()) if isinstance(features, dict) else getattr(features, "constant", ())
    return tuple(name for name in named if isinstance(name, str)) if isinstance(named, (list, tuple)) else ()


def _usual_context(constant: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in CONTEXT if name not in set(constant))


def _usual_heads(task: str, constant: Iterable[str]) -> dict[str, float]:
    """A task's heads; one whose answer is always the same is no question, unless it is the only one."""
    heads = dict(sorted(TASKS[task].heads.items()))
    asked = {name: weight for name, weight in heads.items() if STEP_HEADS.get(name) not in set(constant)}
    return asked or heads
