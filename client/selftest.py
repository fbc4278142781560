"""Does the mechanism do what it says? Run at a site, on made-up consumers, with the code that trains.

Mechanism tests look at one promise each: sensitivity, noise, sampling, composition. Their statistics alarm
falsely with probability 1e-4 in all. The empirical audit then attacks a whole training step with canaries
and sets the epsilon that it can prove (at 95 %) beside the one that the accountant promises; a correct
mechanism stays far below, because one canary among thousands is much harder to see than the worst case.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

import client.guard.guard as guards
import client.training.engines as engines
import client.training.evaluation as evaluation
import client.training.trainer as trainer
import common.data.sequences as rows_of
from client.guard.policy import Proposal, SitePolicy
from client.one_run_audit import OneRunAudit, audit_scores
from client.training.gradients import GradientDiagnostics, GradientEngine, clip_factors, empty
from client.training.trainer import LocalPlan
from common.config import RunConfig, build_config
from common.data.catalogue import DECLARED, Catalogue
from common.data.events import EVENT_TYPES, EventLog
from common.data.features import FeatureSpec, feature_spec
from common.model.batch import Batcher
from common.model.network import ModelShape, SequenceModel, build_model
from common.model.parameters import FlatParameters
from common.privacy.accountant import PldAccountant, epsilon_of
from common.privacy.mechanism import PrivacyEvent
from common.tasks.metric_sums import metric_sensitivity
from common.trust.identity import Identity
from common.trust.randomness import PrivateStream

FALSE_ALARM = 1e-4
_STATISTICS = 60  # tests that share the level, rounded up
_CLIP, _SIGMA = 0.05, 2.0
_AUDIT_SIGMA, _DELTA = 4.0, 1e-5  # epsilon about 0.9: here planted bugs show
_CANARIES = 5_000

Progress = Callable[[str, int, int], None]  # what is being tested, done, total
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """One promise, what was seen, and the limit."""

    name: str
    passed: bool
    seen: float
    limit: float
    meaning: str


@dataclass(frozen=True)
class SelfTestResult:
    """All checks and the empirical audit."""

    checks: tuple[Check, ...]
    audit: OneRunAudit

    @property
    def passed(self) -> bool:
        """Whether every promise held."""
        return self.audit.passed and all(check.passed for check in self.checks)


def quiet(_what: str, _done: int, _total: int) -> None:
    """Progress for nobody."""


def run_selftest(observer: Progress = quiet) -> SelfTestResult:
    """Test the mechanism of this installation. Reads no consumer's data and charges nothing."""
    found: list[Check] = []
    tests = (
        _sensitivity,
        _noise,
        _noise_between_steps,
        _noise_between_processes,
        _sampling,
        _evaluation,
        _composition,
    )
    for number, test in enumerate(tests):
        observer(test.__name__.strip("_").replace("_", " "), number, len(tests) + 1)
        found += test()
    observer("empirical audit", len(tests), len(tests) + 1)
    audit = empirical_audit()
    observer("done", len(tests) + 1, len(tests) + 1)
    return SelfTestResult(tuple(found), audit)


def _config() -> RunConfig:
    return build_config({"model": {"dim": 8, "hidden": 8}, "privacy": {"clip": _CLIP}})


def _catalogue() -> Catalogue:
    items = tuple(f"item-{i}" for i in range(40))
    return Catalogue(items, (), np.zeros(41, dtype=np.int32), DECLARED)


def _log(consumers: int = 24, seed: int = 0) -> EventLog:
    """Made-up consumers, the awkward ones among them: one event, five hundred events, one item only."""
    import polars as pl

    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 30, consumers)
    counts[:3] = 1, 500, 60
    who = np.repeat(np.arange(consumers), counts)
    items = rng.integers(0, 40, len(who))
    items[who == 2] = 7
    frame = pl.DataFrame(
        {
            "consumer": who.astype(np.uint64),
            "timestamp": pl.Series(np.arange(len(who)) * 60_000_000).cast(pl.Datetime("us")),
            "event": pl.Series(
                [EVENT_TYPES[i % len(EVENT_TYPES)] for i in range(len(who))], dtype=pl.Enum(EVENT_TYPES)
            ),
            "item": [f"item-{i}" for i in items],
            "price": (10.0 ** rng.integers(-3, 6, len(who))).astype(np.float32),
        }
    )
    return EventLog.from_frame(frame)


def _engine(log: EventLog | None, config: RunConfig) -> GradientEngine:
    """The engine that trains, over the log's consumers (none: over nobody)."""
    spec = feature_spec(_catalogue())
    sequences = rows_of.build_sequences(log or _log(), spec, _catalogue(), max_events=20)
    if log is None:
        sequences = sequences.take(np.zeros(0, dtype=np.intp))
    return engines.make_engine(
        _model(config, spec), Batcher(sequences, list(config.model.heads)), config, "fast", 64
    )


