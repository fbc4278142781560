"""The site's own rules. A proposal outside them is refused, naming the rule; a Query is never altered."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.atomic import read_small, write_atomic
from common.contribution import EVALUATE, STATISTICS
from common.errors import ConfigError, PolicyRefusedError
from common.privacy import TRAIN_SIDE, PrivacyEvent, Quorum, usual_colluders
from common.tasks import TASKS

# In which direction a rule allows more. A test asks that every rule is in one of the three.
ALLOWS_MORE_ABOVE = frozenset({
    "epsilon_max", "epsilon_alone_max", "delta", "sampling_rate_max", "steps_max", "clip_max", "learning_rate_max", "weight_ratio_max",
    "failures_max", "voids_max",
})  # fmt: skip
ALLOWS_MORE_BELOW = frozenset({
    "noise_multiplier_min", "evaluation_noise_min", "clip_min", "min_cohort", "min_consumers", "min_stockists",
    "min_threshold_fraction", "honest_min",
})  # fmt: skip
# The default first, then what allows more; where the default allows all, nothing allows more.
WORDS: dict[str, tuple[object, ...]] = {
    "plain_aggregation": (False, True), "quorum_noise": (False, True), "colluders_max": (-1, *range(100)), "approve": ("ask", "auto"),
    "evaluation": (True,), "statistics": (True,), "allowed_tasks": (),
}  # fmt: skip
UNLIMITED = 1e9  # as epsilon_alone_max
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Refusal = tuple[str, str]


@dataclass(frozen=True)
class Proposal:
    """What a coordinator asks of a site in one round, in the words of the policy.

    All fields are public: from the signed Query, the cohort and the site's own declaration. ``query`` and
    ``config`` are digests (hex), ``population`` the site's declared consumers, ``threshold`` the survivors
    needed, ``secure`` whether the server sees only the sum.

    ``holdout``, ``validation`` and ``split_key`` say who is on which side: the share held out, the share of those by whom the run
    chooses, and the SHA-256 (hex) of the site's own key.
    ``run_events`` is all that the run may spend by its plan, empty where no plan stands behind a proposal.
    ``weight_ratio`` is the largest declared population over this site's own. ``derived``: the answer reads nothing
    but what this site has released in the same run, as this program's own code has it; it costs nothing.
    ``sites``: of the whole run, where a coordinator picks each cohort among them; 0: those of the cohort.
    ``roster`` and ``witness``: digests (hex) of the roster and of all sites' last signed heads, as the session names them.
    ``kits``: public keys (hex) of all sites of the run, of which some may answer about the same consumers.
    """

    run: str
    round: int
    attempt: int
    kind: str
    task: str
    query: str
    config: str
    events: tuple[PrivacyEvent, ...]
    delta: float
    clip: float
    cohort: int
    threshold: int
    population: int
    min_stockists: int
    secure: bool
    holdout: float = 0.0
    split_key: str = ""
    validation: float = 0.0
    run_events: tuple[PrivacyEvent, ...] = ()
    learning_rate: float = 1.0
    weight_ratio: float = 1.0
    derived: bool = False
    sites: int = 0
    roster: str = ""
    witness: str = ""
    kits: tuple[str, ...] = ()

    @property
    def in_quorum(self) -> bool:
        """Whether sites share the noise of the sum."""
        return any(event.in_quorum for event in self.events)


class SitePolicy(BaseModel):
    """``policy.toml``: what a site lets itself be asked. Owned by the site.

    Example:
        >>> SitePolicy(epsilon_max=2.0).epsilon_max
        2.0
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epsilon_max: _Positive = Field(8.0, description="limit of the scope, over all runs and models")
    delta: float = Field(1e-5, gt=0, lt=0.1, description="fixed for the scope when its ledger is made")
    noise_multiplier_min: _Positive = Field(0.5, description="least noise of a training step or statistic")
    evaluation_noise_min: _Positive = Field(1.0, description="least noise of an evaluation")
    sampling_rate_max: float = Field(0.5, gt=0, le=1, description="largest Poisson rate of a training step")
    steps_max: int = Field(1_000, ge=1, description="most training steps in one round")
    clip_min: _Positive = Field(1e-3, description="smallest clipping norm")
    clip_max: _Positive = Field(100.0, description="largest clipping norm")
    learning_rate_max: _Positive = Field(10.0, description="largest local learning rate")
    weight_ratio_max: _Positive = Field(
        1_024.0, description="largest declared population of a site, as a multiple of this site's own"
    )
    min_cohort: int = Field(3, ge=1, description="fewer invited sites: refuse")
    min_consumers: int = Field(100, ge=1, description="smaller declared population: refuse")
    min_stockists: int = Field(3, ge=1, description="item rows of fewer sites must stay local")
    min_threshold_fraction: float = Field(
        0.5, gt=0, le=1, description="survivors needed, as a share of the cohort"
    )
    allowed_tasks: tuple[str, ...] = Field(
        default_factory=lambda: tuple(TASKS), description="tasks this site takes part in"
    )
    evaluation: bool = Field(True, description="release noised metric sums on the hold-out")
    statistics: bool = Field(True, description="release noised statistics for preprocessing")
    plain_aggregation: bool = Field(False, description="let the server see this site's noised contribution")
    quorum_noise: bool = Field(
        False, description="add a share of the noise only, where the sum holds that of other honest sites"
    )
    colluders_max: int = Field(
        -1,
        ge=-1,
        le=100,
        description="quorum: so many of the other sites may work with the server, as far as this site knows them; "
        "-1: fewer than a third",
    )
    honest_min: int = Field(
        2, ge=2, le=100, description="quorum: least number of honest sites that are counted on"
    )
    epsilon_alone_max: float = Field(
        0.0, ge=0, description="quorum: limit of the scope if no other site is honest; 0: quorum noise is refused"
    )
    failures_max: int = Field(
        1,
        ge=1,
        description="answers of a run that may fail at this site, each charged, before it pauses for that run",
    )
    voids_max: int = Field(
        2, ge=0, description="rounds of a run that may be given back because nothing had left; more are charged"
    )
    approve: Literal["ask", "auto"] = Field(
        "ask",
        description="ask: a person says yes to every run's settings (fedcart site approve); auto: policy decides",
    )

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.clip_min > self.clip_max:
            raise ValueError(f"clip_min {self.clip_min} is above clip_max {self.clip_max}")
        unknown = set(self.allowed_tasks) - set(TASKS)
        if unknown:
            raise ValueError(f"unknown task {sorted(unknown)[0]!r}, known: {', '.join(TASKS)}")
        return self

    def check_proposal(self, proposal: Proposal) -> None:
        """Return if every rule allows the proposal. Raises: PolicyRefusedError naming the first rule that does not."""
        for rule, what in _broken_rules(self, proposal):
            raise PolicyRefusedError(
                rule,
                f"policy rule {rule}: {what}",
                hint="the coordinator can propose other settings; only the site can change its policy.toml",
            )

    def laxer_rules(self) -> list[tuple[str, str, str]]:
        """The rules that allow more than the program's defaults do: (rule, value here, default)."""
        usual, found = SitePolicy(), []
        for rule in type(self).model_fields:
            here, default = getattr(self, rule), getattr(usual, rule)
            above = rule in ALLOWS_MORE_ABOVE and here > default
            below = rule in ALLOWS_MORE_BELOW and here < default
            if above or below or here in WORDS.get(rule, ())[1:]:
                found.append((rule, f"{here:g}" if isinstance(here, float) else str(here), str(default)))
        return found

    @classmethod
    def load(cls, path: Path) -> SitePolicy:
        """Read ``policy.toml``. Raises: ConfigError naming the rule that cannot be read."""
        try:
            plain: dict[str, Any] = tomllib.loads(read_small(path).decode("utf-8"))
            return cls.model_validate(plain)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", hint="write one: docs/privacy.md") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "rules"
            raise ConfigError(
                f"{path.name}: {where}: {first['msg'].lower()}", hint=f"known rules: {', '.join(cls.model_fields)}"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path.name} is not valid TOML: {error}") from None

    def save(self, path: Path) -> None:
        """Write all rules, each with its meaning as a comment, atomically."""
        lines = ["# What this site lets itself be asked. Only the site edits this file."]
        for name, field in type(self).model_fields.items():
            value = tomli_w.dumps({name: self.model_dump(mode="json")[name]}).replace("\n", " ").strip()
            lines.append(f"\n# {field.description}\n{value}")
        write_atomic(path, ("\n".join(lines) + "\n").encode())


