"""Every setting of a run: frozen pydantic models. ``loading`` beside it reads them from TOML and overrides.

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

from common.extensions import OWN_ENCODERS, require_encoder, require_head
from common.recipes import Recipe
from common.tasks import DEFAULT_TASK, ROW_HEADS, STEP_HEADS, TASKS
from common.tasks.settings import Count, IntentSettings, Positive, SalesSettings, Section

Rate = Annotated[float, Field(gt=0, le=1)]

CONTEXT = ("event", "category", "price", "gap", "hour", "weekday", "month")
"""Integer features of an event beside its item."""


class DataSettings(Section):
    """Where a simulation's events come from and how they are dealt to sites (public in a simulation)."""

    events: str = Field("", description="event log: file, folder or pattern; empty: the synthetic marketplace")
    source: str = Field("", description="TOML file with a table [source]: a database, or SQL over files")
    format: str = Field("auto", description="preset or mapping of the file, or 'auto', see `fedcart data check`")
    map: tuple[str, ...] = Field((), description="what is known of its columns, as in 'consumer=user_id'")
    catalogue: str = Field("", description="public catalogue file; empty: synthetic or built from the log")
    split_by: Literal["site", "consumers", "items", "country", "store"] | str = Field(
        "site", description="a column of the log (natural sites), or 'consumers' (IID), or 'items' (non-IID)"
    )
    sites: int = Field(8, ge=1, le=100_000, description="number of sites where the split is not a column")
    min_population: int = Field(100, ge=1, description="declared consumers below which a site is small")
    small_sites: Literal["merge", "drop"] = Field("merge", description="small sites: one 'rest' site, or left out")
    consumers: Count = Field(14_000, description="synthetic: consumers over all sites")
    items: int = Field(1_000, ge=20, description="synthetic: items over all sites")
    events_per_consumer: Positive = Field(24.0, description="synthetic: mean events of a consumer")
    days: int = Field(180, ge=2, le=3_650, description="synthetic: length of the log")
    synthetic: Literal["marketplace", "rows"] = Field(
        "marketplace", description="what is generated: unequal merchants, or plain rows of items at equal sites"
    )
    lengths: tuple[Count, Count] = Field(
        (13, 51), description="synthetic rows: fewest and most events of a consumer"
    )


class FeatureSettings(Section):
    """Public, data-independent encoding of events."""

    max_events: int = Field(50, ge=2, le=2_000, description="last events of a consumer that are read")
    item_buckets: int = Field(0, ge=0, le=1_000_000, description="0: public catalogue; else hashed buckets")
    max_items: int = Field(5_000, ge=10, description="largest catalogue; the rest become hashed buckets")
    constant: tuple[str, ...] = Field(
        (), description="features that are declared to be the same in every event: neither read nor predicted"
    )

    @field_validator("constant")
    @classmethod
    def _known_features(cls, constant: tuple[str, ...]) -> tuple[str, ...]:
        return in_one_order(constant)


class ModelSettings(Section):
    """The shared sequence model."""

    encoder: str = Field("lstm", description="`lstm`, `gru`, or one that a program or an installed package brings")
    dim: int = Field(48, ge=2, le=1_024, description="width of item embedding and residual stream")
    hidden: int = Field(
        48, ge=2, le=1_024, description="width of the recurrent state; projected to dim if it differs"
    )
    layers: int = Field(1, ge=1, le=3)
    dropout: float = Field(0.0, ge=0, lt=1, description="between recurrent layers; without privacy only")
    pooling: Literal["last", "attention"] = Field("last", description="for heads that see a whole row")
    history: bool = Field(
        True, description="purchase intent: counts of a consumer's past go straight to the head, past the encoder"
    )
    targets: Literal["every", "last"] = Field(
        "every", description="steps at which the next behaviour is asked: all, or the last known one of each row"
    )
    context: tuple[str, ...] = Field(CONTEXT, description="other features of an event that the model reads")
    context_scale: float = Field(
        0.5, gt=0, le=1, description="public factor on them: at 1 they take half of what a consumer may say"
    )
    tied: bool = Field(True, description="output item embedding = input item embedding")
    item_bias: bool = Field(
        True,
        description="a popularity of each item beside its vector; it takes a tenth of what a consumer may say",
    )
    name_scale: float = Field(
        2.0,
        ge=0,
        le=20,
        description="length of an item's first vector, from the words of its public name; 0: random",
    )
    copy_bonus: float = Field(
        3.0, ge=0, le=20, description="public logit bonus on items already in the row, and on its last category"
    )
    heads: dict[str, float] = Field(
        default_factory=lambda: {"next-item": 1.0, "next-event": 0.1},
        description="head -> weight of its loss",
    )
    sampled_negatives: int = Field(0, ge=0, description="0: full softmax; else size of the fixed public negatives")

    @field_validator("context")
    @classmethod
    def _known_features(cls, context: tuple[str, ...]) -> tuple[str, ...]:
        """In one order, as the heads."""
        return in_one_order(context)

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, name: str) -> str:
        require_encoder(name)
        return name

    @field_validator("heads")
    @classmethod
    def _in_one_order(cls, heads: dict[str, float]) -> dict[str, float]:
        """Sorted: the order of heads is the order of parameters, and must survive JSON."""
        for name in heads:
            require_head(name)
        return dict(sorted(heads.items()))


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
        pattern=r"^(fedavg|fedavgm|fedadam|custom:[A-Za-z0-9][A-Za-z0-9-]*)$",
        description="fedavg, fedavgm, fedadam, or custom:NAME for one that a program has registered",
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
        description="defaults of rounds, local_steps and sampling_rate: 10, 10, .1, or 200, 1, .25 with fedavgm, no item bias",
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
        if self.start_from and not TASKS[self.task].goes_on:
            raise ValueError(
                "start_from begins from a model of behaviour; a sales run begins from the seasonal mean"
            )
        return self

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


def in_one_order(features: Iterable[str]) -> tuple[str, ...]:
    """Context features, each once. Raises: ValueError for one that does not exist."""
    wanted = set(features)
    unknown = sorted(wanted - set(CONTEXT))
    if unknown:
        raise ValueError(f"no feature named {unknown[0]}, known are {', '.join(CONTEXT)}")
    return tuple(name for name in CONTEXT if name in wanted)


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