def _model(config: RunConfig, spec: FeatureSpec) -> SequenceModel:
    return build_model(config.model, ModelShape(spec.sizes), seed=3)


def _clipped_sum(log: EventLog, config: RunConfig) -> Vector:
    engine = _engine(log, config)
    total, _ = engine.clipped_sum(np.arange(engine.consumers))
    copied: Vector = total.double().numpy().copy()
    return copied


def _sensitivity() -> list[Check]:
    """Remove one consumer with all their events: the clipped sum moves by at most the clipping norm."""
    import polars as pl

    config, log = _config(), _log()
    whole = _clipped_sum(log, config)
    worst = 0.0
    for consumer in (*range(6), 17):
        without = EventLog(log.frame.filter(pl.col("consumer") != consumer))
        worst = max(worst, float(np.linalg.norm(whole - _clipped_sum(without, config))))
    limit = _CLIP * (1 + 1e-5)
    return [Check("removal sensitivity", worst <= limit, worst, limit, "one consumer moves the sum by at most C")]


def _plan(steps: int, **changes: float) -> LocalPlan:
    constants = {"population": 100.0, "sampling_rate": 0.1, "clip": _CLIP, "noise_multiplier": _SIGMA} | changes
    return LocalPlan(steps=steps, optimizer="sgd", learning_rate=1.0, **constants)  # type: ignore[arg-type]


def _pure_noise(steps: int) -> tuple[Vector, FlatParameters]:
    """The update of a site where nobody is sampled, in units of its promised standard deviation."""
    engine, plan = _engine(None, _config()), _plan(steps)
    update = trainer.train_locally(engine, engine.parameters.numpy(), plan, PrivateStream()).update.astype(
        np.float64
    )
    promised = plan.noise_multiplier * plan.clip / plan.expected_batch * np.sqrt(steps)
    return update / promised, engine.parameters


def _level() -> float:
    return FALSE_ALARM / _STATISTICS


def _variance_check(name: str, values: Vector, meaning: str) -> Check:
    """Sum of squares of standard normal values against its chi-square limits; reported as a variance."""
    n = len(values)
    square = float(np.square(values).sum())
    low, high = stats.chi2.ppf([_level() / 2, 1 - _level() / 2], n)
    return Check(name, bool(low <= square <= high), square / n, float(high / n), meaning)


def _noise() -> list[Check]:
    """Every tensor gets Gaussian noise of the promised size."""
    runs = [_pure_noise(1) for _ in range(12)]
    layout = runs[0][1].layout
    checks = []
    for name in layout.entries:
        values = np.concatenate([layout.split(update.astype(np.float32))[name].ravel() for update, _ in runs])
        checks.append(
            _variance_check(f"noise of {name}", values.astype(np.float64), "variance 1 in promised units")
        )
    return checks


def _noise_between_steps() -> list[Check]:
    """Noise of several steps adds up as independent noise does, and no two runs share any."""
    several, _ = _pure_noise(8)
    first, _ = _pure_noise(1)
    second, _ = _pure_noise(1)
    return [
        _variance_check("noise of eight steps", several, "variance 1: steps draw independent noise"),
        _correlation_check("noise of two runs", first, second),
    ]


def _correlation_check(name: str, first: Vector, second: Vector) -> Check:
    n = min(len(first), len(second))
    seen = abs(float(np.dot(first[:n], second[:n]))) / np.sqrt(n)
    limit = float(stats.norm.ppf(1 - _level() / 2)) * 1.05  # squares vary a little too
    return Check(name, bool(seen <= limit), float(seen), limit, "uncorrelated")