def _broken_rules(policy: SitePolicy, proposal: Proposal) -> Iterator[_Refusal]:
    p = proposal
    if p.task not in policy.allowed_tasks:
        yield "allowed_tasks", f"task {p.task!r} is not among {', '.join(policy.allowed_tasks)}"
    if not p.events and not p.derived:
        yield "noise_multiplier_min", "the release has no noise at all"
    if not p.delta <= policy.delta:  # written so that NaN is refused
        yield "delta", f"the run states delta {p.delta}, this scope has {policy.delta}"
    if policy.delta > 1 / max(p.population, 1):
        yield "delta", f"the scope's delta {policy.delta} is above 1 / {p.population}, its declared consumers"
    if not p.secure and not policy.plain_aggregation:
        yield "plain_aggregation", "the server would see this site's contribution alone"
    if not policy.clip_min <= p.clip <= policy.clip_max:
        yield "clip_min" if p.clip < policy.clip_min else "clip_max", _outside("clipping norm", p.clip, policy)
    if not 0 < p.learning_rate <= policy.learning_rate_max:
        yield "learning_rate_max", f"learning rate {p.learning_rate} is not in (0, {policy.learning_rate_max}]"
    if not p.weight_ratio <= policy.weight_ratio_max:
        yield (
            "weight_ratio_max",
            f"another site counts {p.weight_ratio:g} times this one, at most {policy.weight_ratio_max:g} is allowed",
        )
    if p.cohort < policy.min_cohort:
        yield "min_cohort", f"{p.cohort} sites are invited, at least {policy.min_cohort} are needed"
    if p.threshold < policy.min_threshold_fraction * p.cohort:
        yield (
            "min_threshold_fraction",
            (
                f"{p.threshold} of {p.cohort} survivors would do, at least a share of {policy.min_threshold_fraction}"
            ),
        )
    if p.population < policy.min_consumers:
        yield "min_consumers", f"the declared population {p.population} is below {policy.min_consumers}"
    if p.min_stockists < policy.min_stockists:
        yield (
            "min_stockists",
            f"rows of {p.min_stockists} stockists would be shared, at least {policy.min_stockists}",
        )
    if p.kind == STATISTICS and not policy.statistics:
        yield "statistics", "this site releases no statistics"
    yield from _broken_event_rules(policy, proposal)


