"""Sensitivity, noise and sampling of the code that trains, evaluates and releases series."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

import client.models as models
import client.selftest.people as people
import client.selftest.report as report
import client.training.evaluation as evaluation
import client.training.trainer as trainer
from client.selftest.report import Check, Vector
from client.training.gradients import GradientDiagnostics, empty
from common.model import FlatParameters
from common.tasks.metric_sums import LOSS_BOUND, metric_sensitivity
from common.trust.randomness import PrivateStream

SIGMA = 2.0
MICRO_BATCH = 7


def plan_of(steps: int, **changes: float) -> trainer.LocalPlan:
    """Constants of a local run."""
    constants = {
        "population": 100.0,
        "sampling_rate": 0.1,
        "clip": people.CLIP,
        "noise_multiplier": SIGMA,
    } | changes
    return trainer.LocalPlan(steps=steps, optimizer="sgd", learning_rate=1.0, **constants)  # type: ignore[arg-type]


def sensitivity() -> list[Check]:
    """Remove one consumer with all their events: no sum that is released moves by more than it says."""
    checks = []
    models = {**people.MODELS, "with a norm": people.MODELS["lstm"]}
    for name, settings in models.items():
        config, log, worst = people.config_of(settings), people.people(), 0.0
        whole = _clipped_sum(log, config, norm=name == "with a norm")
        for consumer in (1, 2, 3, 4, 9, 17, 24):
            moved = whole - _clipped_sum(people.without(log, consumer), config, norm=name == "with a norm")
            worst = max(worst, float(np.linalg.norm(moved)))
        checks.append(
            report.at_most(
                f"sensitivity: {name}", worst, people.CLIP * (1 + 1e-5), "one consumer moves it by at most C"
            )
        )
    return checks


def _clipped_sum(log: people.EventLog, config: people.RunConfig, *, norm: bool) -> Vector:
    model = people.with_norm(people.model_of(config)) if norm else people.model_of(config)
    engine = models.make_engine(model, people.batches(log, config), config, "fast", MICRO_BATCH)
    total, _ = engine.clipped_sum(np.arange(engine.consumers))
    copied: Vector = total.double().numpy().copy()
    return copied


def noise() -> list[Check]:
    """Everything that is drawn: right size in every tensor, standard normal to the tails, independent."""
    runs = [_pure_noise(1) for _ in range(12)]
    layout = runs[0][1].layout
    checks = []
    for name in layout.entries:
        values = np.concatenate([layout.split(update.astype(np.float32))[name].ravel() for update, _ in runs])
        checks.append(
            report.variance_check(f"noise of {name}", values.astype(np.float64), "variance 1 in promised units")
        )
    several, _ = _pure_noise(8)
    checks.append(
        report.variance_check("noise of eight steps", several, "variance 1: steps draw independent noise")
    )
    checks.append(report.correlation_check("noise of two runs", runs[0][0], runs[1][0]))
    mechanism = plan_of(1).mechanism(people.CLIP, PrivateStream())
    scale = SIGMA * people.CLIP * (1 + trainer.rounding_slack(plan_of(1).expected_batch))
    drawn = [mechanism.noise(300_000) / scale for _ in range(2)]
    checks += report.normality_checks("noise", np.concatenate(drawn))
    checks.append(report.correlation_check("noise of two sums", *drawn))
    half = len(drawn[0]) // 2
    checks.append(report.correlation_check("noise of neighbours", drawn[0][:half], drawn[0][half:]))
    return [*checks, _between_processes()]


def _pure_noise(steps: int) -> tuple[Vector, FlatParameters]:
    """The update of a site where nobody is sampled, in units of its promised standard deviation."""
    config, plan = people.config_of(people.MODELS["lstm"]), plan_of(steps)
    nobody = people.batches(people.people(), config)
    nobody = nobody.__class__(
        people.encoded(people.people()).take(np.zeros(0, dtype=np.intp)), list(config.model.heads)
    )
    engine = models.make_engine(people.model_of(config), nobody, config, "fast", MICRO_BATCH)
    update = trainer.train_locally(engine, engine.parameters.numpy(), plan, PrivateStream()).update.astype(
        np.float64
    )
    sensitivity_ = people.CLIP * (1 + trainer.rounding_slack(plan.expected_batch))
    promised = plan.noise_multiplier * sensitivity_ / plan.expected_batch * np.sqrt(steps)
    return update / promised, engine.parameters


def _between_processes() -> Check:
    """A forked process does not repeat its parent's stream, and two streams made at once are two."""
    stream, other = PrivateStream(), PrivateStream()
    stream.gaussian(10), other.gaussian(10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child leaves at once
        os.write(writer, stream.gaussian(2_000).tobytes())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = np.frombuffer(pipe.read())
    os.waitpid(child, 0)
    ours, twin = stream.gaussian(2_000), other.gaussian(2_000)
    worst = max((report.correlation_check("", ours, x) for x in (theirs, twin)), key=lambda check: check.seen)
    return Check("noise of another process", worst.passed, worst.seen, worst.limit, worst.meaning)


class _Recorder:
    """An engine that remembers whom the trainer sampled, and adds nothing."""

    def __init__(self, consumers: int) -> None:
        self.parameters = FlatParameters(torch.nn.Linear(2, 2))
        self.consumers, self.clip = consumers, people.CLIP
        self.batches: list[NDArray[np.int64]] = []

    def clipped_sum(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, GradientDiagnostics]:
        self.batches.append(rows.copy())
        return torch.zeros(self.parameters.layout.size, dtype=torch.float64), GradientDiagnostics(empty(), empty())


def sampling() -> list[Check]:
    """Batches are Poisson samples of everybody, drawn anew in every step: rate to half a percent, right spread."""
    rate, level = 0.1, float(stats.norm.ppf(1 - report.LEVEL / 2))
    many = _batches(20_000, 400, rate)
    sizes = np.array([len(rows) for rows in many], dtype=np.float64)
    mean = (sizes.sum() - 400 * 20_000 * rate) / np.sqrt(400 * 20_000 * rate * (1 - rate))
    few = np.array([len(rows) for rows in _batches(100, 3_000, rate)])
    again = np.array([len(np.intersect1d(a, b)) for a, b in pairwise(many)], dtype=np.float64)
    overlap = (again.sum() - len(again) * 20_000 * rate**2) / np.sqrt(len(again) * 20_000 * rate**2)
    classes = np.bincount(few, minlength=101)
    return [
        report.at_most("sampling rate", abs(mean), level, "mean batch size, in deviations (half a percent shows)"),
        report.frequencies_check(
            "batch sizes", classes, stats.binom.pmf(np.arange(len(classes)), 100, rate), "binomial"
        ),
        report.at_most("batches of two steps", abs(overlap), level, "share drawn again, in deviations"),
    ]


def _batches(consumers: int, steps: int, rate: float) -> list[NDArray[np.int64]]:
    recorder = _Recorder(consumers)
    trainer.train_locally(
        recorder, recorder.parameters.numpy(), plan_of(steps, sampling_rate=rate), PrivateStream()
    )
    return recorder.batches


def metrics() -> list[Check]:
    """Metric sums of every task: bounded loss, right sensitivity, noise of the promised size."""
    checks = []
    for name in ("lstm", "intent", "both"):
        config = people.config_of(people.MODELS[name])
        log, bound = people.people(), metric_sensitivity(list(config.model.heads))
        for scale in (1.0, 60.0):  # a model that is very sure and very wrong
            worst = max(float(np.linalg.norm(moved)) for moved in _metric_moves(log, config, scale))
            checks.append(
                report.at_most(f"metric sensitivity: {name}, x{scale:g}", worst, bound * (1 + 1e-9), "L2 bound")
            )
    config = people.config_of(people.MODELS["lstm"])
    nobody = people.batches(people.people(), config)
    nobody = nobody.__class__(
        people.encoded(people.people()).take(np.zeros(0, dtype=np.intp)), list(config.model.heads)
    )
    draws = [
        evaluation.evaluate(people.model_of(config), nobody, SIGMA, PrivateStream()).vector for _ in range(200)
    ]
    values = np.concatenate(draws, dtype=np.float64) / (SIGMA * metric_sensitivity(list(config.model.heads)))
    checks.append(report.variance_check("noise of metric sums", values, "variance 1 in promised units"))
    return [*checks, report.at_most("loss of a consumer", LOSS_BOUND, 10.0, "nats, counted at most")]


def _metric_moves(log: people.EventLog, config: people.RunConfig, scale: float) -> Iterator[Vector]:
    model = people.model_of(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    whole = evaluation.metric_sums(model, people.batches(log, config))
    for consumer in (1, 2, 3, 9, 24):
        yield whole - evaluation.metric_sums(model, people.batches(people.without(log, consumer), config))


def series() -> list[Check]:
    """The sales series: one consumer moves all cells of all channels together by at most the clip."""
    from client.tasks.purchases import purchases_of
    from common.tasks.sales_series import SalesSpec

    checks = []
    log = people.people()
    for clip in (0.3, 1.0):
        config = people.build_config(
            {
                "task": "sales",
                "sales": {"start": "1970-01-01", "periods": 120, "categories": ["all"]},
                "privacy": {"clip": clip},
            }
        )
        spec = SalesSpec.of(config)
        caps = (config.sales.quantity_cap, config.sales.price_cap)
        whole = purchases_of(log, spec, caps).series(spec, clip).reshape(-1)
        worst = max(
            float(
                np.linalg.norm(
                    whole - purchases_of(people.without(log, c), spec, caps).series(spec, clip).reshape(-1)
                )
            )
            for c in (1, 2, 3, 9, 24)
        )
        checks.append(
            report.at_most(f"sensitivity: sales series, clip {clip:g}", worst, clip * (1 + 1e-9), "over all cells")
        )
    return checks


def accounts_for_its_draws() -> list[Check]:
    """What the mechanism says it did is what it drew."""
    mechanism = plan_of(3, noise_multiplier=1.7).mechanism(1.0, PrivateStream())
    for _ in range(3):
        mechanism.sample(0.1, 10)
        mechanism.noise(5)
    (event,) = mechanism.events()
    said = (event.noise_multiplier, event.sampling_rate, event.steps)
    return [report.holds("events of the draws", said == (1.7, 0.1, 3), "noise, rate and steps as drawn")]