def _noise_between_processes() -> list[Check]:
    """A forked process does not repeat its parent's stream, and a copy cannot be restored from bytes."""
    stream = PrivateStream()
    stream.gaussian(10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child leaves at once
        os.write(writer, stream.gaussian(2_000).tobytes())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = np.frombuffer(pipe.read())
    os.waitpid(child, 0)
    return [_correlation_check("noise of a forked process", stream.gaussian(2_000), theirs)]


class _Recorder:
    """An engine that remembers whom the trainer sampled, and adds nothing."""

    def __init__(self, consumers: int) -> None:
        self.parameters = FlatParameters(torch.nn.Linear(2, 2))
        self.consumers, self.clip = consumers, _CLIP
        self.sizes: list[int] = []

    def clipped_sum(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, GradientDiagnostics]:
        self.sizes.append(len(rows))
        return torch.zeros(self.parameters.layout.size), GradientDiagnostics(empty(), empty())


def _sampling() -> list[Check]:
    """Batches are Poisson samples: right mean, right spread (batches of a fixed size are not)."""
    consumers, rate, steps = 500, 0.1, 400
    recorder = _Recorder(consumers)
    trainer.train_locally(recorder, recorder.parameters.numpy(), _plan(steps, sampling_rate=rate), PrivateStream())
    sizes = np.array(recorder.sizes, dtype=np.float64)
    scale = np.sqrt(consumers * rate * (1 - rate))
    mean = (sizes.sum() - steps * consumers * rate) / (scale * np.sqrt(steps))
    limit = float(stats.norm.ppf(1 - _level() / 2))
    return [
        Check(
            "sampling rate", bool(abs(mean) <= limit), float(abs(mean)), limit, "mean batch size, in deviations"
        ),
        _variance_check(
            "spread of batch sizes", (sizes - consumers * rate) / scale, "Poisson, not batches of fixed size"
        ),
    ]


def _evaluation() -> list[Check]:
    """Metric sums: one consumer moves them by at most the bound, and the noise has the promised size."""
    config = _config()
    spec = feature_spec(_catalogue())
    model = _model(config, spec)
    heads = list(config.model.heads)
    sequences = rows_of.build_sequences(_log(), spec, _catalogue(), max_events=20)
    whole = evaluation.metric_sums(model, Batcher(sequences, heads))
    keep = [np.flatnonzero(np.arange(len(sequences)) != i) for i in range(len(sequences))]
    worst = max(
        float(np.linalg.norm(whole - evaluation.metric_sums(model, Batcher(sequences.take(k), heads))))
        for k in keep
    )
    bound = metric_sensitivity(heads)
    empty_batcher = Batcher(sequences.take(np.zeros(0, dtype=np.intp)), heads)
    draws = [evaluation.evaluate(model, empty_batcher, _SIGMA, PrivateStream()).vector for _ in range(200)]
    noise = np.concatenate(draws) / (_SIGMA * bound)
    return [
        Check(
            "metric sensitivity",
            worst <= bound * (1 + 1e-9),
            worst,
            bound,
            "one consumer moves the sums by at most this",
        ),
        _variance_check("noise of metric sums", noise, "variance 1 in promised units"),
    ]


def _composition() -> list[Check]:
    """Rounds add up in the ledger, across restarts of the program."""
    event = PrivacyEvent(1.0, 0.1, 10)
    with _scratch_guard() as (open_again, proposal):
        for number in (1, 2, 3):
            guard = open_again()
            grant = guard.reserve(proposal(number, event))
            guard.store(grant, b"contribution", grant.attestation.attestation.events)
            guard.commit(grant)
        spent = open_again().status().epsilon
    truth = epsilon_of((PrivacyEvent(1.0, 0.1, 30),), _DELTA)
    return [
        Check(
            "composition over rounds",
            spent >= truth * (1 - 1e-3),
            spent,
            truth,
            "the ledger shows at least this epsilon",
        )
    ]


@contextmanager
def _scratch_guard() -> Iterator[tuple[Callable[[], guards.Guard], Callable[[int, PrivacyEvent], Proposal]]]:
    with tempfile.TemporaryDirectory(prefix="fedcart-selftest-") as name:
        identity, policy = Identity.generate("selftest"), SitePolicy(epsilon_max=100.0, delta=_DELTA)

        def open_again() -> guards.Guard:
            return guards.open_guard(Path(name), identity, policy, "selftest", simulated=True)

        def proposal(number: int, event: PrivacyEvent) -> Proposal:
            digest = f"{number:064x}"
            return Proposal(
                run="selftest",
                round=number,
                attempt=1,
                kind="train",
                task="next-behaviour",
                query=digest,
                config=digest,
                events=(event,),
                delta=_DELTA,
                clip=1.0,
                cohort=3,
                threshold=3,
                population=1_000,
                min_stockists=3,
                secure=True,
            )

        yield open_again, proposal


class _Canaries:
    """An engine whose consumers are canaries: huge gradients, one coordinate each, so that all are clipped to C."""

    def __init__(self, included: NDArray[np.bool_]) -> None:
        self.parameters = FlatParameters(torch.nn.Linear(len(included), 1, bias=False))
        self.included = np.flatnonzero(included)
        self.consumers, self.clip = len(self.included), _CLIP

    def clipped_sum(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, GradientDiagnostics]:
        raw = torch.full((len(rows),), 1e3)
        total = torch.zeros(self.parameters.layout.size)
        total[torch.from_numpy(self.included[rows])] = raw * clip_factors(raw.square(), self.clip)
        return total, GradientDiagnostics(raw.numpy(), empty())


def empirical_audit(canaries: int = _CANARIES) -> OneRunAudit:
    """Attack one private training step with canaries; the accountant's epsilon is the upper bound."""
    included = np.random.default_rng().random(canaries) < 0.5
    engine = _Canaries(included)
    plan = _plan(1, population=10.0, sampling_rate=1.0, noise_multiplier=_AUDIT_SIGMA)
    result = trainer.train_locally(engine, np.zeros(canaries, dtype=np.float32), plan, PrivateStream())
    accountant = PldAccountant(result.events, discretization=1e-4)
    return audit_scores(
        -result.update.astype(np.float64), included, upper=accountant.epsilon(_DELTA), delta=_DELTA
    )