def _broken_event_rules(policy: SitePolicy, proposal: Proposal) -> Iterator[_Refusal]:
    steps = 0
    for event in proposal.events:
        evaluates = event.sub_scope != TRAIN_SIDE and proposal.kind != STATISTICS
        if (evaluates or proposal.kind == EVALUATE) and not policy.evaluation:
            yield "evaluation", "this site releases no evaluation"
        rule = "evaluation_noise_min" if evaluates else "noise_multiplier_min"
        least: float = getattr(policy, rule)
        if event.noise_in_sum < least:
            yield rule, f"noise multiplier {event.noise_in_sum:.6g} is below {least}"
        if event.in_quorum:
            yield from _broken_quorum_rules(policy, proposal, event)
        if event.sub_scope == TRAIN_SIDE and proposal.kind not in (EVALUATE, STATISTICS):
            steps += event.steps
            if event.sampling_rate > policy.sampling_rate_max:
                yield (
                    "sampling_rate_max",
                    f"sampling rate {event.sampling_rate} is above {policy.sampling_rate_max}",
                )
    if steps > policy.steps_max:
        yield "steps_max", f"{steps} steps in one round are above {policy.steps_max}"


def _broken_quorum_rules(policy: SitePolicy, proposal: Proposal, event: PrivacyEvent) -> Iterator[_Refusal]:
    """Whether the sites that the noise counts on are those that this site believes in; see ``Quorum``."""
    known = max(proposal.sites, proposal.cohort)  # a coordinator picks the cohort, and may pick those who collude
    colluders = usual_colluders(known) if policy.colluders_max < 0 else policy.colluders_max
    if not policy.quorum_noise:
        yield "quorum_noise", "the sum would hold the noise of several sites, this one would add a share only"
    if not proposal.secure:
        yield "quorum_noise", "the server would see this site's share of the noise alone, and no sum"
    if not policy.epsilon_alone_max:
        yield "epsilon_alone_max", "quorum noise needs a limit for the case that no other site is honest"
    if event.colluders < colluders:
        yield (
            "colluders_max",
            f"the noise holds against {event.colluders} colluding sites, this site fears {colluders}",
        )
    if event.honest < policy.honest_min:
        yield "honest_min", f"{event.honest} honest sites are counted on, at least {policy.honest_min} are wanted"
    try:
        Quorum(proposal.cohort, proposal.threshold, event.colluders, event.honest).check()
    except ConfigError as error:
        yield "quorum_noise", error.message


def _outside(what: str, value: float, policy: SitePolicy) -> str:
    return f"{what} {value} is outside {policy.clip_min} to {policy.clip_max}"
